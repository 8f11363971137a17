"""Namespaces: their records, their counts, their end; and whose learning is paused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Row, Table, delete, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_unless_there
from rules_store.database.schema import (
    arms,
    choices,
    effect_points,
    effects,
    embeddings,
    episodes,
    events,
    examples,
    exposures,
    feedback,
    jobs,
    judged_conversations,
    learn_spend,
    learning_pauses,
    links,
    namespaces,
    outcomes,
    precedents,
    rules,
    spend_days,
    standings,
    trials,
)
from rules_store.models.effect import Suspension
from rules_store.models.namespaces import Namespace, NamespaceSettings

_WORTH = (outcomes, trials, standings, precedents, links, choices)
_EFFECT = (arms, effects, judged_conversations, effect_points, spend_days)
EVERY = "*"
"""Stands for every namespace where learning is paused."""


async def insert_namespace(
    connection: AsyncConnection,
    name: str,
    at: datetime,
    settings: NamespaceSettings | None = None,
) -> bool:
    """False when it was there."""
    values: dict[str, Any] = {"name": name, "created_at": at}
    if settings is not None:
        values["settings"] = settings.as_json()
    statement = insert_unless_there(connection, namespaces)
    return (await connection.execute(statement, values)).rowcount == 1


async def names(connection: AsyncConnection) -> list[str]:
    return list(await connection.scalars(select(namespaces.c.name).order_by(namespaces.c.name)))


async def every(connection: AsyncConnection) -> dict[str, Namespace]:
    """By name."""
    rows = await connection.execute(select(namespaces))
    return {row.name: _namespace(row) for row in rows}


async def some(connection: AsyncConnection, wanted: Collection[str]) -> dict[str, Namespace]:
    """Those of these names that exist, by name."""
    rows = await connection.execute(select(namespaces).where(namespaces.c.name.in_(wanted)))
    return {row.name: _namespace(row) for row in rows}


async def find(connection: AsyncConnection, name: str) -> Namespace | None:
    return (await some(connection, [name])).get(name)


async def lock(connection: AsyncConnection, name: str) -> None:
    """Until the end of the transaction nobody else writes a row that refers to it, where the
    database locks rows."""
    mine = select(namespaces.c.name).where(namespaces.c.name == name)
    await connection.execute(mine.with_for_update())


async def save(connection: AsyncConnection, namespace: Namespace) -> None:
    """Writes what can change of it."""
    await connection.execute(
        update(namespaces)
        .where(namespaces.c.name == namespace.name)
        .values(
            frozen=namespace.frozen,
            settings=namespace.settings.as_json(),
            control_share=namespace.control_share,
            suspension=None if namespace.suspension is None else namespace.suspension.as_json(),
        )
    )


async def page(
    connection: AsyncConnection, limit: int, after: str | None, within: Collection[str] | None
) -> tuple[list[Namespace], int]:
    """Up to `limit` namespaces with a name behind `after`, in order of name; and the total."""
    among = true() if within is None else namespaces.c.name.in_(within)
    total = await connection.scalar(select(func.count()).select_from(namespaces).where(among))
    statement = select(namespaces).where(among).order_by(namespaces.c.name).limit(limit)
    if after is not None:
        statement = statement.where(namespaces.c.name > after)
    return [_namespace(row) for row in await connection.execute(statement)], total or 0


async def counts(
    connection: AsyncConnection, wanted: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Name -> "rules" and "examples" (by state), "episodes" (by status) and "jobs" (by state)."""
    found: dict[str, dict[str, dict[str, int]]] = {
        name: {"rules": {}, "examples": {}, "episodes": {}, "jobs": {}} for name in wanted
    }
    kinds: tuple[tuple[Table, Column[Any]], ...] = (
        (rules, rules.c.state),
        (examples, examples.c.state),
        (episodes, episodes.c.status),
        (jobs, jobs.c.state),
    )
    for table, by in kinds:
        statement = (
            select(table.c.namespace, by, func.count())
            .where(table.c.namespace.in_(wanted))
            .group_by(table.c.namespace, by)
        )
        for name, value, count in await connection.execute(statement):
            found[name][table.name][value] = count
    return found


async def remove(connection: AsyncConnection, name: str) -> dict[str, int]:
    """Deletes all of it; how many rows of rules, examples, episodes, jobs and events that
    were."""
    own_rules = select(rules.c.seq).where(rules.c.namespace == name)
    own_episodes = select(episodes.c.id).where(episodes.c.namespace == name)
    await connection.execute(delete(embeddings).where(embeddings.c.rule_seq.in_(own_rules)))
    await connection.execute(delete(feedback).where(feedback.c.episode_id.in_(own_episodes)))
    for table in (rules, examples):
        ids = select(table.c.id).where(table.c.namespace == name)
        await connection.execute(delete(exposures).where(exposures.c.item_id.in_(ids)))
    removed = {}
    own = (jobs, episodes, rules, examples, events, learn_spend, learning_pauses)
    for table in (*own, *_WORTH, *_EFFECT):
        statement = delete(table).where(table.c.namespace == name)
        removed[table.name] = (await connection.execute(statement)).rowcount
    await connection.execute(delete(namespaces).where(namespaces.c.name == name))
    return {kind: removed[kind] for kind in ("rules", "examples", "episodes", "jobs", "events")}


# -- pauses


async def paused(connection: AsyncConnection) -> set[str]:
    """Names, `EVERY` among them where all are paused."""
    return set(await connection.scalars(select(learning_pauses.c.namespace)))


async def pause(connection: AsyncConnection, name: str, at: datetime) -> bool:
    """False when it was paused."""
    statement = insert_unless_there(connection, learning_pauses)
    result = await connection.execute(statement, {"namespace": name, "since": at})
    return result.rowcount == 1


async def resume(connection: AsyncConnection, name: str) -> bool:
    """False when it was not paused."""
    result = await connection.execute(
        delete(learning_pauses).where(learning_pauses.c.namespace == name)
    )
    return result.rowcount == 1


def _namespace(row: Row[Any]) -> Namespace:
    return Namespace(
        name=row.name,
        created_at=row.created_at,
        frozen=row.frozen,
        settings=NamespaceSettings.from_json(row.settings),
        control_share=row.control_share,
        suspension=None if row.suspension is None else Suspension.from_json(row.suspension),
    )
