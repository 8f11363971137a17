"""Brings a database to the schema of this version. Safe when several processes start at once."""

from __future__ import annotations

import asyncio
import threading
from enum import Enum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from rules_store.database.engine import open_database
from rules_store.database.interface import Database
from rules_store.database.schema import metadata
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

# Alembic keeps the running migration in module-level proxies: one run at a time per process.
_ALEMBIC = threading.Lock()


async def upgrade(url: str, options: StoreOptions) -> None:
    """Runs what is missing. Raises StoreUnavailable when the schema is not one it knows."""
    await asyncio.to_thread(_upgrade_alone, url, options)


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


async def is_current(url: str, options: StoreOptions) -> bool:
    """Whether nothing is missing; changes nothing. Raises StoreUnavailable as `upgrade` does."""
    database = open_database(url, options)
    try:
        async with database.read() as connection:
            return await connection.run_sync(_is_current)
    finally:
        await database.close()


def _upgrade_alone(url: str, options: StoreOptions) -> None:
    # A loop of its own, because a migration must not be interleaved with another one.
    with _ALEMBIC:
        asyncio.run(_upgrade(url, options))


async def _upgrade(url: str, options: StoreOptions) -> None:
    database = open_database(url, options)
    try:
        await database.prepare()
        async with database.read() as connection:
            if await connection.run_sync(_is_current):
                return
        async with database.write() as connection:
            # Another process may be at it, and take its time.
            await database.order_events(connection, patiently=True)
            # Asked again under the write lock: another process may have been first.
            if not await connection.run_sync(_is_current):
                await connection.run_sync(_run)
    finally:
        await database.close()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    return config


def _is_current(connection: Connection) -> bool:
    script = ScriptDirectory.from_config(_config())
    found = MigrationContext.configure(connection).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if found is not None and found not in known:
        raise StoreUnavailable(
            f"The database has schema revision {found!r}, which this version does not know; "
            "upgrade ttcl, or point the database URL at another database."
        )
    return found == script.get_current_head()


def _state(connection: Connection) -> SchemaState:
    if _is_current(connection):
        return SchemaState.CURRENT
    if MigrationContext.configure(connection).get_current_revision() is not None:
        return SchemaState.OLDER
    found = set(inspect(connection).get_table_names()) & set(metadata.tables)
    return SchemaState.FOREIGN if found else SchemaState.NONE


def _run(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
