"""How much to explore: as much as past agreement near a question says that it needs.

The share p of answers that agree with the leading one has a Beta prior from the explored questions
nearby (else from the whole namespace). An exploration may stop when p > 1/2 is sure enough: the
stopping rule of Adaptive-Consistency (Aggarwal et al., EMNLP 2023) with an informed prior. Where
the neighbours have all agreed nothing is explored at all, but for a small share that keeps the
picture up to date. Where nobody waits, answers are asked for one by one, until no open one could
still win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.settings import DEFAULT_EXPERIMENT
from rules_store.models.evidence import Neighbour

NEIGHBOURS = 8
"""How many of the nearest explored questions are asked."""
NEAR = 0.6
"""Least cosine of a neighbour."""
SETTLED_NEIGHBOURS = 4
SETTLED_AGREEMENT = 0.74
"""Two answers of two that agree are 0.75 (`Precedent.agreement`)."""
STILL_EXPLORED = 0.1
"""Share of questions that are explored although all their neighbours agree."""
TUTOR_FAILED = "tutor_failed"
TOO_FEW_WORDINGS = "tutor_gave_too_few"
"""The Tutor answered, but some of its wordings asked something else; Students took the original."""
LOCAL_STRENGTH, GLOBAL_STRENGTH = 4.0, 2.0
"""Answers that the prior is worth at most."""


@dataclass(frozen=True, slots=True)
class Effort:
    """`explore` False: the Teacher alone. `agreeing` and `dissenting` are the parameters of the
    Beta prior of the share that agrees with the leading answer."""

    explore: bool
    agreeing: float = 1.0
    dissenting: float = 1.0
    confidence: float = DEFAULT_EXPERIMENT.explore_confidence
    patient: bool = False
    """Nobody waits: after the first two the Students answer one by one."""
    agreed: int = 0
    """While all answers agree, so many are asked for, however sure the leading one is."""
    tutor: bool = True
    """Whether the Tutor is worth a call: of late its wordings have mostly been of use."""

    def sure(self, leading: int, next_best: int) -> bool:
        """Whether the leading answer is sure enough, with so many votes against the next best."""
        if leading < 2:
            return False
        # Late: scipy takes a while to import, and only adaptive exploring needs it.
        from scipy.special import betainc

        below_half = betainc(self.agreeing + leading, self.dissenting + next_best, 0.5)
        return bool(1.0 - below_half >= self.confidence)

    def idle(self, leading: int, next_best: int, answers: int, outstanding: int) -> bool:
        """Whether asking on is of no use, of a patient exploration: the leading answer can't be
        overtaken any more (a tie is still possible), or none can get more than half of the
        votes."""
        if not self.patient:
            return False
        settled = leading >= 2 and leading >= next_best + outstanding
        hopeless = 2 * (leading + outstanding) <= answers + outstanding
        return settled or hopeless


def effort(
    neighbours: Sequence[Neighbour],
    overall: float | None,
    *,
    confidence: float,
    lot: float,
) -> Effort:
    """`neighbours`: explored questions nearby; `overall`: mean agreement of the namespace, None
    while it knows too few; `lot` in [0, 1) decides whether a settled question is explored."""
    known = [each for each in neighbours if each.agreement is not None and each.similarity >= NEAR]
    settled = (
        len(known) >= SETTLED_NEIGHBOURS
        and min(each.agreement or 0.0 for each in known) >= SETTLED_AGREEMENT
    )
    if settled and lot >= STILL_EXPLORED:
        return Effort(explore=False)
    if known:
        weight = sum(each.similarity for each in known)
        mean = sum(each.similarity * (each.agreement or 0.0) for each in known) / weight
        strength = min(LOCAL_STRENGTH, float(len(known)))
    elif overall is not None:
        mean, strength = overall, GLOBAL_STRENGTH
    else:
        mean, strength = 0.5, 0.0
    return Effort(True, 1.0 + strength * mean, 1.0 + strength * (1.0 - mean), confidence)
