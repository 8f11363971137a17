"""What all formats have in common."""

from __future__ import annotations

import time

import pytest

from app.chat.formats.base import text_pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("one", ["one"]),
        ("  one two \n", ["  one", " two \n"]),
        (" \n ", [" \n "]),
    ],
)
def test_an_answer_goes_out_word_by_word(text: str, pieces: list[str]) -> None:
    assert text_pieces(text) == pieces


def test_an_answer_of_nothing_but_spaces_takes_no_time() -> None:
    began = time.thread_time()
    assert text_pieces(" " * 100_000) == [" " * 100_000]
    assert time.thread_time() - began < 0.1
