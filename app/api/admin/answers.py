"""What the admin API's answers look like, for the OpenAPI document (see `app.api.answers`)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.api.schemas.common import (
    AT,
    EPISODE_ID,
    RULE_ID,
    RULE_TEXT,
    Cost,
    Feedback,
    Shape,
    example,
    example_of,
)
from app.loop.steer.explain import Verdict
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.rules import Polarity, RuleState
from rules_store.operations.curation import PrunePolicy

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
    "lift": LIFT,
    "source_episode": EPISODE_ID,
    "version": 2,
    "reason": None,
    "created_at": AT,
    "updated_at": AT,
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
    "status": "learned",
    "reason": None,
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


class Lift(Shape):
    """Outcome with the rule less outcome without it, with its 95 % credible interval."""

    mean: float
    low: float
    high: float


class Rule(Shape):
    model_config = example(**_RULE)

    object: Literal["rule"]
    id: str
    namespace: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    domain: str
    frequency: int = Field(description="How often it was learned")
    exposures: int = Field(description="How often it was injected")
    lift: Lift | None = Field(description="Null while there is no evidence")
    source_episode: str | None
    version: int
    reason: str | None = Field(description="Why it is in its state")
    created_at: str
    updated_at: str


class Event(Shape):
    model_config = example(**_EVENT)

    id: int
    at: str
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


class Prune(Shape):
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

    object: Literal["prune"]
    namespace: str
    policy: PrunePolicy
    dry_run: bool
    token: str = Field(description="For the real call: exactly these rules go, or none (409)")
    active_before: int
    active_after: int
    total: int
    rules: list[PrunedRule]


class Refused(Shape):
    line: int
    reason: str


class Warned(Shape):
    line: int
    checks: list[str]


class Import(Shape):
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

    object: Literal["import"]
    dry_run: bool
    imported: int
    skipped: int = Field(description="The namespace has their text already")
    refused: list[Refused]
    warnings: list[Warned]
    evicted: list[str] = Field(description="Rules retired to keep within the capacity")
    unembedded: int = Field(description="Written without vectors, which a running gateway brings")


class Candidate(Shape):
    id: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    similarity: float
    verdict: Verdict
    reason: str
    lift: Lift | None


class Explanation(Shape):
    model_config = example(
        object="explanation",
        namespace="default",
        similarity_floor=0.3,
        hold_out=0.1,
        candidates=[
            {
                **_INJECTED,
                "lift": None,
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

    object: Literal["explanation"]
    namespace: str
    similarity_floor: float
    hold_out: float = Field(
        description="Share of the requests that leave out one of the injected rules, by lot"
    )
    candidates: list[Candidate] = Field(description="Most similar first")
    messages: list[dict[str, Any]] = Field(description="As they would go to the model")


class Episode(Shape):
    model_config = example(**_EPISODE)

    object: Literal["episode"]
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
    created_at: str
    updated_at: str


class EpisodeWithTrace(Episode):
    model_config = example(
        **_EPISODE,
        messages_sent=[{"role": "user", "content": "What is 12 times 7?"}],
        trajectories=[{"name": "teacher", "role": "teacher", "text": "84", "cost": _COST}],
        selection={"case": "unanimous", "task": "closed", "better": "teacher", "worse": None},
        feedback=[example_of(Feedback)],
    )

    messages_sent: list[dict[str, Any]] = Field([], description="As they went upstream")
    trajectories: list[dict[str, Any]]
    selection: dict[str, Any] | None
    feedback: list[Feedback]


class Parity(Shape):
    indexed: int
    stored: int
    unembedded: int
    behind: int = Field(description="Events that the index has not seen yet")


class Stats(Shape):
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

    object: Literal["stats"]
    namespaces: int
    rules: dict[str, int]
    rules_by_polarity: dict[str, int]
    rules_by_namespace: dict[str, dict[str, int]]
    episodes: dict[str, int]
    jobs: dict[str, int]
    last_event: int
    index: Parity
