"""A namespace out of an export (`namespace_rows`) and into this store, under a name that is free.

In many transactions, so that requests go on meanwhile. Until the last one it is frozen, and its
events, by which every process takes up its rules, come behind all else. What fails is taken out
again; a process that is killed leaves a frozen namespace, which is to be deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Table, insert, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import examples, metadata, rules
from rules_store.errors import DuplicateNamespace, DuplicateRows
from rules_store.models.events import Change
from rules_store.models.evidence import Standing
from rules_store.models.rules import RuleState
from rules_store.operations.context import StoreContext
from rules_store.operations.namespace_rows import (
    EVIDENCE,
    Row,
    RowReader,
    fit_for,
    in_batches,
)
from rules_store.policy.lift import Tally, lift, retention
from rules_store.repository import events, namespaces
from rules_store.repository import standings as standing_rows

ROWS_AT_ONCE = 500
IMPORTED = "namespace.imported"
_LAST = ("standings", "events")
"""Tables in turns of their own, behind the others: the one needs the numbers of rules and examples,
the other is what they are taken up by."""

Rows = Callable[[], Iterable[tuple[Table, Row]]]
"""Gives the rows from the first one on, each time; raises InvalidRow."""


@dataclass(frozen=True, slots=True)
class ImportedNamespace:
    name: str
    rows: dict[str, int]
    """By table."""
    left_out: dict[str, int]
    """Evidence that does not count here, by table."""
    trusted: bool


class NamespaceImport:
    """One run. `checked` has read all rows once, to their end."""

    def __init__(
        self, context: StoreContext, checked: RowReader, rows: Rows, change: Change, *, trust: bool
    ) -> None:
        self._context = context
        self._checked = checked
        self._rows = rows
        self._change = change
        self._trust = trust
        self._was = checked.end()
        self._numbers: dict[int, int] = {}
        """Of rules: there -> here."""
        self._by_id: dict[str, int] = {}
        """Numbers here of rules and examples."""

    async def run(self, name: str | None) -> ImportedNamespace:
        """`name` None: its own. Raises DuplicateNamespace, DuplicateRows, StoreUnavailable."""
        name = name or self._was
        await self._check_free(name)
        left_out = {} if self._trust else {t: n for t, n in self._counts() if t in EVIDENCE}
        kept = {table: count for table, count in self._counts() if table not in left_out}
        await self._begin(name)
        try:
            first = [table for table in kept if table not in _LAST]
            for wanted in (first, *([table] for table in _LAST if table in kept)):
                await self._bring(name, frozenset(wanted))
        except (IntegrityError, DataError) as error:
            await self._take_out(name)
            raise DuplicateRows(name) from error
        except BaseException:
            await self._take_out(name)
            raise
        await self._end(name, kept)
        return ImportedNamespace(name, kept, left_out, self._trust)

    def _counts(self) -> Iterable[tuple[str, int]]:
        return sorted(self._checked.counts.items())

    async def _check_free(self, name: str) -> None:
        async with self._context.database.read() as connection:
            if await namespaces.find(connection, name) is not None:
                raise DuplicateNamespace(name)
            for table, ids in self._checked.ids.items():
                column, listed = metadata.tables[table].c.id, sorted(ids)
                for start in range(0, len(listed), ROWS_AT_ONCE):
                    some = column.in_(listed[start : start + ROWS_AT_ONCE])
                    if await connection.scalar(select(column).where(some).limit(1)) is not None:
                        raise DuplicateRows(name)

    async def _begin(self, name: str) -> None:
        own = self._checked.namespace
        assert own is not None
        row = fit_for(metadata.tables["namespaces"], own, name, self._was) | {"frozen": True}

        async def begin(connection: AsyncConnection) -> None:
            await self._context.database.order_events(connection)
            if await namespaces.find(connection, name) is not None:
                raise DuplicateNamespace(name)
            await connection.execute(insert(metadata.tables["namespaces"]), [row])
            now = self._context.clock()
            await events.append(connection, now, name, "namespace.created", self._change)

        await self._context.database.transact(begin)

    async def _bring(self, name: str, wanted: frozenset[str]) -> None:
        chosen = (
            (table, row)
            for table, row in self._rows()
            if table.name in wanted and table.name != "namespaces"
        )
        batches = iter(in_batches(chosen, ROWS_AT_ONCE))
        # In a thread: to read some hundreds of lines takes tens of milliseconds.
        while (step := await asyncio.to_thread(next, batches, None)) is not None:
            table, batch = step

            async def write(
                connection: AsyncConnection, table: Table = table, batch: list[Row] = batch
            ) -> None:
                if table.name == "events":
                    await self._context.database.order_events(connection)
                await self._write(connection, table, batch, name)

            await self._context.database.transact(write)
        if self._trust and "rules" in wanted:
            await self._context.database.transact(lambda c: self._vouch(c, name))

    async def _write(
        self, connection: AsyncConnection, table: Table, batch: list[Row], name: str
    ) -> None:
        rows = [fit_for(table, row, name, self._was) for row in batch]
        if table.name == "embeddings":
            for row in rows:
                row["rule_seq"] = self._numbers[row["rule_seq"]]
        elif table.name == "standings":
            rows = [self._standing(row) for row in rows if row["item_id"] in self._by_id]
        if rows:
            await connection.execute(insert(table), rows)
        if table in (rules, examples):
            ids = [row["id"] for row in rows]
            found = await connection.execute(
                select(table.c.id, table.c.seq).where(table.c.id.in_(ids))
            )
            here = {row.id: row.seq for row in found}
            self._by_id |= here
            if table is rules:
                self._numbers |= {row["seq"]: here[row["id"]] for row in batch}

    def _standing(self, row: Row) -> Row:
        """As of now, since processes look for what is newer than they have seen."""
        now = self._context.clock()
        factor = min(1.0, retention(row["at"], now, self._context.options.half_life_days))
        tallies = {
            side: Tally(max(0.0, row[f"{side}_hits"]), max(0.0, row[f"{side}_misses"])).aged(factor)
            for side in ("with", "without")
        }
        gain = lift(tallies["with"], tallies["without"])
        values: dict[str, Any] = {"at": now, "item_seq": self._by_id[row["item_id"]]}
        for side, tally in tallies.items():
            values |= {f"{side}_hits": tally.hits, f"{side}_misses": tally.misses}
        values |= {"lift": gain.mean, "lift_low": gain.low, "lift_high": gain.high}
        return row | values

    async def _vouch(self, connection: AsyncConnection, name: str) -> None:
        """Active rules that nothing was measured of steered there all the same."""
        own = rules.c.namespace == name
        found = await connection.execute(
            select(rules.c.id, rules.c.seq).where(own, rules.c.state == RuleState.ACTIVE)
        )
        now = self._context.clock()
        await standing_rows.put_all(
            connection,
            [
                replace(Standing(row.id, row.seq, name, now), proven=True)
                for row in found
                if row.id not in self._checked.judged
            ],
        )

    async def _end(self, name: str, kept: dict[str, int]) -> None:
        own = self._checked.namespace
        assert own is not None

        async def end(connection: AsyncConnection) -> None:
            await self._context.database.order_events(connection)
            made = await namespaces.find(connection, name)
            assert made is not None
            await namespaces.save(connection, replace(made, frozen=own["frozen"]))
            after = {"was": self._was, "imported": kept, "trusted": self._trust}
            now = self._context.clock()
            await events.append(connection, now, name, IMPORTED, self._change, after=after)

        await self._context.database.transact(end)
        await self._context.take_up()

    async def _take_out(self, name: str) -> None:
        async def remove(connection: AsyncConnection) -> None:
            await self._context.database.order_events(connection)
            await namespaces.remove(connection, name)
            gone = (connection, self._context.clock(), name, events.NAMESPACE_DELETED)
            why = replace(self._change, reason="its import failed")
            await events.append(*gone, why)

        await self._context.database.transact(remove)
        await self._context.take_up()
