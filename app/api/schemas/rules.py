"""Rules, their evidence and the episodes that they came of: what comes in (unknown fields refused)
and what goes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from app.access.callers import change_by
from app.api.schemas.common import (
    AT,
    EPISODE_ID,
    EXAMPLE_ID,
    RULE_ID,
    RULE_TEXT,
    Actor,
    Cost,
    EpisodeId,
    FeedbackRecord,
    KeyId,
    ModelId,
    NamespaceName,
    ResponseModel,
    RuleId,
    Timestamp,
    example,
    example_of,
    shortened,
)
from app.loop.steer.explain import Explanation as FoundExplanation
from app.loop.steer.explain import InjectionVerdict
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import Episode as StoredEpisode
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Change, is_own_actor
from rules_store.models.events import Event as StoredEvent
from rules_store.models.evidence import Evidence as StoredEvidence
from rules_store.models.evidence import ExposureRecord, LinkKind, Reference, Signal, Standing
from rules_store.models.examples import Given, Trust
from rules_store.models.namespaces import MAX_ACTOR_CHARS
from rules_store.models.rules import Polarity, RuleState
from rules_store.models.rules import Rule as StoredRule
from rules_store.models.stats import Parity
from rules_store.operations.curation import PrunePolicy
from rules_store.policy.gate import Verdict
from rules_store.policy.lift import NOTHING
from rules_store.policy.lift import Lift as Lift

MAX_RULE_CHARS = 2000
NO_NUL = r"^[^\x00]*$"
"""Of texts that are looked for: PostgreSQL refuses to compare with one that has a NUL."""


def in_utc(moment: datetime) -> datetime:
    """Raises ValueError for a moment that no year of UTC has."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


def one_line(text: str) -> str:
    """One line without control characters: a rule is one line of a prompt."""
    printable = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    return " ".join(printable.split())


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError("must not be blank")
    return text


def _not_own(name: str) -> str:
    if is_own_actor(name):
        raise ValueError("the service itself acts by this name")
    return name


ActingName = Annotated[
    str, Field(min_length=1, max_length=MAX_ACTOR_CHARS), AfterValidator(_not_own)
]
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
RuleText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_RULE_CHARS),
    AfterValidator(one_line),
    AfterValidator(_not_blank),
]
Trigger = Annotated[str, Field(max_length=500), AfterValidator(one_line)]
Domain = Annotated[str, Field(min_length=1, max_length=64)]


class Write(BaseModel):
    """Every change says who made it and why; both go into the event log. A key that has a name acts
    by that one, whatever `actor` says."""

    model_config = ConfigDict(extra="forbid", **example(actor="kim", reason="looked at it"))

    actor: ActingName = "admin"
    reason: str = Field("", max_length=2000)

    @property
    def change(self) -> Change:
        """Who and why, for the event log."""
        return change_by(self.actor, self.reason)

    def content(self, **how: Any) -> dict[str, Any]:
        """What is written, without who and why."""
        return self.model_dump(exclude=set(Write.model_fields), **how)


class VersionedWrite(Write):
    model_config = example(actor="kim", reason="wrong for fractions", expected_version=2)

    expected_version: int | None = Field(
        None, ge=1, description="Refused with 409 when the rule has another version by now"
    )


class RuleCreate(Write):
    model_config = example(
        namespace="default",
        polarity="positive",
        text=RULE_TEXT,
        trigger="counting what is left",
        actor="kim",
        reason="from the handbook",
    )

    namespace: str = Field(pattern=NAMESPACE_PATTERN)
    polarity: Polarity
    text: RuleText
    trigger: Trigger = ""
    domain: Domain = "default"
    state: RuleState = RuleState.ACTIVE


class RulePatch(VersionedWrite):
    model_config = example(
        trigger="subtracting", expected_version=2, actor="kim", reason="it is found more often so"
    )

    text: RuleText | None = None
    trigger: Trigger | None = None
    domain: Domain | None = None

    @model_validator(mode="after")
    def _something(self) -> RulePatch:
        if self.text is None and self.trigger is None and self.domain is None:
            raise ValueError("nothing to change: give text, trigger or domain")
        return self


class RuleRestore(VersionedWrite):
    model_config = example(version=1, actor="kim", reason="the first wording was better")

    version: int | None = Field(
        None, ge=1, description="Give the rule back its text of this version; unset: reactivate it"
    )


def lift_of(standing: Standing | None) -> Lift | None:
    """None while there is no evidence."""
    return standing.lift if standing is not None and standing.measured else None


LIFT = {"mean": 0.12, "low": 0.02, "high": 0.22}
INJECTED = {"id": RULE_ID, "polarity": "positive", "text": RULE_TEXT, "similarity": 0.71}
EXAMPLE_INJECTED = {
    "id": EXAMPLE_ID,
    "question": "I had 9 pears and ate 4. How many are left?",
    "answer": "5",
    "trust": "label",
    "similarity": 0.83,
    "position": 0,
}


class Rule(ResponseModel):
    object: Literal["rule"] = "rule"
    id: RuleId
    namespace: NamespaceName
    polarity: Polarity = Field(examples=["positive"])
    state: RuleState = Field(examples=["active"])
    text: str = Field(examples=[RULE_TEXT])
    trigger: str = Field(examples=["counting what is left"])
    domain: str = Field(examples=["default"])
    frequency: int = Field(description="How often it was learned", examples=[3])
    exposures: int = Field(description="How often it was injected", examples=[17])
    source_episode: str | None = Field(examples=[EPISODE_ID])
    version: int = Field(examples=[2])
    reason: str | None = Field(description="Why it is in its state", examples=["looked at it"])
    created_at: Timestamp
    updated_at: Timestamp
    written_by: str | None = Field(
        description="The model that wrote it first; null: a person, or it is not known",
        examples=["qwen-2.5-72b"],
    )
    lift: Lift | None = Field(description="Null while there is no evidence", examples=[LIFT])

    @classmethod
    def of(cls, rule: StoredRule, /, standing: Standing | None = None, **others: Any) -> Self:
        return super().of(rule, lift=lift_of(standing), **others)


class Event(ResponseModel):
    id: int = Field(examples=[41])
    at: Timestamp
    namespace: NamespaceName
    kind: str = Field(examples=["rule.retired"])
    rule_id: str | None = Field(examples=[RULE_ID])
    example_id: str | None = Field(examples=[EXAMPLE_ID])
    actor: Actor
    reason: str = Field(examples=["wrong for fractions"])
    before: dict[str, Any] | None = Field(examples=[{"state": "active", "version": 2}])
    after: dict[str, Any] | None = Field(examples=[{"state": "retired", "version": 3}])
    key_id: KeyId
    cut: list[str] = Field(
        [],
        description="Texts of `before` and `after` shown by their beginning; GET /events/{id} has "
        "the whole",
        examples=[["after.answer"]],
    )

    @classmethod
    def listed(cls, event: StoredEvent) -> Self:
        """As one of many: long texts by their beginning."""
        sides, cut = {}, []
        for side, row in (("before", event.before), ("after", event.after)):
            texts = [name for name, value in (row or {}).items() if isinstance(value, str)]
            sides[side], long = shortened(row, *texts) if row else (row, [])
            cut += [f"{side}.{name}" for name in long]
        return cls.of(event, **sides, cut=cut)


class WrittenRule(Rule):
    warnings: list[str] = Field(
        description="Checks that a learned rule of this text would fail", examples=[["url"]]
    )


class RuleWithHistory(Rule):
    history: list[Event] = Field(examples=[[example_of(Event)]])


class NearRule(Rule):
    score: float = Field(description="The larger cosine of text and trigger", examples=[0.83])


class PrunedRule(Rule):
    prune_reason: str = Field(examples=["older than the 100 newest"])


class Prune(ResponseModel):
    object: Literal["prune"] = "prune"
    namespace: NamespaceName
    policy: PrunePolicy = Field(examples=["fifo"])
    dry_run: bool = Field(examples=[True])
    token: str = Field(
        description="For the real call: exactly these rules go, or none (409)", examples=["3f1c5a"]
    )
    active_before: int = Field(examples=[101])
    active_after: int = Field(examples=[100])
    total: int = Field(examples=[1])
    rules: list[PrunedRule] = Field(examples=[[example_of(PrunedRule)]])


class Refused(ResponseModel):
    line: int = Field(examples=[4])
    reason: str = Field(examples=["text: must not be blank"])


class Warned(ResponseModel):
    """A line taken in though a learned rule of its text would be quarantined."""

    line: int = Field(examples=[2])
    checks: list[str] = Field(examples=[["url"]])


class Import(ResponseModel):
    object: Literal["import"] = "import"
    dry_run: bool = Field(examples=[False])
    imported: int = Field(0, examples=[2])
    skipped: int = Field(0, description="The namespace has their text already", examples=[1])
    refused: list[Refused] = Field([], examples=[[example_of(Refused)]])
    warnings: list[Warned] = Field([], examples=[[example_of(Warned)]])
    evicted: list[str] = Field([], description="Rules retired to keep within the capacity")
    unembedded: int = Field(
        0, description="Written without vectors, which a running gateway brings"
    )


class Candidate(ResponseModel):
    id: RuleId
    polarity: Polarity = Field(examples=["positive"])
    state: RuleState = Field(examples=["active"])
    text: str = Field(examples=[RULE_TEXT])
    trigger: str = Field(examples=["counting what is left"])
    similarity: float = Field(examples=[0.71])
    verdict: InjectionVerdict = Field(examples=["injected"])
    reason: str = Field(examples=["it is near enough, chosen, and fits"])
    lift: Lift | None = Field(examples=[LIFT])


class ExampleCandidate(ResponseModel):
    id: str = Field(examples=[EXAMPLE_ID])
    state: RuleState = Field(examples=["active"])
    question: str = Field(examples=["I had 9 pears and ate 4. How many are left?"])
    answer: str = Field(examples=["5"])
    trust: Trust = Field(examples=["label"])
    similarity: float = Field(examples=[0.83])
    verdict: InjectionVerdict = Field(examples=["injected"])
    reason: str = Field(examples=["it is near enough, chosen, and fits"])
    lift: Lift | None = Field(examples=[LIFT])


class Choice(ResponseModel):
    """What is thought of giving one kind of experience to questions like this."""

    given: Given = Field(examples=["examples"])
    mean: float = Field(description="Expected value of the answers", examples=[0.66])
    low: float = Field(description="95 % interval", examples=[0.55])
    high: float = Field(examples=[0.77])
    outcomes: float = Field(description="By weight and age, in the namespace", examples=[41.5])


class Decision(ResponseModel):
    given: Given = Field(description="What most requests like this get", examples=["both"])
    exploring: float = Field(
        description="Share of the requests for which the choice is drawn from what is thought "
        "instead (gated policy)",
        examples=[0.8],
    )
    choices: list[Choice] = Field(
        description="What is on offer; none under the policy paper, which gives everything",
        examples=[[example_of(Choice)]],
    )


class Explanation(ResponseModel):
    object: Literal["explanation"] = "explanation"
    namespace: NamespaceName
    similarity_floor: float = Field(examples=[0.3])
    example_floor: float = Field(examples=[0.3])
    hold_out: float = Field(
        description="Share of the requests that leave out one of what is injected, by lot",
        examples=[0.1],
    )
    candidates: list[Candidate] = Field(
        description="Rules, most similar first", examples=[[example_of(Candidate)]]
    )
    examples: list[ExampleCandidate] = Field(
        description="Most similar first", examples=[[example_of(ExampleCandidate)]]
    )
    decision: Decision = Field(examples=[example_of(Decision)])
    messages: list[dict[str, Any]] = Field(
        description="As they would go to the model",
        examples=[
            [
                {"role": "system", "content": f"<advice>\nHelpful:\n- {RULE_TEXT}\n</advice>"},
                {"role": "user", "content": "I had 12 apples and ate 5. How many are left?"},
            ]
        ],
    )

    @classmethod
    def of(cls, found: FoundExplanation, /, **others: Any) -> Self:
        choices = [
            Choice.of(each.belief, given=each.given, outcomes=each.belief.size)
            for each in found.decision.choices
        ]
        decision = Decision.of(found.decision, choices=choices)
        return super().of(found, similarity_floor=found.floor, decision=decision, **others)


class Episode(ResponseModel):
    object: Literal["episode"] = "episode"
    id: EpisodeId
    namespace: NamespaceName
    mode: str = Field(examples=["steer"])
    status: EpisodeStatus = Field(examples=["skipped"])
    reason: str | None = Field(examples=["distiller_wrote_nothing"])
    model: ModelId
    question: str = Field(examples=["What is 12 times 7?"])
    answer: str | None = Field(examples=["84"])
    rules_injected: list[dict[str, Any]] = Field([], examples=[[{**INJECTED, "position": 0}]])
    examples_injected: list[dict[str, Any]] = Field(
        [], description="Nearest first", examples=[[EXAMPLE_INJECTED]]
    )
    arm: dict[str, Any] | None = Field(
        None,
        description="`control` or `steered`, and the probability with which it was control; null "
        "where nothing was drawn",
        examples=[{"name": "control", "control": 0.25}],
    )
    given: dict[str, Any] | None = Field(
        None,
        description="Which kinds of experience it got, and what these were chosen from",
        examples=[{"chosen": "both", "offered": ["none", "rules", "examples", "both"]}],
    )
    rules_learned: list[dict[str, Any]] = Field([])
    cost: Cost | None = Field(None, examples=[example_of(Cost)])
    degraded: list[str] = Field([])
    created_at: Timestamp
    updated_at: Timestamp
    cut: list[str] = Field(
        [],
        description="Texts shown by their beginning; GET /episodes/{id} has the whole",
        examples=[["question"]],
    )
    key_id: KeyId

    @classmethod
    def of(cls, episode: StoredEpisode, /, **others: Any) -> Self:
        """What the trace says of it is there too, as far as the model has fields for it."""
        return super().of(episode, **{**episode.trace, **others})

    @classmethod
    def listed(cls, episode: StoredEpisode) -> Self:
        """One of many: long texts by their beginning."""
        texts, cut = shortened(
            {"question": episode.question, "answer": episode.answer}, "question", "answer"
        )
        shown = [
            shortened(each, "question", "answer")
            for each in episode.trace.get("examples_injected") or ()
        ]
        if any(names for _, names in shown):
            cut.append("examples_injected")
        return cls.of(episode, **texts, examples_injected=[row for row, _ in shown], cut=cut)


class EpisodeWithTrace(Episode):
    """Whatever else the trace keeps is there too."""

    model_config = ConfigDict(extra="allow")

    messages_sent: list[dict[str, Any]] | None = Field(
        None,
        description="As they went upstream; null with images",
        examples=[[{"role": "user", "content": "What is 12 times 7?"}]],
    )
    trajectories: list[dict[str, Any]] = Field(
        [],
        examples=[[{"name": "teacher", "role": "teacher", "text": "84", "cost": example_of(Cost)}]],
    )
    selection: dict[str, Any] | None = Field(
        None, examples=[{"case": "unanimous", "task": "closed", "better": "teacher"}]
    )
    feedback: list[FeedbackRecord] = Field(examples=[[example_of(FeedbackRecord)]])


class Stats(ResponseModel):
    object: Literal["stats"] = "stats"
    namespaces: int = Field(examples=[1])
    rules: dict[str, int] = Field(examples=[{"active": 12, "quarantined": 1, "retired": 3}])
    rules_by_polarity: dict[str, int] = Field(examples=[{"positive": 8, "negative": 4}])
    rules_by_namespace: dict[str, dict[str, int]] = Field(
        examples=[{"support": {"active": 12, "quarantined": 1, "retired": 3}}]
    )
    examples: dict[str, int] = Field(examples=[{"active": 40, "quarantined": 2, "retired": 5}])
    examples_by_namespace: dict[str, dict[str, int]] = Field(
        examples=[{"support": {"active": 40, "quarantined": 2, "retired": 5}}]
    )
    episodes: dict[str, int] = Field(examples=[{"learned": 20}])
    jobs: dict[str, int] = Field(examples=[{"done": 20}])
    last_event: int = Field(examples=[64])
    index: Parity = Field(
        description="`indexed`, `stored` and `unembedded` count rules",
        examples=[
            {
                "indexed": 12,
                "stored": 12,
                "unembedded": 0,
                "behind": 0,
                "examples_indexed": 40,
                "examples_stored": 40,
                "examples_unembedded": 0,
            }
        ],
    )


class Tally(ResponseModel):
    hits: float = Field(examples=[9.5])
    misses: float = Field(examples=[2.0])
    mean: float = Field(description="Of the posterior", examples=[0.78])


class GateTest(ResponseModel):
    """The test that is under way; it begins anew with each verdict."""

    helped: int = Field(0, examples=[1])
    harmed: int = 0
    tried: int = Field(0, examples=[4])


class Trial(ResponseModel):
    episode_id: EpisodeId
    with_rule: float = Field(examples=[1.0])
    without_rule: float = Field(examples=[0.0])
    reference: Reference = Field(examples=["consensus"])
    weight: float = Field(examples=[0.5])
    at: Timestamp | None = Field(examples=[AT])


class EpisodeOutcome(ResponseModel):
    source: Signal = Field(examples=["agreement"])
    value: float = Field(examples=[0.6])
    weight: float = Field(examples=[0.25])


class Exposure(ResponseModel):
    episode_id: EpisodeId
    withheld: bool = Field(examples=[False])
    position: int | None = Field(examples=[0])
    similarity: float = Field(examples=[0.71])
    score: float = Field(examples=[0.77])
    at: Timestamp
    outcome: EpisodeOutcome | None = Field(
        description="Null: nothing is known, which says nothing",
        examples=[example_of(EpisodeOutcome)],
    )

    @classmethod
    def of(cls, exposure: ExposureRecord, /, **others: Any) -> Self:
        outcome = None if exposure.source is None else EpisodeOutcome.of(exposure)
        withheld = exposure.position is None
        return super().of(exposure, withheld=withheld, outcome=outcome, **others)


class Link(ResponseModel):
    kind: LinkKind = Field(examples=["source"])
    id: EpisodeId
    at: Timestamp


class Evidence(ResponseModel):
    object: Literal["evidence"] = "evidence"
    rule_id: RuleId
    lift: Lift | None = Field(examples=[LIFT])
    proven: bool = Field(
        description="The gate let it through, or a person made it active", examples=[True]
    )
    verdict: Verdict | None = Field(description="Of the last test that ended", examples=["helpful"])
    test: GateTest = Field(examples=[example_of(GateTest)])
    with_rule: Tally = Field(examples=[example_of(Tally)])
    without_rule: Tally = Field(examples=[{"hits": 7.0, "misses": 4.5, "mean": 0.59}])
    trials: list[Trial] = Field(description="Newest first", examples=[[example_of(Trial)]])
    exposures: list[Exposure] = Field(description="Newest first", examples=[[example_of(Exposure)]])
    links: list[Link] = Field(examples=[[example_of(Link)]])

    @classmethod
    def of(cls, found: StoredEvidence, /, **others: Any) -> Self:
        standing = found.standing
        return super().of(
            found,
            lift=lift_of(standing),
            proven=standing is not None and standing.proven,
            verdict=None if standing is None else standing.verdict,
            test=GateTest() if standing is None else standing,
            with_rule=NOTHING if standing is None else standing.with_rule,
            without_rule=NOTHING if standing is None else standing.without_rule,
            exposures=[Exposure.of(each) for each in found.exposures],
            links=[Link.of(each, id=each.other) for each in found.links],
            **others,
        )
