"""The gate: when a few replays are enough to say that a rule helps, harms or does neither.

A trial answers one stored question with the rule and without it. Only trials in which the two
differ tell anything (as in McNemar's test): `helped` counts those that are right with the rule
only, `harmed` those that are right without it only. Which of the two is the likelier is decided by
Wald's sequential probability ratio test (Wald, "Sequential Tests of Statistical Hypotheses", 1945)
of p = `effect` against p = 1 - `effect`, p being the chance that a telling trial helps. With both
error rates e the test goes on while

    log(e / (1 - e)) < (helped - harmed) * log(effect / (1 - effect)) < log((1 - e) / e)

and is cut off after `replays` trials: a rule that has helped `margin` times more than it has harmed
by then is kept, any other one has shown no use. `benchmarks/gate.py` simulates what that keeps and
lets through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    HELPFUL = "helpful"
    HARMFUL = "harmful"
    USELESS = "useless"
    """As many trials as there may be, and no gain to show."""


@dataclass(frozen=True, slots=True)
class GateOptions:
    replays: int = 48
    """Trials at most."""
    error: float = 0.05
    """Chance of a wrong decision, of either kind, before the cut-off."""
    effect: float = 0.75
    margin: int = 2


DEFAULT_GATE = GateOptions()


def verdict(
    helped: int, harmed: int, tried: int, options: GateOptions = DEFAULT_GATE
) -> Verdict | None:
    """None: not decided yet. `tried` counts all trials, telling or not."""
    evidence = (helped - harmed) * math.log(options.effect / (1 - options.effect))
    bound = math.log((1 - options.error) / options.error)
    if evidence >= bound:
        return Verdict.HELPFUL
    if evidence <= -bound:
        return Verdict.HARMFUL
    if tried < options.replays:
        return None
    return Verdict.HELPFUL if helped - harmed >= options.margin else Verdict.USELESS
