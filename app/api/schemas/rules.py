"""Rules, their evidence and the episodes that they came of: what comes in (unknown fields refused)
and what goes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from app.api.schemas.common import (
    AT,
    EPISODE_ID,
    RULE_ID,
    RULE_TEXT,
    Cost,
    Feedback,
    ResponseModel,
    Timestamp,
    example,
    example_of,
)
from app.loop.steer.explain import Explanation as FoundExplanation
from app.loop.steer.explain import InjectionVerdict
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import Episode as StoredEpisode
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.evidence import Evidence as StoredEvidence
from rules_store.models.evidence import ExposureRecord, LinkKind, Reference, Signal, Standing
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


def clean(text: str) -> str:
    """One line without control characters: a rule is one line of a prompt."""
    printable = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    return " ".join(printable.split())


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError("must not be blank")
    return text


Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
RuleText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_RULE_CHARS),
    AfterValidator(clean),
    AfterValidator(_not_blank),
]
Trigger = Annotated[str, Field(max_length=500), AfterValidator(clean)]
Domain = Annotated[str, Field(min_length=1, max_length=64)]


class Write(BaseModel):
    """Every change says who made it and why; both go into the event log."""

    model_config = ConfigDict(extra="forbid", **example(actor="kim", reason="looked at it"))

    actor: str = Field("admin", min_length=1, max_length=MAX_ACTOR_CHARS)
    reason: str = Field("", max_length=2000)

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


_RULE: dict[str, Any] = {
    "object": "rule",
    "id": RULE_ID,
    "namespace": "default",
    "polarity": "positive",
    "state": "active",
    "text": RULE_TEXT,
    "trigger": "counting what is left",
    "domain": "default",
    "frequency": 3,
    "exposures": 17,
    "source_episode": EPISODE_ID,
    "version": 2,
    "reason": "released by kim",
    "created_at": AT,
    "updated_at": AT,
    "lift": LIFT,
}


_EVENT: dict[str, Any] = {
    "id": 41,
    "at": AT,
    "namespace": "default",
    "kind": "rule.retired",
    "rule_id": RULE_ID,
    "actor": "kim",
    "reason": "wrong for fractions",
    "before": {"state": "active", "version": 2},
    "after": {"state": "retired", "version": 3},
}


_INJECTED = {"id": RULE_ID, "polarity": "positive", "text": RULE_TEXT, "similarity": 0.71}


_COST = {"calls": 1, "prompt_tokens": 38, "completion_tokens": 4, "total_tokens": 42}


_EPISODE: dict[str, Any] = {
    "object": "episode",
    "id": EPISODE_ID,
    "namespace": "default",
    "mode": "steer",
    "status": "skipped",
    "reason": "distiller_wrote_nothing",
    "model": "SmolLM2-135M-Instruct",
    "question": "What is 12 times 7?",
    "answer": "84",
    "rules_injected": [{**_INJECTED, "position": 0}],
    "rules_learned": [],
    "cost": _COST,
    "degraded": [],
    "created_at": AT,
    "updated_at": AT,
}


class Rule(ResponseModel):
    model_config = example(**_RULE)

    object: Literal["rule"] = "rule"
    id: str
    namespace: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    domain: str
    frequency: int = Field(description="How often it was learned")
    exposures: int = Field(description="How often it was injected")
    source_episode: str | None
    version: int
    reason: str | None = Field(description="Why it is in its state")
    created_at: Timestamp
    updated_at: Timestamp
    lift: Lift | None = Field(description="Null while there is no evidence")

    @classmethod
    def of(cls, rule: StoredRule, /, standing: Standing | None = None, **others: Any) -> Self:
        return super().of(rule, lift=lift_of(standing), **others)


class Event(ResponseModel):
    model_config = example(**_EVENT)

    id: int
    at: Timestamp
    namespace: str
    kind: str
    rule_id: str | None
    actor: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class WrittenRule(Rule):
    model_config = example(**_RULE, warnings=["url"])

    warnings: list[str] = Field(description="Checks that a learned rule of this text would fail")


class RuleWithHistory(Rule):
    model_config = example(**_RULE, history=[_EVENT])

    history: list[Event]


class NearRule(Rule):
    model_config = example(**_RULE, score=0.83)

    score: float = Field(description="The larger cosine of text and trigger")


class PrunedRule(Rule):
    model_config = example(**_RULE, prune_reason="older than the 100 newest")

    prune_reason: str


class Prune(ResponseModel):
    model_config = example(
        object="prune",
        namespace="default",
        policy="fifo",
        dry_run=True,
        token="3f1c5a",
        active_before=101,
        active_after=100,
        total=1,
        rules=[example_of(PrunedRule)],
    )

    object: Literal["prune"] = "prune"
    namespace: str
    policy: PrunePolicy
    dry_run: bool
    token: str = Field(description="For the real call: exactly these rules go, or none (409)")
    active_before: int
    active_after: int
    total: int
    rules: list[PrunedRule]


class Refused(ResponseModel):
    line: int
    reason: str


class Warned(ResponseModel):
    """A line taken in though a learned rule of its text would be quarantined."""

    line: int
    checks: list[str]


class Import(ResponseModel):
    model_config = example(
        object="import",
        dry_run=False,
        imported=2,
        skipped=1,
        refused=[{"line": 4, "reason": "text: must not be blank"}],
        warnings=[{"line": 2, "checks": ["url"]}],
        evicted=[],
        unembedded=0,
    )

    object: Literal["import"] = "import"
    dry_run: bool
    imported: int = 0
    skipped: int = Field(0, description="The namespace has their text already")
    refused: list[Refused] = Field([])
    warnings: list[Warned] = Field([])
    evicted: list[str] = Field([], description="Rules retired to keep within the capacity")
    unembedded: int = Field(
        0, description="Written without vectors, which a running gateway brings"
    )


class Candidate(ResponseModel):
    id: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    similarity: float
    verdict: InjectionVerdict
    reason: str
    lift: Lift | None


class Explanation(ResponseModel):
    model_config = example(
        object="explanation",
        namespace="default",
        similarity_floor=0.3,
        hold_out=0.1,
        candidates=[
            {
                **_INJECTED,
                "lift": LIFT,
                "state": "active",
                "trigger": "counting what is left",
                "verdict": "injected",
                "reason": "it is near enough, chosen, and fits",
            }
        ],
        messages=[
            {"role": "system", "content": f"<advice>\nHelpful:\n- {RULE_TEXT}\n</advice>"},
            {"role": "user", "content": "I had 12 apples and ate 5. How many are left?"},
        ],
    )

    object: Literal["explanation"] = "explanation"
    namespace: str
    similarity_floor: float
    hold_out: float = Field(
        description="Share of the requests that leave out one of the injected rules, by lot"
    )
    candidates: list[Candidate] = Field(description="Most similar first")
    messages: list[dict[str, Any]] = Field(description="As they would go to the model")

    @classmethod
    def of(cls, found: FoundExplanation, /, **others: Any) -> Self:
        return super().of(found, similarity_floor=found.floor, **others)


class Episode(ResponseModel):
    model_config = example(**_EPISODE)

    object: Literal["episode"] = "episode"
    id: str
    namespace: str
    mode: str
    status: EpisodeStatus
    reason: str | None
    model: str
    question: str
    answer: str | None
    rules_injected: list[dict[str, Any]]
    rules_learned: list[dict[str, Any]]
    cost: Cost | None
    degraded: list[str]
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, episode: StoredEpisode, /, **others: Any) -> Self:
        kept: dict[str, Any] = {
            "rules_injected": [],
            "rules_learned": [],
            "cost": None,
            "degraded": [],
        }
        traced = {name: episode.trace.get(name, none) for name, none in kept.items()}
        return super().of(episode, **{**traced, **others})


class EpisodeWithTrace(Episode):
    """Whatever else the trace keeps is there too."""

    model_config = ConfigDict(
        extra="allow",
        **example(
            **_EPISODE,
            messages_sent=[{"role": "user", "content": "What is 12 times 7?"}],
            trajectories=[{"name": "teacher", "role": "teacher", "text": "84", "cost": _COST}],
            selection={"case": "unanimous", "task": "closed", "better": "teacher"},
            feedback=[example_of(Feedback)],
        ),
    )

    messages_sent: list[dict[str, Any]] | None = Field(
        None, description="As they went upstream; null with images"
    )
    trajectories: list[dict[str, Any]] = Field([])
    selection: dict[str, Any] | None = None
    feedback: list[Feedback]

    @classmethod
    def of(cls, episode: StoredEpisode, /, **others: Any) -> Self:
        return super().of(episode, **{**episode.trace, **others})


class Stats(ResponseModel):
    model_config = example(
        object="stats",
        namespaces=1,
        rules={"candidate": 0, "active": 12, "quarantined": 1, "retired": 3},
        rules_by_polarity={"positive": 8, "negative": 4},
        rules_by_namespace={"default": {"active": 12, "quarantined": 1, "retired": 3}},
        episodes={"learned": 20},
        jobs={"done": 20},
        last_event=64,
        index={"indexed": 12, "stored": 12, "unembedded": 0, "behind": 0},
    )

    object: Literal["stats"] = "stats"
    namespaces: int
    rules: dict[str, int]
    rules_by_polarity: dict[str, int]
    rules_by_namespace: dict[str, dict[str, int]]
    episodes: dict[str, int]
    jobs: dict[str, int]
    last_event: int
    index: Parity


class Tally(ResponseModel):
    hits: float
    misses: float
    mean: float = Field(description="Of the posterior")


class GateTest(ResponseModel):
    """The test that is under way; it begins anew with each verdict."""

    helped: int = 0
    harmed: int = 0
    tried: int = 0


class Trial(ResponseModel):
    episode_id: str
    with_rule: float
    without_rule: float
    reference: Reference
    weight: float
    at: Timestamp | None


class EpisodeOutcome(ResponseModel):
    source: Signal
    value: float
    weight: float


class Exposure(ResponseModel):
    episode_id: str
    withheld: bool
    position: int | None
    similarity: float
    score: float
    at: Timestamp
    outcome: EpisodeOutcome | None = Field(description="Null: nothing is known, which says nothing")

    @classmethod
    def of(cls, exposure: ExposureRecord, /, **others: Any) -> Self:
        outcome = None if exposure.source is None else EpisodeOutcome.of(exposure)
        withheld = exposure.position is None
        return super().of(exposure, withheld=withheld, outcome=outcome, **others)


class Link(ResponseModel):
    kind: LinkKind
    id: str
    at: Timestamp


class Evidence(ResponseModel):
    model_config = example(
        object="evidence",
        rule_id=RULE_ID,
        lift=LIFT,
        proven=True,
        verdict="helpful",
        test={"helped": 1, "harmed": 0, "tried": 4},
        with_rule={"hits": 9.5, "misses": 2.0, "mean": 0.78},
        without_rule={"hits": 7.0, "misses": 4.5, "mean": 0.59},
        trials=[
            {
                "episode_id": EPISODE_ID,
                "with_rule": 1.0,
                "without_rule": 0.0,
                "reference": "consensus",
                "weight": 0.5,
                "at": AT,
            }
        ],
        exposures=[
            {
                "episode_id": EPISODE_ID,
                "withheld": False,
                "position": 0,
                "similarity": 0.71,
                "score": 0.77,
                "at": AT,
                "outcome": {"source": "agreement", "value": 0.6, "weight": 0.25},
            }
        ],
        links=[{"kind": "source", "id": EPISODE_ID, "at": AT}],
    )

    object: Literal["evidence"] = "evidence"
    rule_id: str
    lift: Lift | None
    proven: bool = Field(description="The gate let it through, or a person made it active")
    verdict: Verdict | None = Field(description="Of the last test that ended")
    test: GateTest
    with_rule: Tally
    without_rule: Tally
    trials: list[Trial] = Field(description="Newest first")
    exposures: list[Exposure] = Field(description="Newest first")
    links: list[Link]

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
