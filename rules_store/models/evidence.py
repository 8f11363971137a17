"""Values about what rules are worth: exposures, outcomes, trials, standings, precedents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from rules_store.models.examples import NewExample
from rules_store.models.rules import Rule, Vector
from rules_store.policy.choice import Given
from rules_store.policy.gate import Verdict
from rules_store.policy.lift import NOTHING, UNKNOWN_LIFT, Lift, Tally, lift


class Signal(StrEnum):
    """Where an outcome comes from, weakest first."""

    AGREEMENT = "agreement"
    """How far the answers of an exploration agreed."""
    CLIENT = "client"
    """A client's score."""
    LABEL = "label"
    """Whether the answer equals one that somebody knows to be right."""
    VERIFIER = "verifier"
    """Whether a verifier found the answer right."""


STRENGTH = {signal: place for place, signal in enumerate(Signal)}
WEIGHTS = {
    Signal.AGREEMENT: 0.25,
    Signal.CLIENT: 0.5,
    Signal.LABEL: 1.0,
    Signal.VERIFIER: 1.0,
}
"""How much one outcome of a kind counts beside a verified one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How well an episode went; value in [0, 1]."""

    source: Signal
    value: float

    @property
    def weight(self) -> float:
        return WEIGHTS[self.source]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One rule or example in one request. `position` among its kind, from 0; None where it was
    withheld."""

    item_id: str
    position: int | None
    similarity: float
    score: float
    """What retrieval ranked by."""

    @property
    def withheld(self) -> bool:
        return self.position is None


class Reference(StrEnum):
    """What told a right answer from a wrong one in a trial."""

    LABEL = "label"
    CONSENSUS = "consensus"
    """The answer that most of the exploration gave (closed tasks)."""
    LIKENESS = "likeness"
    """Cosine to the answer that Reflect preferred (open tasks)."""


TRIAL_WEIGHTS = {Reference.LABEL: 1.0, Reference.CONSENSUS: 0.5, Reference.LIKENESS: 0.25}
TELLING = {Reference.LABEL: 0.5, Reference.CONSENSUS: 0.5, Reference.LIKENESS: 0.1}
"""Least difference between with and without that says that the rule made one."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A stored question answered with a rule and without it; values in [0, 1]."""

    episode_id: str
    with_rule: float
    without_rule: float
    reference: Reference
    at: datetime | None = None
    key_id: str | None = None
    """Who gave the label; where the exploration's own answers told right from wrong, who asked."""

    @property
    def weight(self) -> float:
        return TRIAL_WEIGHTS[self.reference]

    @property
    def effect(self) -> int:
        """1: helped, -1: harmed, 0: made no difference."""
        difference = self.with_rule - self.without_rule
        if abs(difference) < TELLING[self.reference]:
            return 0
        return 1 if difference > 0 else -1


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the worth of a rule or an example, as of `at`. `helped`,
    `harmed` and `tried` are of the test that is under way; `proven`: the gate has let it through
    with these words, or a person has made it active."""

    item_id: str
    """A rule or an example."""
    seq: int
    """Of the item."""
    namespace: str
    at: datetime
    with_rule: Tally = NOTHING
    without_rule: Tally = NOTHING
    helped: int = 0
    harmed: int = 0
    tried: int = 0
    proven: bool = False
    verdict: Verdict | None = None
    lift: Lift = UNKNOWN_LIFT

    @property
    def measured(self) -> bool:
        """Whether there is any evidence in it."""
        return self.with_rule.size + self.without_rule.size > 0

    def relifted(self) -> Standing:
        """With the lift that its tallies have now."""
        return replace(self, lift=lift(self.with_rule, self.without_rule))

    def tried_on(self, trial: Trial) -> Standing:
        """With one more trial."""
        return replace(
            self,
            with_rule=self.with_rule.plus(trial.with_rule, trial.weight),
            without_rule=self.without_rule.plus(trial.without_rule, trial.weight),
            helped=self.helped + (trial.effect > 0),
            harmed=self.harmed + (trial.effect < 0),
            tried=self.tried + 1,
        ).relifted()


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule that waits for trials, with its standing (None: no evidence at all)."""

    rule: Rule
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a trial, or a review, led to. `kind` of the event; None: nothing changed."""

    rule_id: str
    verdict: Verdict | None
    kind: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Precedent:
    """An explored question. `observation` is what the loop saw, as JSON; `answer` the Teacher's
    text; `reference` what a replay is compared with, None where it is fit for no replay.
    `agreement` is the share of the answers that agreed, shrunk to one half as if two more had been
    given of which one agreed (Laplace), so that few answers say little; None for open tasks."""

    episode_id: str
    namespace: str
    vector: Vector
    agreement: float | None
    observation: dict[str, Any]
    answer: str | None
    reference: str | None
    reference_kind: Reference = Reference.CONSENSUS
    key_id: str | None = None
    """Who asked, of a stored one; so `label_key_id`, who gave the label."""
    label_key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A precedent near a question."""

    episode_id: str
    similarity: float
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What an exploration found out besides rules; stored with its job's end."""

    outcome: Outcome | None = None
    precedent: Precedent | None = None
    example: NewExample | None = None
    """What its answers agreed on almost wholly, of a job; its vector is the precedent's."""


NO_FINDINGS = Findings()


class LinkKind(StrEnum):
    SOURCE = "source"
    """An episode that taught the rule."""
    PARENT = "parent"
    """A rule that this one was made of."""
    CONTRADICTS = "contradicts"


@dataclass(frozen=True, slots=True)
class Link:
    item_id: str
    kind: LinkKind
    other: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that speaks for or against one rule, newest first, as far as it was asked for."""

    standing: Standing | None
    trials: list[Trial] = field(default_factory=list)
    exposures: list[ExposureRecord] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExposureRecord:
    """An exposure and what came of its episode; no outcome is no evidence."""

    episode_id: str
    position: int | None
    similarity: float
    score: float
    at: datetime
    source: Signal | None
    value: float | None
    weight: float | None


@dataclass(frozen=True, slots=True)
class CreditedOutcome:
    """What one exposure has added to the standing of its rule or example."""

    withheld: bool
    at: datetime
    """Of the exposure."""
    value: float
    weight: float
    is_agreement: bool
    """Of an exploration's own answers: nobody's word."""
    key_id: str | None
    """Who gave it otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class IndexedPrecedent:
    """What memory keeps of a precedent."""

    seq: int
    episode_id: str
    namespace: str
    vector: Vector
    agreement: float | None
    fit: bool
    """Whether it can be replayed."""


@dataclass(frozen=True, slots=True, eq=False)
class IndexedChoice:
    """What memory keeps of what a request was given and how well its answer did. `vector`: of its
    question under the store's embedding model, None where there is none."""

    episode_id: str
    namespace: str
    given: Given
    value: float
    weight: float
    vector: Vector | None
    at: datetime
