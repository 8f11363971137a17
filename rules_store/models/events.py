"""The event log, and what is read and done by it: snapshots, curves, rollbacks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rules_store.models.examples import Example
from rules_store.models.rules import Rule, RuleState

SYSTEM = "system"
POLICY = "policy"
LEARNER = "learner"
GATE = "gate"
"""Actor of what trials and outcomes decide."""
EVIDENCE = "evidence"
"""Actor of what votes decide."""
OWN_ACTORS = frozenset({SYSTEM, POLICY, LEARNER, GATE, EVIDENCE})
"""Who acts by itself: nobody else may act by these names, since what they did is told by them."""


def is_own_actor(name: str) -> bool:
    """Whether the service itself acts by this name, however it is spelt."""
    return name.strip().casefold() in OWN_ACTORS


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, and why: both go into the event that the change writes."""

    actor: str
    reason: str = ""
    key_id: str | None = None
    """On whose behalf: `app.access.callers.Caller.name`; None where no key had to do with it."""


@dataclass(frozen=True, slots=True)
class NamespaceSnapshot:
    """A named point of a namespace's history: its rules as of the event of that number."""

    event: int
    label: str
    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What happened in one hour or day from `start` (UTC)."""

    start: datetime
    episodes: int = 0
    learned: int = 0
    """Episodes of then that something was learned from."""
    rules_created: int = 0
    rules_merged: int = 0
    rules_retired: int = 0


@dataclass(frozen=True, slots=True)
class EventFilter:
    within: Collection[str] | None = None
    """Only of these namespaces; None: of all."""
    namespace: str | None = None
    rule_id: str | None = None
    example_id: str | None = None
    kind: str | None = None
    """One kind, or with a dot at its end every kind that begins so (`rule.`)."""
    actor: str | None = None
    since_event: int | None = None
    """This one and later ones."""
    until_event: int | None = None
    """This one and earlier ones."""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """The point in a namespace's history to go back to: exactly one of the three."""

    event: int | None = None
    time: datetime | None = None
    snapshot: str | None = None
    """A snapshot's label."""


@dataclass(frozen=True, slots=True)
class RuleRollback:
    """One rule that a rollback changes. `created_later`: it was not there then, so it retires."""

    before: Rule
    after: Rule
    created_later: bool


@dataclass(frozen=True, slots=True)
class ExampleRollback:
    """One example that a rollback changes. `created_later`: it was not there then, so it
    retires."""

    before: Example
    after: Example
    created_later: bool


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback does, or would do."""

    namespace: str
    to_event: int
    before_event: int
    """The namespace's last event before the rollback: rolling back to it undoes the rollback."""
    changes: tuple[RuleRollback, ...]
    """Of rules."""
    examples: tuple[ExampleRollback, ...] = ()
    event: int | None = None
    """The event of the rollback; None where it only would be done."""

    @property
    def unembedded(self) -> list[Rule]:
        """Rules that come back into the index with a text or trigger that they have now no
        vectors of."""
        return [
            change.after
            for change in self.changes
            if change.after.state in (RuleState.ACTIVE, RuleState.CANDIDATE)
            and (change.after.text, change.after.trigger)
            != (change.before.text, change.before.trigger)
        ]

    @property
    def unembedded_examples(self) -> list[Example]:
        """Examples that come back into the index with a question that they have now no vector
        of."""
        return [
            change.after
            for change in self.examples
            if change.after.state is RuleState.ACTIVE
            and change.after.question != change.before.question
        ]


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    at: datetime
    namespace: str
    kind: str
    rule_id: str | None
    example_id: str | None
    actor: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    key_id: str | None = None
