"""A whole store copied into another database, SQLite or PostgreSQL, and compared with it.

The source is only read, in one transaction, so a gateway may serve from it meanwhile: what is
copied is as of one moment. The target must be empty, or hold a copy of the same source that was cut
short or that nobody has served from since: then only what differs is written. A gateway does not
start on a copy that has not come to its end (`RuleStore.open`).

Both are walked through in batches, each by its own order of keys (two databases sort texts
differently): first the target, backwards from the tables that point to others, for what the source
does not have any more; then the source, for what is new or has changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from sqlalchemy import URL, Table
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import Database, migrate, open_database, parse_url
from rules_store.database.engine import shown
from rules_store.errors import CopyFailed, StoreUnavailable
from rules_store.index.caches import Caches
from rules_store.index.rule_index import unit
from rules_store.models.rules import Polarity, Vector
from rules_store.options import StoreOptions
from rules_store.repository import copies, events

ROWS_AT_ONCE = 500
QUESTIONS = 100
"""By which the two are compared."""
NEAREST = 10
"""Rules of each polarity, and examples, that a question must find in both."""

Progress = Callable[[str, int, int], None]
"""Told of a table's name, how many of its rows are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    source: str
    target: str
    rows: dict[str, int]
    """Of each table, in both."""
    written: int
    """Rows that were put in, changed or taken out this time."""
    resumed: bool
    """Whether the target held a part of the copy, or an earlier one."""
    questions: int
    """That found the same rules and examples in both; fewer than 100 where less is stored."""
    last_event: int


async def copy_store(
    source_url: str,
    target_url: str,
    options: StoreOptions,
    clock: Callable[[], datetime],
    progress: Progress = lambda table, done, total: None,
) -> CopyReport:
    """Raises CopyFailed with what stands in the way, StoreUnavailable."""
    source = _source(parse_url(source_url), options)
    try:
        if await migrate.state_of(source) is not migrate.SchemaState.CURRENT:
            raise CopyFailed(
                f"{shown(source.url)} does not have the schema of this version: upgrade it first, "
                "by a start of its gateway."
            )
        target = open_database(target_url, options)
        try:
            async with target.alone():
                await _check_target(source, target, target_url, options)
                async with source.read() as view:
                    return await _Copy(source, view, target, options, clock, progress).run()
        finally:
            await target.close()
    finally:
        await source.close()


def _source(url: URL, options: StoreOptions) -> Database:
    """Raises CopyFailed."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise CopyFailed(f"{shown(url)}: there is no such file.")
    return open_database(url, options, read_only=True)


async def _check_target(
    source: Database, target: Database, target_url: str, options: StoreOptions
) -> None:
    """Makes the schema where there is nothing. Raises CopyFailed, StoreUnavailable."""
    await target.prepare()
    state = await migrate.state_of(target)
    if state is migrate.SchemaState.FOREIGN:
        raise CopyFailed(
            f"{shown(target.url)} has tables of another program, by the names of ours: copy into "
            "an empty database."
        )
    if state is migrate.SchemaState.OLDER:
        raise CopyFailed(
            f"{shown(target.url)} has the schema of another version: copy into an empty database."
        )
    if state is migrate.SchemaState.NONE:
        await migrate.upgrade(target_url, options)
    async with source.read() as theirs, target.read() as ours:
        origin, noted = await copies.identity_of(theirs), await copies.under_way(ours)
        if noted is not None and noted["source"] == origin:
            if noted["ended_at"] is None or noted["last_event"] == await events.last_id(ours):
                return
            raise CopyFailed(
                f"{shown(target.url)} was copied from there, and changed since: copy into an empty "
                "database."
            )
        found = {name: count for name, count in (await copies.counts(ours)).items() if count}
    if found:
        held = ", ".join(f"{count} {name}" for name, count in found.items())
        raise CopyFailed(f"{shown(target.url)} is not empty ({held}): copy into an empty database.")


class _Copy:
    """One run. `view` is the source, as of one moment."""

    def __init__(
        self,
        source: Database,
        view: AsyncConnection,
        target: Database,
        options: StoreOptions,
        clock: Callable[[], datetime],
        progress: Progress,
    ) -> None:
        self._source = source
        self._view = view
        self._target = target
        self._options = options
        self._clock = clock
        self._progress = progress
        self._written = 0

    async def run(self) -> CopyReport:
        origin = await copies.identity_of(self._view)
        totals = await copies.counts(self._view)
        async with self._target.read() as connection:
            there = await copies.counts(connection)
            resumed = await copies.under_way(connection) is not None
        await self._target.transact(lambda c: copies.begin(c, origin, self._clock()))
        for table in reversed(copies.TABLES):
            if there[table.name]:
                await self._take_out(table)
        for table in copies.TABLES:
            await self._bring(table, totals[table.name], new=not there[table.name])
        numbers, last = await copies.last_numbers(self._view), await events.last_id(self._view)

        async def number(connection: AsyncConnection) -> None:
            await copies.set_last_numbers(connection, numbers)
            await copies.take_identity(connection, origin)

        await self._target.transact(number)
        await self._compare_counts(totals)
        asked = await self._compare_retrieval()
        # Only now: a gateway may start on it.
        await self._target.transact(lambda c: copies.end(c, last, self._clock()))
        return CopyReport(
            source=shown(self._source.url),
            target=shown(self._target.url),
            rows=totals,
            written=self._written,
            resumed=resumed,
            questions=asked,
            last_event=last,
        )

    async def _take_out(self, table: Table) -> None:
        """Rows that the source does not have; and those that differ are made to give way."""
        after: copies.Key | None = None
        while True:
            async with self._target.read() as connection:
                ours = await copies.batch(connection, table, after, ROWS_AT_ONCE)
            if not ours:
                return
            after = list(ours)[-1]
            theirs = await copies.with_keys(self._view, table, ours)
            gone = [row for key, row in ours.items() if key not in theirs]
            differing = [row for key, row in ours.items() if theirs.get(key, row) != row]

            async def change(
                connection: AsyncConnection,
                gone: list[copies.Row] = gone,
                differing: list[copies.Row] = differing,
            ) -> None:
                await copies.delete_rows(connection, table, gone)
                await copies.make_way(connection, table, differing)

            if gone or differing:
                await self._target.transact(change)
            self._written += len(gone)

    async def _bring(self, table: Table, total: int, *, new: bool) -> None:
        """Rows that the target does not have, or has differently. `new`: it has none."""
        after: copies.Key | None = None
        done = 0
        while True:
            theirs = await copies.batch(self._view, table, after, ROWS_AT_ONCE)
            if not theirs:
                return
            after = list(theirs)[-1]
            ours: dict[copies.Key, copies.Row] = {}
            if not new:
                async with self._target.read() as connection:
                    ours = await copies.with_keys(connection, table, theirs)
            missing = [row for key, row in theirs.items() if key not in ours]
            changed = [row for key, row in theirs.items() if ours.get(key, row) != row]

            async def change(
                connection: AsyncConnection,
                missing: list[copies.Row] = missing,
                changed: list[copies.Row] = changed,
            ) -> None:
                await copies.insert_rows(connection, table, missing)
                await copies.update_rows(connection, table, changed)

            if missing or changed:
                try:
                    await self._target.transact(change)
                except (DataError, IntegrityError) as error:
                    why = str(error.orig).partition("\n")[0]
                    raise CopyFailed(f"Rows of {table.name} do not fit in: {why}.") from error
            self._written += len(missing) + len(changed)
            done += len(theirs)
            self._progress(table.name, done, total)

    async def _compare_counts(self, wanted: dict[str, int]) -> None:
        """Raises CopyFailed."""
        async with self._target.read() as connection:
            found = await copies.counts(connection)
        wrong = [
            f"{name}: {found[name]} of {count}"
            for name, count in wanted.items()
            if found[name] != count
        ]
        if wrong:
            raise CopyFailed(f"The copy is not whole: {', '.join(wrong)}.")

    async def _compare_retrieval(self) -> int:
        """How many questions found the same in both. Raises CopyFailed."""
        model = await copies.main_model(self._view)
        if model is None:
            return 0
        asked = await copies.questions(self._view, model, QUESTIONS)
        theirs = await self._index(cast(Database, _OneView(self._view)), model)
        ours = await self._index(self._target, model)
        now = self._clock()
        for namespace, vector in asked:
            if _found(theirs, namespace, vector, now) != _found(ours, namespace, vector, now):
                raise CopyFailed(
                    f"The copy finds other rules or examples than the source, in {namespace!r}."
                )
        return len(asked)

    async def _index(self, database: Database, model: str) -> Caches:
        made = Caches(database, model, None, None, self._options, self._clock)
        await made.rebuild()
        return made


class _OneView:
    """A database of which nothing is seen but one transaction."""

    def __init__(self, view: AsyncConnection) -> None:
        self._view = view

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        yield self._view


def _found(caches: Caches, namespace: str, vector: Vector, now: datetime) -> list[object]:
    """Ids and similarities of what a question finds."""
    if caches.dimension != len(vector):
        return []
    query = unit(vector, caches.dimension)
    found: list[object] = []
    for polarity in Polarity:
        hits = caches.rules.search(namespace, query, polarity, NEAREST, triggers=True).hits
        found.append(sorted((round(hit.similarity, 5), hit.id) for hit in hits))
    shown = caches.examples.search(namespace, query, NEAREST, -1.0, now)
    found.append(sorted((round(hit.similarity, 5), hit.id) for hit in shown))
    return found


async def check_whole(database: Database) -> None:
    """Raises StoreUnavailable where a copy into this database has not come to its end."""
    async with database.read() as connection:
        noted = await copies.under_way(connection)
    if noted is not None and noted["ended_at"] is None:
        raise StoreUnavailable(
            "A copy into this database has not come to its end: run the same `ttcl store copy` "
            "again, which goes on where it was, or use another database."
        )
