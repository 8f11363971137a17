"""The console's pure parts: differences, charts, words."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.console import charts
from app.console.diff import LONGEST, compare
from app.console.episode_view import evidence_of
from app.console.rendering import count, distance, percent, words
from rules_store.models.episodes import Episode, EpisodeStatus


def marked(pieces: list[object]) -> list[str]:
    return [piece.text for piece in pieces if piece.changed]  # type: ignore[attr-defined]


def test_what_differs_is_marked_on_its_side() -> None:
    old, new = compare("Add both, then round up.", "Add both; never round.")
    assert marked(old) == [", then", "up"]
    assert marked(new) == ["; never"]


def test_white_space_is_no_difference() -> None:
    old, new = compare("One.\nTwo  three.", "One. Two three.\n")
    assert not marked(old + new)


def test_a_number_or_a_time_is_one_word() -> None:
    old, new = compare("It is 11:75 or 9.50.", "It is 11:15 or 9.55.")
    assert (marked(old), marked(new)) == (["11:75", "9.50"], ["11:15", "9.55"])


@given(st.text(max_size=80), st.text(max_size=80))
def test_the_pieces_are_the_texts(old: str, new: str) -> None:
    left, right = compare(old, new)
    assert "".join(piece.text for piece in left) == old
    assert "".join(piece.text for piece in right) == new
    if old == new:
        assert not marked(left + right)


def test_texts_that_are_too_long_are_shown_unmarked() -> None:
    left, right = compare("a " * LONGEST, "b " * LONGEST)
    assert not marked(left + right)


def test_no_text_takes_long_to_compare() -> None:
    old = " ".join("abc"[n % 2] for n in range(LONGEST))
    new = " ".join("abc"[n % 3] for n in range(LONGEST))
    started = time.process_time()
    compare(old, new)
    assert time.process_time() - started < 2  # without the heuristic a minute


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
def test_bars_stay_in_the_picture_and_are_in_proportion(values: list[int]) -> None:
    chart = charts.bars([(str(n), value) for n, value in enumerate(values)])
    assert chart is not None
    top, bottom = chart.ticks[-1].at, chart.ticks[0].at
    for bar, value in zip(chart.bars, values, strict=True):
        assert chart.left <= bar.x <= bar.x + bar.width <= chart.width
        assert top - 0.01 <= bar.y <= bottom + 0.01
        share = float(chart.ticks[-1].label)
        assert bar.height == pytest.approx((bottom - top) * value / share, abs=0.02)


def test_lines_leave_out_what_is_unknown() -> None:
    chart = charts.lines(["a", "b", "c"], {"one": [1, None, 2], "none": [None, None, None]})
    assert chart is not None
    assert len(chart.lines[0].points.split()) == 2
    assert chart.lines[1].last is None
    assert charts.lines([], {}) is None
    assert charts.bars([]) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (59, "just now"),
        (61, "1 minute ago"),
        (7300, "2 hours ago"),
        (90000, "1 day ago"),
        (8 * 86400, "3 Jan 2026"),
    ],
)
def test_moments_in_words(seconds: float, said: str) -> None:
    assert distance(seconds, datetime(2026, 1, 3, tzinfo=UTC)) == said


def test_numbers_and_names_in_words() -> None:
    assert (count(12345), count(0.5), count(None)) == ("12,345", "0.50", "\N{EN DASH}")
    assert (percent(0.754), percent(None)) == ("75 %", "\N{EN DASH}")
    assert words("no_contrast:scattered") == "no contrast: scattered"
    assert words("learned in ep_1") == "learned in ep_1"


def test_an_episode_without_a_trace_shows_nothing_and_breaks_nothing() -> None:
    now = datetime(2026, 1, 3, tzinfo=UTC)
    for trace in ({}, {"selection": None, "trajectories": None}, {"trajectories": [{}]}):
        episode = Episode(
            "e", "n", "steer", EpisodeStatus.SKIPPED, None, "q", None, "m", trace, now, now
        )
        found = evidence_of(episode)
        assert (found.better, found.worse, found.case) == (None, None, None)
