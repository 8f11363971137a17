"""What the endpoints of namespaces take and give."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from app.api.schemas.common import AT, RULE_ID, RULE_TEXT, ResponseModel, Timestamp, example
from app.api.schemas.rules import Moment, Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Rollback, RollbackTarget
from rules_store.models.events import RuleChange as StoredRuleChange
from rules_store.models.jobs import JobState
from rules_store.models.namespaces import DEFAULTS, NamespaceSettings
from rules_store.models.namespaces import NamespaceSummary as StoredNamespaceSummary
from rules_store.models.rules import RuleState

LARGEST_ID = 2**31 - 1
SHOWN_CHANGES = 200
"""Of a rollback; the numbers say how many there are."""
ROLLED_BACK = ("polarity", "state", "text", "trigger", "domain", "frequency", "reason")
"""What a rollback changes of a rule."""

Label = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00]*$"),
]


class NamespaceCreate(Write):
    model_config = example(
        name="support",
        settings={"capacity": 200, "retention_days": 30},
        actor="kim",
        reason="the help desk",
    )

    name: str = Field(pattern=NAMESPACE_PATTERN)
    settings: NamespaceSettings = DEFAULTS


class NamespacePatch(Write):
    model_config = example(settings={"sample_rate": 0.5}, actor="kim", reason="it learns too much")

    settings: NamespaceSettings


class SnapshotCreate(Write):
    model_config = example(label="before-launch", actor="kim", reason="")

    label: Label


class RollbackBody(Write):
    """Exactly one of the three says where to go back to."""

    model_config = example(to_event=41, dry_run=True, actor="kim", reason="learned from spam")

    to_event: int | None = Field(
        None, ge=1, le=LARGEST_ID, description="The rules as they were after this event"
    )
    to_time: Moment | None = Field(None, description="With its time zone")
    to_snapshot: Label | None = Field(None, description="The label of a snapshot")
    dry_run: bool = Field(False, description="Only say what would change")
    expected_event: int | None = Field(
        None,
        ge=1,
        le=LARGEST_ID,
        description="`before_event` of a dry run: exactly what that showed is done, or nothing "
        "(409) where the namespace has had another event since",
    )

    @model_validator(mode="after")
    def _one(self) -> RollbackBody:
        given = [self.to_event, self.to_time, self.to_snapshot]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of to_event, to_time and to_snapshot")
        return self

    @property
    def target(self) -> RollbackTarget:
        return RollbackTarget(self.to_event, self.to_time, self.to_snapshot)


_NAMESPACE: dict[str, Any] = {
    "object": "namespace",
    "name": "support",
    "created_at": AT,
    "frozen": False,
    "settings": {
        "policy": "gated",
        "learn": True,
        "sample_rate": 0.5,
        "calls_per_hour": 1000,
        "tokens_per_hour": 500_000,
        "capacity": 200,
        "pruning": "fifo",
        "max_positive": 5,
        "max_negative": 2,
        "similarity_floor": 0.3,
        "retention_days": 30,
    },
}


class Namespace(ResponseModel):
    model_config = example(**_NAMESPACE)

    object: Literal["namespace"] = "namespace"
    name: str
    created_at: Timestamp
    frozen: bool = Field(description="Its rules can't be changed, and nothing is learned")
    settings: NamespaceSettings


class NamespaceSummary(Namespace):
    model_config = example(
        **_NAMESPACE,
        paused=False,
        rules={"candidate": 0, "active": 12, "quarantined": 1, "retired": 3},
        episodes={"pending": 0, "learning": 0, "learned": 20, "skipped": 1, "failed": 0},
        jobs={"pending": 0, "running": 0, "done": 20, "failed": 0},
    )

    paused: bool
    rules: dict[str, int]
    episodes: dict[str, int]
    jobs: dict[str, int]

    @classmethod
    def of(cls, summary: StoredNamespaceSummary, /, **others: Any) -> Self:
        return super().of(
            summary.namespace,
            paused=summary.paused,
            rules={state: summary.rules.get(state, 0) for state in RuleState},
            episodes={status: summary.episodes.get(status, 0) for status in EpisodeStatus},
            jobs={state: summary.jobs.get(state, 0) for state in JobState},
            **others,
        )


class NamespaceDeleted(ResponseModel):
    model_config = example(
        object="namespace.deleted",
        name="support",
        event=99,
        rules=16,
        episodes=21,
        jobs=20,
        events=64,
    )

    object: Literal["namespace.deleted"] = "namespace.deleted"
    name: str
    event: int = Field(description="The event of the deletion, which stays")
    rules: int
    episodes: int
    jobs: int
    events: int


class Snapshot(ResponseModel):
    model_config = example(
        object="snapshot", event=41, label="before-launch", at=AT, actor="kim", reason=""
    )

    object: Literal["snapshot"] = "snapshot"
    event: int
    label: str
    at: Timestamp
    actor: str
    reason: str


class RuleChange(ResponseModel):
    rule: str
    created_later: bool = Field(description="It was not there then, so it retires")
    text: str
    before: dict[str, Any]
    after: dict[str, Any]

    @classmethod
    def of(cls, change: StoredRuleChange, /, **others: Any) -> Self:
        """`before` and `after`: only the fields that differ."""
        before, after = change.before, change.after
        names = [name for name in ROLLED_BACK if getattr(before, name) != getattr(after, name)]
        return super().of(
            change,
            rule=after.id,
            text=before.text,
            before={name: getattr(before, name) for name in names},
            after={name: getattr(after, name) for name in names},
            **others,
        )


class RolledBack(ResponseModel):
    model_config = example(
        object="rollback",
        namespace="support",
        dry_run=False,
        event=65,
        to_event=41,
        before_event=64,
        changed=1,
        retired=1,
        changes=[
            {
                "rule": RULE_ID,
                "created_later": True,
                "text": RULE_TEXT,
                "before": {"state": "active"},
                "after": {"state": "retired"},
            }
        ],
    )

    object: Literal["rollback"] = "rollback"
    namespace: str
    dry_run: bool
    event: int | None = Field(description="Of the rollback itself; null after a dry run")
    to_event: int
    before_event: int = Field(
        description="The namespace's last event before. Rolling back to it undoes the rollback; "
        "after a dry run it is the `expected_event` of the rollback that was shown"
    )
    changed: int
    retired: int
    changes: list[RuleChange] = Field(description="The first 200; `changed` counts them all")

    @classmethod
    def of(cls, rollback: Rollback, /, **others: Any) -> Self:
        return super().of(
            rollback,
            dry_run=rollback.event is None,
            changed=len(rollback.changes),
            retired=sum(change.created_later for change in rollback.changes),
            changes=[RuleChange.of(change) for change in rollback.changes[:SHOWN_CHANGES]],
            **others,
        )


class CurvePoint(ResponseModel):
    start: Timestamp
    episodes: int
    learned: int
    rules_created: int
    rules_merged: int
    rules_retired: int


class Curve(ResponseModel):
    model_config = example(
        object="curve",
        namespace="support",
        by="day",
        data=[
            {
                "start": "2026-01-31T00:00:00+00:00",
                "episodes": 21,
                "learned": 20,
                "rules_created": 16,
                "rules_merged": 4,
                "rules_retired": 3,
            }
        ],
    )

    object: Literal["curve"] = "curve"
    namespace: str
    by: Literal["day", "hour"]
    data: list[CurvePoint]
