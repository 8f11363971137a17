"""What the endpoints of namespaces and jobs take and give."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.schemas.common import example
from app.api.schemas.rules import Moment, Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import (
    NamespaceSnapshot,
    Rollback,
    RollbackTarget,
    RuleChange,
)
from rules_store.models.jobs import JobRecord, JobState
from rules_store.models.namespaces import (
    MOST_COUNT,
    MOST_RETENTION_DAYS,
    MOST_RULES,
    Namespace,
    NamespaceSettings,
    NamespaceSummary,
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


def namespace_shape(namespace: Namespace) -> dict[str, Any]:
    return {
        "object": "namespace",
        "name": namespace.name,
        "created_at": namespace.created_at.isoformat(),
        "frozen": namespace.frozen,
        "settings": settings_shape(namespace.settings),
    }


def summary_shape(summary: NamespaceSummary) -> dict[str, Any]:
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


def _change_shape(change: RuleChange) -> dict[str, Any]:
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
