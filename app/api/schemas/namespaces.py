"""What the endpoints of namespaces and jobs take and give."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.schemas.common import AT, EPISODE_ID, RULE_ID, RULE_TEXT, Shape, example
from app.api.schemas.rules import Moment, Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import (
    NamespaceSnapshot,
    Rollback,
    RollbackTarget,
)
from rules_store.models.events import (
    RuleRollback as StoredRuleChange,
)
from rules_store.models.jobs import JobRecord, JobState
from rules_store.models.keys import Permission
from rules_store.models.namespaces import (
    MOST_COUNT,
    MOST_RETENTION_DAYS,
    MOST_RULES,
    NamespaceSettings,
)
from rules_store.models.namespaces import (
    Namespace as StoredNamespace,
)
from rules_store.models.namespaces import (
    NamespaceSummary as StoredNamespaceSummary,
)
from rules_store.models.rules import Pruning, Rule, RuleState

LARGEST_ID = 2**31 - 1
SHOWN_CHANGES = 200
"""Of a rollback; the numbers say how many there are."""

Label = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00]*$"),
]


class SettingsBody(BaseModel):
    """What a namespace does differently from the service. Null goes back to the service's own;
    what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    policy: Literal["gated", "paper"] | None = None
    learn: bool | None = None
    sample_rate: float | None = Field(None, ge=0, le=1)
    calls_per_hour: int | None = Field(None, ge=0, le=MOST_COUNT)
    tokens_per_hour: int | None = Field(None, ge=0, le=MOST_COUNT)
    capacity: int | None = Field(None, ge=1, le=MOST_COUNT)
    pruning: Pruning | None = None
    max_positive: int | None = Field(None, ge=0, le=MOST_RULES)
    max_negative: int | None = Field(None, ge=0, le=MOST_RULES)
    similarity_floor: float | None = Field(None, ge=-1, le=1)
    retention_days: int | None = Field(
        None, ge=1, le=MOST_RETENTION_DAYS, description="Episodes that are older are deleted"
    )

    def changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class NamespaceCreate(Write):
    model_config = example(
        name="support",
        settings={"capacity": 200, "retention_days": 30},
        actor="kim",
        reason="the help desk",
    )

    name: str = Field(pattern=NAMESPACE_PATTERN)
    settings: SettingsBody = Field(default_factory=SettingsBody)


class NamespacePatch(Write):
    model_config = example(settings={"sample_rate": 0.5}, actor="kim", reason="it learns too much")

    settings: SettingsBody


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


class PauseBody(Write):
    model_config = example(namespace="default", actor="kim", reason="maintenance")

    namespace: str | None = Field(
        None, pattern=NAMESPACE_PATTERN, description="Unset: learning of every namespace"
    )


def settings_shape(settings: NamespaceSettings) -> dict[str, Any]:
    return asdict(settings)


def namespace_shape(namespace: StoredNamespace) -> dict[str, Any]:
    return {
        "object": "namespace",
        "name": namespace.name,
        "created_at": namespace.created_at.isoformat(),
        "frozen": namespace.frozen,
        "settings": settings_shape(namespace.settings),
    }


def summary_shape(summary: StoredNamespaceSummary) -> dict[str, Any]:
    return {
        **namespace_shape(summary.namespace),
        "paused": summary.paused,
        "rules": {state.value: summary.rules.get(state, 0) for state in RuleState},
        "episodes": {status.value: summary.episodes.get(status, 0) for status in EpisodeStatus},
        "jobs": {state.value: summary.jobs.get(state, 0) for state in JobState},
    }


def snapshot_shape(snapshot: NamespaceSnapshot) -> dict[str, Any]:
    return {"object": "snapshot", **asdict(snapshot), "at": snapshot.at.isoformat()}


def job_shape(job: JobRecord) -> dict[str, Any]:
    return {
        "object": "job",
        "id": job.id,
        "episode": job.episode_id,
        "namespace": job.namespace,
        "state": job.state.value,
        "attempts": job.attempts,
        "last_error": job.last_error,
        "not_before": job.not_before.isoformat(),
        "created_at": job.created_at.isoformat(),
        "updated_at": job.updated_at.isoformat(),
    }


def rollback_shape(rollback: Rollback) -> dict[str, Any]:
    """`event` is null after a dry run. Rolling back to `before_event` undoes it."""
    return {
        "object": "rollback",
        "namespace": rollback.namespace,
        "dry_run": rollback.event is None,
        "event": rollback.event,
        "to_event": rollback.to_event,
        "before_event": rollback.before_event,
        "changed": len(rollback.changes),
        "retired": sum(change.created_later for change in rollback.changes),
        "changes": [_change_shape(change) for change in rollback.changes[:SHOWN_CHANGES]],
    }


def _change_shape(change: StoredRuleChange) -> dict[str, Any]:
    before, after = _rolled(change.before), _rolled(change.after)
    return {
        "rule": change.after.id,
        "created_later": change.created_later,
        "text": change.before.text,
        "before": {name: value for name, value in before.items() if value != after[name]},
        "after": {name: value for name, value in after.items() if value != before[name]},
    }


def _rolled(rule: Rule) -> dict[str, Any]:
    """What a rollback changes of a rule."""
    return {
        "polarity": rule.polarity.value,
        "state": rule.state.value,
        "text": rule.text,
        "trigger": rule.trigger,
        "domain": rule.domain,
        "frequency": rule.frequency,
        "reason": rule.reason,
    }


_SETTINGS: dict[str, Any] = {
    "policy": None,
    "learn": None,
    "sample_rate": 0.5,
    "calls_per_hour": None,
    "tokens_per_hour": None,
    "capacity": 200,
    "pruning": None,
    "max_positive": None,
    "max_negative": None,
    "similarity_floor": None,
    "retention_days": 30,
}


_NAMESPACE: dict[str, Any] = {
    "object": "namespace",
    "name": "support",
    "created_at": AT,
    "frozen": False,
    "settings": _SETTINGS,
}


class Settings(Shape):
    """What the namespace does differently from the service; null follows the service."""

    policy: str | None
    learn: bool | None
    sample_rate: float | None
    calls_per_hour: int | None
    tokens_per_hour: int | None
    capacity: int | None
    pruning: Pruning | None
    max_positive: int | None
    max_negative: int | None
    similarity_floor: float | None
    retention_days: int | None


class Namespace(Shape):
    model_config = example(**_NAMESPACE)

    object: Literal["namespace"]
    name: str
    created_at: str
    frozen: bool = Field(description="Its rules can't be changed, and nothing is learned")
    settings: Settings


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


class NamespaceDeleted(Shape):
    model_config = example(
        object="namespace.deleted",
        name="support",
        event=99,
        rules=16,
        episodes=21,
        jobs=20,
        events=64,
    )

    object: Literal["namespace.deleted"]
    name: str
    event: int = Field(description="The event of the deletion, which stays")
    rules: int
    episodes: int
    jobs: int
    events: int


class Snapshot(Shape):
    model_config = example(
        object="snapshot", event=41, label="before-launch", at=AT, actor="kim", reason=""
    )

    object: Literal["snapshot"]
    event: int
    label: str
    at: str
    actor: str
    reason: str


class RuleChange(Shape):
    rule: str
    created_later: bool = Field(description="It was not there then, so it retires")
    text: str
    before: dict[str, Any]
    after: dict[str, Any]


class RolledBack(Shape):
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

    object: Literal["rollback"]
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


class CurvePoint(Shape):
    start: str
    episodes: int
    learned: int
    rules_created: int
    rules_merged: int
    rules_retired: int


class Curve(Shape):
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

    object: Literal["curve"]
    namespace: str
    by: Literal["day", "hour"]
    data: list[CurvePoint]


class Job(Shape):
    model_config = example(
        object="job",
        id=7,
        episode=EPISODE_ID,
        namespace="support",
        state="failed",
        attempts=3,
        last_error="the model server did not answer",
        not_before=AT,
        created_at=AT,
        updated_at=AT,
    )

    object: Literal["job"]
    id: int
    episode: str
    namespace: str
    state: JobState
    attempts: int
    last_error: str | None
    not_before: str
    created_at: str
    updated_at: str


class Pauses(Shape):
    model_config = example(object="pauses", all=False, namespaces=["support"])

    object: Literal["pauses"]
    all: bool
    namespaces: list[str]


class Spend(Shape):
    requests: int
    tokens: int


_KEY: dict[str, Any] = {
    "object": "api_key",
    "id": "key_0123456789abcdef",
    "name": "help desk",
    "shown": "ttcl_ab12",
    "namespaces": ["support"],
    "permissions": ["chat", "learn"],
    "requests_per_minute": 60,
    "tokens_per_day": None,
    "created_at": AT,
    "last_used_at": AT,
    "revoked_at": None,
    "used_today": {"requests": 12, "tokens": 3400},
}


class Key(Shape):
    model_config = example(**_KEY)

    object: Literal["api_key"]
    id: str
    name: str
    shown: str = Field(description="The secret's first characters")
    namespaces: list[str]
    permissions: list[Permission]
    requests_per_minute: int | None
    tokens_per_day: int | None
    created_at: str
    last_used_at: str | None
    revoked_at: str | None
    used_today: Spend


class KeyWithSecret(Key):
    model_config = example(**_KEY, secret="ttcl_ab12cd34ef56")

    secret: str = Field(description="Shown this once")
