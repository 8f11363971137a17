"""Statistics against textbook values and against what they must do."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.statistics import along_stream, compare, halves, interval, questions_needed


def column(right: int, wrong: int) -> np.ndarray:
    return np.array([[1.0]] * right + [[0.0]] * wrong)


def test_wilson_interval_of_a_textbook_example() -> None:
    # 7 of 20: (0.1812, 0.5671), by Wilson's formula with z = 1.96.
    found = interval(column(7, 13), graded=False)
    assert found.method == "wilson"
    assert (found.mean, found.low, found.high) == pytest.approx((0.35, 0.1812, 0.5671), abs=2e-4)


def test_all_right_is_not_certainty() -> None:
    found = interval(column(10, 0), graded=False)
    assert found.mean == 1
    assert 0.6 < found.low < 0.8


def test_repeats_of_a_question_are_not_more_questions() -> None:
    rng = np.random.default_rng(3)
    once = (rng.random((60, 1)) < 0.6).astype(float)
    repeated = np.repeat(once, 10, axis=1)
    one, many = interval(once, graded=True), interval(repeated, graded=False)
    assert (many.low, many.high) == pytest.approx((one.low, one.high))


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(4)
    base = (rng.random((200, 1)) < 0.5).astype(float)
    better = base.copy()
    better[np.flatnonzero(base == 0)[:10]] = 1
    found = compare(better, base, graded=False)
    assert found.difference.mean == pytest.approx(0.05)
    unpaired = interval(better, graded=False)
    width = found.difference.high - found.difference.low
    assert found.difference.low > 0
    assert width < (unpaired.high - unpaired.low) / 2
    assert (found.wins, found.losses) == (10, 0)
    assert found.p_value == pytest.approx(2 * 0.5**10)


def test_mcnemar_exact_counts_discordant_pairs_only() -> None:
    # 8 wins and 2 losses: two-sided binomial test of 2 in 10, 2 * (1 + 10 + 45) / 1024.
    mine = np.array([[1.0]] * 8 + [[0.0]] * 2 + [[1.0]] * 90)
    theirs = np.array([[0.0]] * 8 + [[1.0]] * 2 + [[1.0]] * 90)
    assert compare(mine, theirs, graded=False).p_value == pytest.approx(112 / 1024)


def test_equal_arms_differ_by_nothing_for_certain() -> None:
    found = compare(column(5, 5), column(5, 5), graded=False)
    assert (found.difference.low, found.difference.mean, found.difference.high) == (0, 0, 0)
    assert found.p_value == 1
    assert questions_needed(0.05, found.spread) is None


def test_graded_measures_have_no_mcnemar() -> None:
    rng = np.random.default_rng(5)
    found = compare(rng.random((30, 2)), rng.random((30, 2)), graded=True)
    assert found.p_value is None


def test_an_interval_is_the_same_every_time() -> None:
    rng = np.random.default_rng(6)
    scores = rng.random((40, 3))
    assert interval(scores, graded=True) == interval(scores, graded=True)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(60):
        found = interval(rng.normal(0.4, 0.2, (50, 1)).clip(0, 1), graded=True)
        covered += found.low <= 0.4 <= found.high
    assert covered >= 52


def test_power_line_of_a_textbook_example() -> None:
    # Paired t test, effect size 0.5, 80% power at 5%: 34 pairs.
    assert questions_needed(0.05, 0.1) == 34


def test_smaller_differences_need_more_questions() -> None:
    needed = [questions_needed(d, 0.5) for d in (0.1, 0.05, 0.02)]
    assert needed == sorted(n for n in needed if n is not None)


def test_one_question_has_no_interval() -> None:
    assert interval(np.array([[0.5, 0.7]]), graded=True).method == "none"


def test_stream_points_are_running_means() -> None:
    points = along_stream(np.array([[1.0], [0.0], [1.0], [1.0]]), window=2)
    assert [p.cumulative for p in points] == pytest.approx([1, 0.5, 2 / 3, 0.75])
    assert [p.window for p in points] == [1, 0.5, 0.5, 1]
    assert halves(np.array([[1.0], [0.0], [1.0], [1.0]])) == (0.5, 1.0)
