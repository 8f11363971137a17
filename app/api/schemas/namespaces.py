"""What the endpoints of namespaces take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from app.api.schemas.common import (
    RULE_TEXT,
    Actor,
    NamespaceName,
    ResponseModel,
    RuleId,
    Timestamp,
    example,
    example_of,
)
from app.api.schemas.examples import QUESTION, ExampleId
from app.api.schemas.rules import Moment, Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import ExampleRollback as StoredExampleChange
from rules_store.models.events import Rollback, RollbackTarget
from rules_store.models.events import RuleRollback as StoredRuleChange
from rules_store.models.jobs import JobState
from rules_store.models.namespaces import DEFAULTS, NamespaceSettings
from rules_store.models.namespaces import NamespaceSummary as StoredNamespaceSummary
from rules_store.models.rules import RuleState

LARGEST_ID = 2**31 - 1
SHOWN_CHANGES = 200
"""Of a rollback; the numbers say how many there are."""
ROLLED_BACK = ("polarity", "state", "text", "trigger", "domain", "frequency", "reason")
"""What a rollback changes of a rule."""
EXAMPLE_ROLLED_BACK = (
    *("state", "question", "answer", "label", "domain", "trust", "reason"),
    *("verified_at", "expires_at"),
)
"""What a rollback changes of an example."""

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
        None, ge=1, le=LARGEST_ID, description="All as it was after this event"
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


_SETTINGS: dict[str, Any] = {
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
    "chores": "recognised",
    "examples": "verified",
    "max_examples": 4,
    "example_capacity": 5000,
    "example_days": 365,
    "confidential": False,
    "control_rate": "auto",
    "guard": True,
    "guard_margin": 0.02,
    "resume_after": 24,
    "retention_days": 30,
}


class Namespace(ResponseModel):
    object: Literal["namespace"] = "namespace"
    name: NamespaceName
    created_at: Timestamp
    frozen: bool = Field(
        description="Its rules and examples can't be changed, and nothing is learned",
        examples=[False],
    )
    settings: NamespaceSettings = Field(examples=[_SETTINGS])


class NamespaceSummary(Namespace):
    paused: bool = Field(examples=[False])
    rules: dict[str, int] = Field(
        examples=[{"candidate": 0, "active": 12, "quarantined": 1, "retired": 3}]
    )
    examples: dict[str, int] = Field(
        examples=[{"candidate": 0, "active": 40, "quarantined": 2, "retired": 5}]
    )
    episodes: dict[str, int] = Field(
        examples=[{"pending": 0, "learning": 0, "learned": 20, "skipped": 1, "failed": 0}]
    )
    jobs: dict[str, int] = Field(examples=[{"pending": 0, "running": 0, "done": 20, "failed": 0}])

    @classmethod
    def of(cls, summary: StoredNamespaceSummary, /, **others: Any) -> Self:
        return super().of(
            summary.namespace,
            paused=summary.paused,
            rules={state: summary.rules.get(state, 0) for state in RuleState},
            examples={state: summary.examples.get(state, 0) for state in RuleState},
            episodes={status: summary.episodes.get(status, 0) for status in EpisodeStatus},
            jobs={state: summary.jobs.get(state, 0) for state in JobState},
            **others,
        )


class NamespaceImported(ResponseModel):
    object: Literal["namespace.import"] = "namespace.import"
    name: NamespaceName
    rows: dict[str, int] = Field(
        description="What was taken in, by table", examples=[{"rules": 3, "events": 5}]
    )
    left_out: dict[str, int] = Field(
        description="What was measured there and does not count here, by table",
        examples=[{"standings": 3}],
    )
    trusted: bool = Field(examples=[False])


class NamespaceDeleted(ResponseModel):
    object: Literal["namespace.deleted"] = "namespace.deleted"
    name: NamespaceName
    event: int = Field(description="The event of the deletion, which stays", examples=[99])
    rules: int = Field(examples=[16])
    examples: int = Field(examples=[47])
    episodes: int = Field(examples=[21])
    jobs: int = Field(examples=[20])
    events: int = Field(examples=[64])


class Snapshot(ResponseModel):
    object: Literal["snapshot"] = "snapshot"
    event: int = Field(examples=[41])
    label: str = Field(examples=["before-launch"])
    at: Timestamp
    actor: Actor
    reason: str = Field(examples=[""])


class RuleChange(ResponseModel):
    rule: RuleId
    created_later: bool = Field(description="It was not there then, so it retires", examples=[True])
    text: str = Field(examples=[RULE_TEXT])
    before: dict[str, Any] = Field(examples=[{"state": "active"}])
    after: dict[str, Any] = Field(examples=[{"state": "retired"}])

    @classmethod
    def of(cls, change: StoredRuleChange, /, **others: Any) -> Self:
        """`before` and `after`: only the fields that differ."""
        before, after = _differing(change.before, change.after, ROLLED_BACK)
        rule = change.before
        return super().of(
            change, rule=rule.id, text=rule.text, before=before, after=after, **others
        )


class ExampleChange(ResponseModel):
    example: ExampleId
    created_later: bool = Field(description="It was not there then, so it retires", examples=[True])
    question: str = Field(examples=[QUESTION])
    before: dict[str, Any] = Field(examples=[{"state": "active"}])
    after: dict[str, Any] = Field(examples=[{"state": "retired"}])

    @classmethod
    def of(cls, change: StoredExampleChange, /, **others: Any) -> Self:
        """`before` and `after`: only the fields that differ."""
        before, after = _differing(change.before, change.after, EXAMPLE_ROLLED_BACK)
        one = change.before
        return super().of(
            change, example=one.id, question=one.question, before=before, after=after, **others
        )


def _differing(
    before: object, after: object, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of both, the fields that differ."""
    differ = [name for name in names if getattr(before, name) != getattr(after, name)]
    old, new = ({name: getattr(each, name) for name in differ} for each in (before, after))
    return old, new


class RolledBack(ResponseModel):
    object: Literal["rollback"] = "rollback"
    namespace: NamespaceName
    dry_run: bool = Field(examples=[False])
    event: int | None = Field(
        description="Of the rollback itself; null after a dry run", examples=[65]
    )
    to_event: int = Field(examples=[41])
    before_event: int = Field(
        description="The namespace's last event before. Rolling back to it undoes the rollback; "
        "after a dry run it is the `expected_event` of the rollback that was shown",
        examples=[64],
    )
    changed: int = Field(description="Rules", examples=[1])
    retired: int = Field(description="Of these rules", examples=[1])
    changes: list[RuleChange] = Field(
        description="The first 200; `changed` counts them all", examples=[[example_of(RuleChange)]]
    )
    examples_changed: int = Field(examples=[1])
    examples_retired: int = Field(description="Of these examples", examples=[1])
    examples: list[ExampleChange] = Field(
        description="The first 200; `examples_changed` counts them all",
        examples=[[example_of(ExampleChange)]],
    )

    @classmethod
    def of(cls, rollback: Rollback, /, **others: Any) -> Self:
        return super().of(
            rollback,
            dry_run=rollback.event is None,
            changed=len(rollback.changes),
            retired=sum(change.created_later for change in rollback.changes),
            changes=[RuleChange.of(change) for change in rollback.changes[:SHOWN_CHANGES]],
            examples_changed=len(rollback.examples),
            examples_retired=sum(change.created_later for change in rollback.examples),
            examples=[ExampleChange.of(change) for change in rollback.examples[:SHOWN_CHANGES]],
            **others,
        )


class CurvePoint(ResponseModel):
    start: Timestamp
    episodes: int = Field(examples=[21])
    learned: int = Field(examples=[20])
    rules_created: int = Field(examples=[16])
    rules_merged: int = Field(examples=[4])
    rules_retired: int = Field(examples=[3])


class Curve(ResponseModel):
    object: Literal["curve"] = "curve"
    namespace: NamespaceName
    by: Literal["day", "hour"] = Field(examples=["day"])
    data: list[CurvePoint] = Field(examples=[[example_of(CurvePoint)]])
