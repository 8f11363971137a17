"""What the endpoints of a namespace's control group and of its cost give, and the sentences in
which API, command line and console say what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer

from app.api.schemas.common import NamespaceName, ResponseModel, Timestamp, example_of
from rules_store.models.effect import (
    ArmOutcomes,
    ArmUse,
    DaySpend,
    EffectReport,
    Purpose,
    SignalEffect,
)
from rules_store.models.evidence import Signal
from rules_store.policy import control
from rules_store.policy.control import Arm
from rules_store.policy.effect import EffectVerdict, outcomes_needed

SHOWN_DIFFERENCES = (0.02, 0.05, 0.1, 0.2)
"""Of which it is said how many more requests would show them."""
ASKED_DIFFERENCE = 0.05
"""Of which the sentence says so."""
IN_WORDS = {
    Signal.VERIFIER: "verified answers",
    Signal.LABEL: "answers by label",
    Signal.CLIENT: "clients' scores",
    Signal.AGREEMENT: "agreement of explored answers",
}


def points(value: float) -> str:
    """A difference of outcomes in [0, 1], in points of a hundred."""
    return f"{100 * value:+.1f}"


def sentence(report: EffectReport) -> str:
    """The verdict, for people."""
    if report.suspension is not None:
        since = report.suspension.since.strftime("%Y-%m-%d %H:%M UTC")
        return f"Suspended since {since}: {report.suspension.reason}."
    leading = report.leading
    if leading is None:
        return f"Not yet known whether steering helps: {_nothing_told(report)}."
    shown = leading.interval
    assert shown.difference is not None, "only what was drawn for is counted"
    found = (
        f"{points(shown.difference)} points of {IN_WORDS[leading.signal]} "
        f"({points(shown.low)} to {points(shown.high)}) "
        f"after {leading.state.count:,} conversations"
    )
    if shown.verdict is EffectVerdict.HELPS:
        return f"Steering helps: {found}."
    if shown.verdict is EffectVerdict.HARMS:
        return f"Steering harms: {found}."
    more = _needed(report, leading, ASKED_DIFFERENCE).conversations
    later = (
        "; nothing is drawn as control"
        if more is None
        else f"; ±{100 * ASKED_DIFFERENCE:.0f} would show after some {more:,} more"
    )
    return f"Not yet known whether steering helps: {found}{later}."


def _nothing_told(report: EffectReport) -> str:
    if report.share > 0:
        return "no outcome was told of a request that could be compared"
    if report.control_rate == control.AUTO:
        return f"the control group begins after {control.WARM_UP} requests"
    return "there is no control group (control_rate is 0)"


class ArmUsed(ResponseModel):
    """Requests of one arm within the days asked for, and what they took on average."""

    requests: int = Field(examples=[310])
    offered: int = Field(
        description="For which there were rules or examples that fit; only these are compared",
        examples=[204],
    )
    milliseconds: float | None = Field(description="Until the answer's end", examples=[820.5])
    prompt_tokens: float | None = Field(examples=[412.0])
    completion_tokens: float | None = Field(examples=[96.2])


class ByArm(ResponseModel):
    control: ArmUsed = Field(examples=[example_of(ArmUsed)])
    steered: ArmUsed = Field(examples=[example_of(ArmUsed)])


class OutcomesOfArm(ResponseModel):
    """Of requests within the days asked for that had rules or examples on offer."""

    outcomes: int = Field(description="Requests with an outcome", examples=[120])
    missing: int = Field(description="Requests without", examples=[84])
    mean: float | None = Field(description="Of the outcomes, from 0 to 1", examples=[0.61])
    conversations: int = Field(description="That the comparison counts so far", examples=[101])


class OutcomesByArm(ResponseModel):
    control: OutcomesOfArm = Field(examples=[example_of(OutcomesOfArm)])
    steered: OutcomesOfArm = Field(examples=[example_of(OutcomesOfArm)])


class Needed(ResponseModel):
    """What would show a true difference of so much, in about half of all cases; in nine of ten it
    takes about twice as much. Null where nothing is drawn as control, or nothing told."""

    difference: float = Field(examples=[0.05])
    conversations: int | None = Field(
        description="More conversations with an outcome", examples=[3900]
    )
    requests: int | None = Field(
        description="More requests, by the share that has an outcome", examples=[6500]
    )


class EffectPoint(ResponseModel):
    conversations: int = Field(examples=[101])
    difference: float = Field(examples=[0.12])
    low: float = Field(examples=[-0.09])
    high: float = Field(examples=[0.31])
    at: Timestamp


class SignalOutcome(ResponseModel):
    """What one signal says. `low` and `high` hold at any time: however often they are looked at,
    they miss the truth with a probability of 0.05 at most."""

    signal: Signal = Field(examples=["label"])
    verdict: EffectVerdict = Field(examples=["not_yet_known"])
    conversations: int = Field(
        description="That count: of each the first outcome, in both arms", examples=[202]
    )
    difference: float | None = Field(
        description="Mean outcome steered less mean outcome in control, each weighted by how "
        "likely its arm was",
        examples=[0.12],
    )
    low: float = Field(examples=[-0.03])
    high: float = Field(examples=[0.27])
    since: Timestamp
    updated_at: Timestamp
    arms: OutcomesByArm = Field(examples=[example_of(OutcomesByArm)])
    needed: list[Needed] = Field(examples=[[example_of(Needed)]])
    history: list[EffectPoint] = Field(
        description="The interval over time, the last one as it is now",
        examples=[[example_of(EffectPoint)]],
    )

    @classmethod
    def of_signal(cls, report: EffectReport, effect: SignalEffect) -> Self:
        shown = effect.interval
        return cls(
            signal=effect.signal,
            verdict=shown.verdict,
            conversations=effect.state.count,
            difference=shown.difference,
            low=shown.low,
            high=shown.high,
            since=effect.started_at,
            updated_at=effect.updated_at,
            arms=OutcomesByArm(
                control=_outcomes(report, effect, Arm.CONTROL),
                steered=_outcomes(report, effect, Arm.STEERED),
            ),
            needed=[_needed(report, effect, each) for each in SHOWN_DIFFERENCES],
            history=[EffectPoint.of(each) for each in effect.points],
        )


class SuspensionTold(ResponseModel):
    """Why nothing steers. The interval is the one that was shown then; the guard's is stricter."""

    since: Timestamp
    reason: str = Field(
        examples=["steering harms by label: -21.0 points (-33.0 to -7.5) after 312 conversations"]
    )
    signal: Signal = Field(examples=["label"])
    conversations: int = Field(examples=[312])
    difference: float = Field(examples=[-0.21])
    low: float = Field(examples=[-0.33])
    high: float = Field(examples=[-0.075])


class PurposeSpent(ResponseModel):
    calls: int = Field(examples=[26])
    tokens: int = Field(examples=[14200])


class SteeringSpent(ResponseModel):
    requests: int = Field(description="That were given rules or examples", examples=[180])
    tokens: int = Field(
        description="Of rules and examples in their prompts; an estimate", examples=[36400]
    )


class Spent(ResponseModel):
    """Upstream calls of the loop beside the answers themselves, and what steering adds to
    prompts."""

    exploration: PurposeSpent = Field(
        description="Requests explored and reflected on in the background",
        examples=[example_of(PurposeSpent)],
    )
    feedback: PurposeSpent = Field(
        description="Lessons from feedback", examples=[example_of(PurposeSpent)]
    )
    replay: PurposeSpent = Field(
        description="Candidates tried on stored questions", examples=[example_of(PurposeSpent)]
    )
    distiller: PurposeSpent = Field(
        description="Rules written by another model than the served one",
        examples=[example_of(PurposeSpent)],
    )
    steering: SteeringSpent = Field(examples=[example_of(SteeringSpent)])

    @classmethod
    def total(cls, days: Iterable[DaySpend]) -> Self:
        """Of all of them."""
        some = list(days)

        def spent(purpose: Purpose) -> PurposeSpent:
            return PurposeSpent(
                calls=sum(day.calls.get(purpose, 0) for day in some),
                tokens=sum(day.tokens.get(purpose, 0) for day in some),
            )

        return cls(
            exploration=spent(Purpose.EXPLORATION),
            feedback=spent(Purpose.FEEDBACK),
            replay=spent(Purpose.REPLAY),
            distiller=spent(Purpose.DISTILLER),
            steering=SteeringSpent(
                requests=sum(day.steered_requests for day in some),
                tokens=sum(day.experience_tokens for day in some),
            ),
        )

    @property
    def learning_calls(self) -> int:
        return sum(each.calls for each in self._learning)

    @property
    def learning_tokens(self) -> int:
        return sum(each.tokens for each in self._learning)

    @property
    def _learning(self) -> tuple[PurposeSpent, ...]:
        return (self.exploration, self.feedback, self.replay, self.distiller)


class Effect(ResponseModel):
    object: Literal["effect"] = "effect"
    namespace: NamespaceName
    verdict: EffectVerdict = Field(examples=["not_yet_known"])
    sentence: str = Field(
        description="The verdict for people",
        examples=[
            "Not yet known whether steering helps: +12.0 points of answers by label (-3.0 to "
            "+27.0) after 202 conversations; ±5 would show after some 3,900 more."
        ],
    )
    control_rate: float | Literal["auto"] = Field(
        description="As it is set, for the namespace or the service", examples=["auto"]
    )
    share: float = Field(description="Of conversations that are control now", examples=[0.25])
    suspended: SuspensionTold | None = Field(examples=[example_of(SuspensionTold)])
    days: int = Field(description="That requests and outcomes are counted of", examples=[30])
    arms: ByArm = Field(examples=[example_of(ByArm)])
    signals: list[SignalOutcome] = Field(
        description="Those with outcomes, strongest first; never mixed",
        examples=[[example_of(SignalOutcome)]],
    )
    spent: Spent = Field(
        description="By learning and steering, within these days", examples=[example_of(Spent)]
    )

    @classmethod
    def of_report(cls, report: EffectReport, spend: Iterable[DaySpend]) -> Self:
        suspension = report.suspension
        return cls(
            namespace=report.namespace,
            verdict=report.verdict,
            sentence=sentence(report),
            control_rate=report.control_rate,
            share=report.share,
            suspended=None if suspension is None else SuspensionTold.of(suspension),
            days=report.days,
            arms=ByArm(
                control=ArmUsed.of(report.by_arm.get(Arm.CONTROL, ArmUse())),
                steered=ArmUsed.of(report.by_arm.get(Arm.STEERED, ArmUse())),
            ),
            signals=[SignalOutcome.of_signal(report, each) for each in report.signals],
            spent=Spent.total(spend),
        )


Day = Annotated[
    date, PlainSerializer(date.isoformat, return_type=str), Field(examples=["2026-01-31"])
]


class SpentDay(Spent):
    day: Day

    @classmethod
    def of_day(cls, spend: DaySpend) -> Self:
        return cls(day=spend.day, **dict(Spent.total([spend])))


class Spending(ResponseModel):
    """Days in UTC on which something was spent, the latest last."""

    object: Literal["spending"] = "spending"
    namespace: NamespaceName
    days: int = Field(examples=[30])
    data: list[SpentDay] = Field(examples=[[example_of(SpentDay)]])
    total: Spent = Field(examples=[example_of(Spent)])


def _outcomes(report: EffectReport, effect: SignalEffect, arm: Arm) -> OutcomesOfArm:
    told = effect.by_arm.get(arm, ArmOutcomes())
    counted = effect.state.control if arm is Arm.CONTROL else effect.state.steered
    return OutcomesOfArm(
        outcomes=told.outcomes,
        missing=max(0, report.by_arm.get(arm, ArmUse()).offered - told.outcomes),
        mean=told.mean,
        conversations=counted.count,
    )


def _needed(report: EffectReport, effect: SignalEffect, difference: float) -> Needed:
    share = report.share
    if report.control_rate == control.AUTO and 0 < share < control.MEASURING:
        # What the schedule takes as outcomes come in.
        share = control.MEASURING
    asked = outcomes_needed(difference, effect.state.variance, share)
    if math.isinf(asked):
        return Needed(difference=difference, conversations=None, requests=None)
    more = max(0.0, asked - effect.state.drawn / (share * (1.0 - share)))
    told = _told_share(report, effect)
    return Needed(
        difference=difference,
        conversations=math.ceil(more),
        requests=math.ceil(more / told) if told else None,
    )


def _told_share(report: EffectReport, effect: SignalEffect) -> float:
    """Conversations with an outcome a request, by the days asked for."""
    requests = sum(use.requests for use in report.by_arm.values())
    outcomes = sum(each.outcomes for each in effect.by_arm.values())
    return min(1.0, outcomes / requests) if requests else 0.0
