"""The gate's promise, by a simulation with known lifts; and the edges of its test."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gate import HARMFUL, HELPFUL, simulate
from rules_store.policy.gate import GateOptions, Verdict, verdict


def test_at_the_default_budget_helpful_rules_are_kept_and_harmful_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    options = GateOptions()
    helpful = simulate("helpful", rng.uniform(*HELPFUL, 1500), 0.05, options, rng)
    harmful = simulate("harmful", rng.uniform(*HARMFUL, 1500), 0.05, options, rng)
    assert helpful.kept_low >= 0.95
    assert harmful.kept_high <= 0.05
    assert max(helpful.replays, harmful.replays) < 20, "few replays decide"


@pytest.mark.parametrize(
    ("helped", "harmed", "tried", "expected"),
    [
        (3, 0, 3, Verdict.HELPFUL),
        (2, 0, 3, None),
        (0, 3, 3, Verdict.HARMFUL),
        (6, 3, 20, Verdict.HELPFUL),
        (5, 5, 47, None),
        (5, 5, 48, Verdict.USELESS),
        (2, 0, 48, Verdict.HELPFUL),
        (1, 0, 48, Verdict.USELESS),
        (0, 0, 48, Verdict.USELESS),
    ],
)
def test_a_few_telling_trials_decide(
    helped: int, harmed: int, tried: int, expected: Verdict | None
) -> None:
    assert verdict(helped, harmed, tried) is expected
