"""Counts, numbers, names and shared runs of words."""

from __future__ import annotations

import time

import pytest

from app.loop.admission.text_measures import (
    capitals,
    content_words,
    longest_shared,
    numbers,
    script,
    spelled,
    words,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("one", 1),
        ("well-known facts, twice", 3),
        ("先写出要求的量", 3.5),
        ("use 量 first", 2.5),
    ],
)
def test_words(text: str, count: float) -> None:
    assert words(text) == count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no number", set()),
        ("1,250 and 1250.00", {"1250"}),
        ("3.50 or 3.5", {"3.5"}),
        ("12 of 100", {"12", "100"}),
        ("x2 and 0.05", {"2", "0.05"}),
    ],
)
def test_numbers(text: str, found: set[str]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("number", "word"),
    [
        ("11", "eleven"),
        ("19", "nineteen"),
        ("20", "twenty"),
        ("48", "forty eight"),
        ("99", "ninety nine"),
        ("10", None),
        ("5", None),
        ("100", None),
        ("3.5", None),
        ("x", None),
    ],
)
def test_spelled(number: str, word: str | None) -> None:
    assert spelled(number) == word


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Janet sews and then Tom's dog barks at Anna.", {"Tom", "Anna"}),
        ("Use the Pythagorean theorem on Monday.", set()),
        ("Nothing here.", set()),
    ],
)
def test_capitals(text: str, found: set[str]) -> None:
    assert capitals(text) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a question in English", "LATIN"),
        ("вопрос на русском языке", "CYRILLIC"),
        ("一共需要几匹布", "CJK"),
        ("これはペンです", "CJK"),
        ("x = 5", None),
        ("", None),
    ],
)
def test_script(text: str, name: str | None) -> None:
    assert script(text) == name


def test_content_words_are_the_same_in_singular_and_plural() -> None:
    assert content_words("The duck counted eggs") == content_words("ducks counting an eggs")
    assert content_words("that is what it was about") == set()


@pytest.mark.parametrize(
    ("text", "source", "at_least", "shared"),
    [
        ("a b c d e", "x b c d y", 3, "b c d"),
        ("a b c d e", "x b c d y", 4, None),
        ("Count, the PARTS first!", "count the parts first", 3, "count the parts first"),
        ("a b c x a b c d", "a b c d", 3, "a b c d"),
        ("", "a b c", 3, None),
        ("a b c", "", 3, None),
        ("ends with a b c", "a b c", 3, "a b c"),
    ],
)
def test_longest_shared(text: str, source: str, at_least: int, shared: str | None) -> None:
    assert longest_shared(text, source, at_least) == shared


def test_longest_shared_is_quick_on_long_sources() -> None:
    before = time.process_time()
    longest_shared("the " * 32, "the " * 2000, 4)
    assert time.process_time() - before < 2.0
