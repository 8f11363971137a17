"""The interval of the control group: against the slow definition, and over many streams at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.effect import Streams, simulate
from rules_store.policy.control import LEAST_OUTCOMES, MEASURING, RESTING, scheduled
from rules_store.policy.effect import (
    ALPHA,
    GUARD_ALPHA,
    LARGEST,
    NO_OUTCOMES,
    RATES,
    WEIGHTS,
    EffectState,
    EffectVerdict,
    outcomes_needed,
)
from rules_store.policy.effect import state_of as state_at_once

pytestmark = pytest.mark.sqlite

outcome = st.tuples(st.booleans(), st.floats(0.01, 0.99), st.floats(0, 1))


def state_of(told: list[tuple[bool, float, float]]) -> EffectState:
    state = NO_OUTCOMES
    for steered, share, value in told:
        state = state.plus(steered=steered, share=share, value=value)
    return state


@given(st.lists(outcome, max_size=30))
def test_outcomes_add_up_at_once_to_what_they_do_one_by_one(told: list[Any]) -> None:
    slow, fast = state_of(told), state_at_once(*(zip(*told, strict=True) if told else ([], [], [])))
    assert (fast.control.count, fast.steered.count) == (slow.control.count, slow.steered.count)
    for name in ("moved", "drawn", "gains", "slopes", "penalties"):
        assert np.allclose(getattr(fast, name), getattr(slow, name)), name


def mixture(told: list[tuple[bool, float, float]], theta: float, sign: float) -> float:
    """Logarithm of the mixture of supermartingales, term by term as the module's text has it."""
    logs = np.log(WEIGHTS)
    sums = {True: (0, 0.0), False: (0, 0.0)}
    for steered, share, value in told:
        p = 1 - share
        guesses = {arm: (total + 1) / (count + 2) for arm, (count, total) in sums.items()}
        guess = share * guesses[True] + p * guesses[False]
        c = max(p, share) * max(guess, 1 - guess)
        z = (steered - p) * (value - guess)
        assert abs(z) <= c + 1e-12
        for at, rate in enumerate(RATES):
            r = min(rate, LARGEST / c)
            psi = -math.log(1 - c * r) - c * r
            logs[at] += sign * r * (z - p * share * theta) - psi / c**2 * z**2
        count, total = sums[steered]
        sums[steered] = (count + 1, total + value)
    return float(np.logaddexp.reduce(logs))


@given(st.lists(outcome, min_size=1, max_size=30))
def test_the_interval_ends_where_the_mixture_reaches_its_bound(told: list[Any]) -> None:
    shown = state_of(told).interval()
    least = math.log(2 / ALPHA)
    for theta, sign in ((shown.low, 1.0), (shown.high, -1.0)):
        if theta == -sign:
            assert mixture(told, theta, sign) <= least
        elif abs(theta) < 0.999:
            assert mixture(told, theta, sign) == pytest.approx(least, abs=1e-6)


@given(st.lists(outcome, max_size=8))
def test_what_is_stored_comes_back(told: list[Any]) -> None:
    state = state_of(told)
    again = EffectState.from_json(state.as_json())
    assert again.as_json() == state.as_json()
    assert again.interval() == state.interval()


def test_nothing_is_known_of_nothing() -> None:
    shown = NO_OUTCOMES.interval()
    assert (shown.difference, shown.low, shown.high) == (None, -1.0, 1.0)
    assert shown.verdict is EffectVerdict.UNKNOWN
    assert not NO_OUTCOMES.below(0.99)
    # Nothing is learned where the arm was no matter of chance.
    assert state_of([(True, 0.0, 1.0)]).interval().difference is None


def test_the_guard_is_stricter_than_the_verdict() -> None:
    state = NO_OUTCOMES
    for number in range(200):
        state = state.plus(steered=number % 2 == 0, share=0.5, value=float(number % 2))
        shown = state.interval()
        assert state.below(0.0) == (shown.verdict is EffectVerdict.HARMS)
        assert not state.above(0.0)
        if state.below(0.0, GUARD_ALPHA):
            break
    assert shown.verdict is EffectVerdict.HARMS
    assert not state.below(-1.0)
    assert state.count < 50


def test_a_changing_share_leaves_the_estimate_where_it_is() -> None:
    """Answers get better in time and so does the share of control: a plain difference of means
    would see an effect where there is none."""
    rng = np.random.default_rng(5)
    state = NO_OUTCOMES
    for share, accuracy in ((0.9, 0.9), (0.1, 0.3)):
        for _ in range(1500):
            steered = bool(rng.random() >= share)
            state = state.plus(steered=steered, share=share, value=float(rng.random() < accuracy))
    means = state.steered.mean, state.control.mean
    assert means[0] is not None
    assert means[1] is not None
    assert means[0] - means[1] < -0.3
    shown = state.interval()
    assert shown.low < 0 < shown.high
    assert shown.difference == pytest.approx(0.0, abs=0.08)


def test_coverage_under_continuous_looking() -> None:
    found = simulate(np.random.default_rng(1), 400, 500, 0.5, 0.0, 0.25)
    alarms = np.isfinite(np.minimum(found.helps, found.harms)).mean()
    assert alarms <= ALPHA
    assert np.isfinite(found.tripped).mean() <= 0.01
    missed = simulate(np.random.default_rng(2), 400, 500, 0.5, -0.1, 0.5)
    assert np.isfinite(missed.missed).mean() <= ALPHA


@pytest.mark.parametrize("effect", [0.2, -0.2])
def test_an_effect_shows_in_time(effect: float) -> None:
    base = 0.5 if effect > 0 else 0.7
    found = simulate(np.random.default_rng(3), 200, 700, base, effect, 0.5)
    seen = found.helps if effect > 0 else found.tripped
    assert np.isfinite(seen).mean() >= 0.9
    half = float(np.median(found.helps if effect > 0 else found.harms))
    assert half == pytest.approx(outcomes_needed(effect, 0.24, 0.5), rel=0.3)
    assert outcomes_needed(effect, 0.24, 0.0) == math.inf


def test_the_simulation_is_of_what_the_service_does() -> None:
    rng = np.random.default_rng(4)
    streams = Streams(3)
    states = [NO_OUTCOMES] * 3
    for _ in range(40):
        share = rng.uniform(0.05, 0.95, 3)
        steered = rng.random(3) >= share
        value = rng.random(3)
        streams.add(steered, share, value, 0.0)
        states = [
            state.plus(steered=bool(steered[at]), share=float(share[at]), value=float(value[at]))
            for at, state in enumerate(states)
        ]
    for at, state in enumerate(states):
        np.testing.assert_allclose(streams.gains[at], state.gains)
        np.testing.assert_allclose(streams.penalties[at], state.penalties)
        np.testing.assert_allclose(streams.slopes[at], state.slopes)


def test_the_default_schedule() -> None:
    assert scheduled(outcomes=0, known=False) == RESTING
    assert scheduled(outcomes=LEAST_OUTCOMES, known=False) == MEASURING
    assert scheduled(outcomes=LEAST_OUTCOMES, known=True) == RESTING
