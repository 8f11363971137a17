"""As `app.api.admin.answers`, of namespaces, jobs and keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.api.schemas.common import AT, EPISODE_ID, RULE_ID, RULE_TEXT, Shape, example
from rules_store.models.jobs import JobState
from rules_store.models.keys import Permission
from rules_store.models.rules import Pruning

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
