"""What other processes, and this one, have committed behind an event that an index has seen."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.events import Event
from rules_store.models.examples import IndexedExample
from rules_store.models.keys import Secret
from rules_store.models.namespaces import Namespace
from rules_store.models.rules import IndexRow
from rules_store.repository import embeddings, events, examples, keys, namespaces

_EVENTS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that follow one another, with what they are about."""

    events: Sequence[Event]
    """At least one, oldest first."""
    rows: Sequence[IndexRow]
    """The rules that they touch, as these are now."""
    examples: Sequence[IndexedExample]
    """The examples that they touch, as these are now."""
    deleted_examples: frozenset[str]
    """Ids of the examples that they touch and that are not there any more."""
    secrets: dict[str, Secret] | None
    """Of every key, if one has changed."""
    changed: frozenset[str]
    """Namespaces that the events change, or that were not known."""
    namespaces: Mapping[str, Namespace]
    """Those of `changed` that exist."""


async def next_events(
    connection: AsyncConnection, after: int, embedding_model: str, known: Container[str]
) -> EventBatch | None:
    """The next events behind number `after`, with what they are about; None if there are none.
    `known`: the namespaces that the process has met."""
    found = await events.after(connection, after, _EVENTS_AT_ONCE)
    if not found:
        return None
    rows = await embeddings.rows_of(connection, embedding_model, events.touched(found))
    touched = events.touched_examples(found)
    stored = await examples.indexed_of(connection, embedding_model, touched) if touched else []
    keys_changed = any(event.kind.startswith(events.OF_KEYS) for event in found)
    changed = frozenset(
        event.namespace
        for event in found
        if event.kind.startswith(events.OF_NAMESPACES) or event.namespace not in known
    )
    return EventBatch(
        found,
        rows,
        stored,
        frozenset(touched).difference(each.id for each in stored),
        await keys.by_hash(connection) if keys_changed else None,
        changed,
        await namespaces.some(connection, changed) if changed else {},
    )
