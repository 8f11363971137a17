"""Namespaces: made, set up, frozen, exported, deleted; how much is in them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import embeddings, metadata, rules
from rules_store.database.schema import namespaces as namespaces_table
from rules_store.errors import DuplicateNamespace, UnknownNamespace
from rules_store.models import paging
from rules_store.models.events import Change
from rules_store.models.namespaces import (
    DEFAULTS,
    DeletedNamespace,
    Namespace,
    NamespaceSettings,
    NamespaceSummary,
)
from rules_store.models.paging import Page
from rules_store.operations.context import StoreContext
from rules_store.operations.namespace_import import ImportedNamespace, NamespaceImport, Rows
from rules_store.operations.namespace_rows import RowReader
from rules_store.repository import events, namespaces


class NamespaceOperations:
    """`store.namespaces`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._creating = asyncio.Lock()

    # -- without SQL: as of the index's last event

    def get(self, name: str) -> Namespace | None:
        """None while this process knows of none; no I/O."""
        return self._context.namespaces.get(name)

    def is_frozen(self, name: str) -> bool:
        """Whether its rules stay as they are; no I/O."""
        return self._context.namespaces.is_frozen(name)

    def settings_of(self, name: str) -> NamespaceSettings:
        """Of an unknown namespace: nothing set; no I/O."""
        return self._context.namespaces.settings_of(name)

    # -- reading

    async def exists(self, name: str) -> bool:
        """In SQL, where this process knows of none."""
        return name in self._context.namespaces or name in await self.names()

    async def names(self) -> list[str]:
        """Names in alphabetical order."""
        async with self._context.database.read() as connection:
            return await namespaces.names(connection)

    async def summary(self, name: str) -> NamespaceSummary:
        """Raises UnknownNamespace."""
        async with self._context.database.read() as connection:
            return (await _summaries(connection, [await find(connection, name)]))[0]

    async def list(
        self,
        *,
        within: Collection[str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """`NamespaceSummary` of each (of those `within`), in order of name. Raises
        InvalidCursor."""
        after = paging.decode_name("namespaces", cursor)
        async with self._context.database.read() as connection:
            found, total = await namespaces.page(connection, limit + 1, after, within)
            shown = await _summaries(connection, found[:limit])
        more = len(found) > limit
        last = paging.encode_name("namespaces", found[limit - 1].name) if more else None
        return Page(shown, total, last)

    # -- making

    async def ensure(self, name: str, *, actor: str = events.SYSTEM) -> None:
        """Creates it unless it exists; no SQL once this process has seen it."""
        if name in self._context.namespaces:
            return
        now = self._context.clock()

        async def create(connection: AsyncConnection) -> Namespace:
            await self._context.database.order_events(connection)
            if await namespaces.insert_namespace(connection, name, now):
                change = Change(actor, "first use")
                await events.append(connection, now, name, "namespace.created", change)
            return await find(connection, name)

        async with self._creating:
            if name not in self._context.namespaces:
                made = await self._context.database.transact(create, at_request_start=True)
                # What an event has told of it meanwhile is newer.
                if name not in self._context.namespaces:
                    self._context.namespaces.put(made)

    async def create(
        self,
        name: str,
        settings: NamespaceSettings = DEFAULTS,
        *,
        change: Change,
    ) -> Namespace:
        """Raises DuplicateNamespace."""
        now = self._context.clock()
        async with self._context.change() as connection:
            if not await namespaces.insert_namespace(connection, name, now, settings):
                raise DuplicateNamespace(name)
            made = Namespace(name, now, False, settings)
            await events.append(
                connection,
                now,
                name,
                "namespace.created",
                change,
                after=_described(made),
            )
        return made

    # -- changing

    async def change_settings(
        self, name: str, changes: Mapping[str, Any], *, change: Change
    ) -> Namespace:
        """`changes`: fields of NamespaceSettings; None goes back to the service's own.

        Raises UnknownNamespace, NamespaceFrozen, InvalidSetting.
        """

        def alter(before: Namespace) -> Namespace:
            self._context.namespaces.check_writable(name)
            return replace(before, settings=before.settings.changed(changes))

        return await self._alter(name, alter, "namespace.changed", change)

    async def freeze(self, name: str, *, change: Change) -> Namespace:
        """Its rules stay as they are, whoever wants to change them, until it is unfrozen or rolled
        back. One that is frozen already stays so, without an event. Raises UnknownNamespace."""
        return await self._alter(
            name, lambda before: replace(before, frozen=True), "namespace.frozen", change
        )

    async def unfreeze(self, name: str, *, change: Change) -> Namespace:
        """Raises UnknownNamespace."""
        return await self._alter(
            name, lambda before: replace(before, frozen=False), "namespace.unfrozen", change
        )

    async def _alter(
        self,
        name: str,
        alter: Callable[[Namespace], Namespace],
        kind: str,
        change: Change,
    ) -> Namespace:
        async with self._context.change() as connection:
            before = await find(connection, name)
            after = alter(before)
            if after != before:
                await namespaces.save(connection, after)
                await events.append(
                    connection,
                    self._context.clock(),
                    name,
                    kind,
                    change,
                    before=_described(before),
                    after=_described(after),
                )
        return after

    async def delete(self, name: str, *, change: Change) -> DeletedNamespace:
        """Removes all of it, its history too; one event of the deletion stays.

        Raises UnknownNamespace, NamespaceFrozen.
        """
        async with self._context.change() as connection:
            await namespaces.lock(connection, name)
            before = await find(connection, name)
            self._context.namespaces.check_writable(name)
            removed = await namespaces.remove(connection, name)
            await events.append(
                connection,
                self._context.clock(),
                name,
                events.NAMESPACE_DELETED,
                change,
                before=_described(before),
                after={"removed": removed},
            )
            last = await events.last_id(connection)
        return DeletedNamespace(name, last, **removed)

    async def import_(
        self,
        checked: RowReader,
        rows: Rows,
        *,
        name: str | None = None,
        trust: bool = False,
        change: Change,
    ) -> ImportedNamespace:
        """Takes in what `export` gave. `checked` has read all rows to their end, and `rows` gives
        them from the beginning, each time that it is called. `name`: another one for it.

        `trust`: the evidence comes along, so that what steered there steers at once; without, rules
        prove themselves anew (policy gated) and what was measured there is left out.

        Raises DuplicateNamespace, DuplicateRows, InvalidRow.
        """
        return await NamespaceImport(self._context, checked, rows, change, trust=trust).run(name)

    async def export(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Every row of every table that is of this namespace, as JSON: `table` and `row`; vectors
        are in base64. All as of one moment: a transaction is open until the end.

        Raises UnknownNamespace.
        """
        async with self._context.database.read() as connection:
            if await namespaces.find(connection, name) is None:
                raise UnknownNamespace(name)
            for table, wanted in _selections(name):
                rows = await connection.stream(wanted)
                async for row in rows:
                    values = {column: _plain(value) for column, value in row._mapping.items()}
                    yield {"table": table.name, "row": values}


async def find(connection: AsyncConnection, name: str) -> Namespace:
    """Raises UnknownNamespace."""
    found = await namespaces.find(connection, name)
    if found is None:
        raise UnknownNamespace(name)
    return found


async def _summaries(connection: AsyncConnection, found: list[Namespace]) -> list[NamespaceSummary]:
    counts = await namespaces.counts(connection, [each.name for each in found])
    paused = await namespaces.paused(connection)
    return [
        NamespaceSummary(
            each,
            paused=namespaces.EVERY in paused or each.name in paused,
            **counts[each.name],
        )
        for each in found
    ]


def _described(namespace: Namespace) -> dict[str, Any]:
    """The namespace as an event keeps it."""
    return {"frozen": namespace.frozen, "settings": namespace.settings.as_json()}


def _selections(name: str) -> Iterator[tuple[Table, Select[Any]]]:
    for table in metadata.sorted_tables:
        if table is embeddings:
            own = select(rules.c.seq).where(rules.c.namespace == name)
            chosen: ColumnElement[bool] = embeddings.c.rule_seq.in_(own)
        elif table is namespaces_table:
            chosen = namespaces_table.c.name == name
        elif "namespace" in table.c:
            chosen = table.c.namespace == name
        else:
            continue  # of the whole store: its identity, keys and what they have used
        yield table, select(table).where(chosen).order_by(*inspect(table).primary_key)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
