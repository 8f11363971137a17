"""What the choice between kinds of experience promises, by a simulation with known values."""

from __future__ import annotations

from benchmarks.choice import Stream, simulate


def test_examples_that_help_are_given_and_those_that_harm_fade() -> None:
    helps = simulate(Stream("helps", 0.52, 0.67), 40, 300, seed=1)
    harms = simulate(Stream("harms", 0.52, 0.37), 40, 300, seed=1)
    assert helps.lost < 1.5
    assert min(helps.shown) > 0.85
    assert harms.lost < 6.0
    assert harms.shown[2] < 0.3 < harms.shown[0]


def test_without_outcomes_nothing_is_tried() -> None:
    row = simulate(Stream("never told", 0.52, 0.67, rules=0.53, told=0.0), 3, 50, seed=1)
    assert abs(row.lost) < 1e-9
    assert row.shown == (1.0, 1.0, 1.0)
