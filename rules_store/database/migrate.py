"""Looks at a database's schema, and brings it to that of this version. Safe when several processes
start at once."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection
from sqlalchemy import inspect as inspect_database

from rules_store.database.engine import open_database, parse_url, shown
from rules_store.database.interface import Database
from rules_store.database.schema import metadata
from rules_store.errors import DatabaseMissing, OlderProcesses, SchemaOutdated, StoreUnavailable
from rules_store.options import StoreOptions

logger = logging.getLogger(__name__)

# Alembic keeps the running migration in module-level proxies: one run at a time per process.
_ALEMBIC = threading.Lock()


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    revision: str
    summary: str
    """What it brings, in a sentence."""


class SchemaState(Enum):
    NONE = "none"
    """Not a table of ours."""
    FOREIGN = "foreign"
    """Tables by the names of ours that no migration has made."""
    OLDER = "older"
    CURRENT = "current"


async def state_of(database: Database) -> SchemaState:
    """Changes nothing. Raises StoreUnavailable for a schema of a newer version."""
    async with database.read() as connection:
        return await connection.run_sync(_state)


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Where a database stands."""

    database: str
    """The file, or the URL without its password."""
    revision: str | None
    """None: there is no database, or nothing in it."""
    head: str
    """What this version needs."""
    pending: tuple[Migration, ...]
    """What is missing, in its order."""

    @property
    def is_current(self) -> bool:
        return self.revision == self.head


async def status(url: str, options: StoreOptions) -> SchemaStatus:
    """Changes nothing, and makes nothing. Raises StoreUnavailable for a database that can't be
    read, or whose schema this version does not know."""
    parsed = parse_url(url)
    found = await _found(url, options) if await asyncio.to_thread(_may_be_there, parsed) else None
    script = _script()
    pending = tuple(
        Migration(each.revision, " ".join((inspect.getdoc(each.module) or "").split()))
        for each in reversed(list(script.iterate_revisions("head", found or "base")))
    )
    head = script.get_current_head() or ""
    return SchemaStatus(shown(parsed), found, head, pending)


async def _found(url: str, options: StoreOptions) -> str | None:
    database = open_database(url, options)
    try:
        async with database.read() as connection:
            return await connection.run_sync(_revision)
    finally:
        await database.close()


def _may_be_there(url: URL) -> bool:
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


async def check(url: str, options: StoreOptions) -> None:
    """Raises DatabaseMissing where there is none, SchemaOutdated where it is an older version's,
    StoreUnavailable as `status` does."""
    found = await status(url, options)
    if found.revision is None:
        raise DatabaseMissing(found.database)
    if not found.is_current:
        raise SchemaOutdated(found.database, found.revision, found.head)


async def upgrade(url: str, options: StoreOptions, *, force: bool = False) -> None:
    """Makes the database, or runs what it lacks. Raises StoreUnavailable when the schema is not one
    it knows, OlderProcesses where processes of an older version use the database, which could not
    go on then; `force`: whether they do or not.

    Of a SQLite file only its lock tells who uses it (`rules_store.database.lock`); who calls this
    holds it.
    """
    await asyncio.to_thread(_upgrade_alone, url, options, force)


def _upgrade_alone(url: str, options: StoreOptions, force: bool) -> None:
    # A loop of its own, because a migration must not be interleaved with another one.
    with _ALEMBIC:
        asyncio.run(_upgrade(url, options, force))


async def _upgrade(url: str, options: StoreOptions, force: bool) -> None:
    database = open_database(url, options)
    head = _script().get_current_head()
    try:
        await database.prepare()
        async with database.read() as connection:
            if await connection.run_sync(_revision) == head:
                return
        async with database.write() as connection:
            # Another process may be at it, and take its time.
            await database.order_events(connection, patiently=True)
            # Asked again under the write lock: another process may have been first.
            found = await connection.run_sync(_revision)
            if found == head:
                return
            older = [] if found is None or force else await database.older_processes(connection)
            if older:
                raise OlderProcesses(older)
            await connection.run_sync(_run)
        logger.info("the database was brought from schema %s to %s", found or "none", head)
    finally:
        await database.close()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _revision(connection: Connection) -> str | None:
    """Of the database; None: nothing is in it."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {each.revision for each in _script().walk_revisions()}:
        raise StoreUnavailable(
            f"The database has schema revision {found!r}, which this version does not know; "
            "upgrade ttcl, or point the database URL at another database."
        )
    return found


def _state(connection: Connection) -> SchemaState:
    if (revision := _revision(connection)) is not None:
        is_current = revision == _script().get_current_head()
        return SchemaState.CURRENT if is_current else SchemaState.OLDER
    found = set(inspect_database(connection).get_table_names()) & set(metadata.tables)
    return SchemaState.FOREIGN if found else SchemaState.NONE


def _run(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
