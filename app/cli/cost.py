"""What the service costs the model server at most, in a sentence: for the first screen and
`ttcl doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.trajectory import Mode
from app.settings import Policy, Settings

OFF = (
    "off: TTCL_LEARN=false (learning), TTCL_LEARN_SAMPLE_RATE=0 (learning without feedback), "
    "TTCL_MODE=off (all of it)"
)
_OF = 100
"""Answers that costs are told of."""


@dataclass(frozen=True, slots=True)
class LearningCost:
    """Upstream calls at most, beside those for answers."""

    explored: float
    """Of 100 answers that nobody judges."""
    calls: int
    """Of an explored one."""
    trials: float
    """Of rules, of an explored one: a call each."""
    lessons: float
    """Calls for 100 answers that feedback judges."""

    @property
    def without_feedback(self) -> float:
        """Calls for 100 answers that nobody judges."""
        return self.explored * (self.calls + self.trials)


def learning_cost(settings: Settings) -> LearningCost:
    gated = settings.resolved_policy is Policy.GATED
    calls = settings.students + 3  # Teacher, Tutor, Students, the distiller
    if gated if settings.judge_rules is None else settings.judge_rules:
        calls += 2  # the model as the judge of a rule of each polarity
    return LearningCost(
        explored=_OF * settings.learn_sample_rate,
        calls=calls,
        trials=settings.gate_calls_per_answer if gated else 0,
        lessons=_OF * settings.feedback_calls_per_answer,
    )


def cost(settings: Settings) -> str:
    """In upstream calls: of an answer, and of what is learned from it."""
    if settings.mode is Mode.EXPLORE:
        answer = f"up to {settings.students + 2} upstream calls an answer (TTCL_MODE=explore)"
    else:
        answer = "one upstream call an answer"
    if not settings.learn:
        return f"{answer}; learning is off (TTCL_LEARN)"
    of = learning_cost(settings)
    trials = f" and {of.trials:g} trials of rules" if of.trials else ""
    return (
        f"{answer}; learning adds {of.without_feedback:.0f} to {_OF} answers at most "
        f"({of.explored:g} are explored, {of.calls} calls each{trials}), or {of.lessons:g} where "
        f"feedback judges them, and {settings.learn_calls_per_hour:,} an hour and namespace"
    )
