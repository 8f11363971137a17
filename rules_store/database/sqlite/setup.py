"""SQLite files: how they are opened, and what their connections are told."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from rules_store.errors import StoreUnavailable

# Seconds that SQLite itself waits for the lock of another process before the wait is renewed. Its
# pauses grow with the wait, up to 0.1 s, in which a busy neighbour takes the lock many times.
POLL = 0.02
_LOG_PAGES = 40_000
"""Of the write-ahead log, after which whoever commits moves it into the file (160 MiB).
`checkpoint` does that before, so that no request waits for the disk."""
_LONG_LOG = 20_000
"""Pages after which the log is begun anew, for which writers must wait a moment."""
_MAPPED = 256 * 2**20  # bytes of the file read without copying: a scan takes half the time


def set_up_sqlite(engine: Engine, begin: str | None, busy_timeout: float) -> None:
    """`begin`: how a transaction of SQLAlchemy's is begun; None: whoever uses it has begun one."""

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # What a savepoint or a statement of many rows would undo is kept in memory, not in files.
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        cursor.execute(f"PRAGMA mmap_size = {_MAPPED}")
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
        cursor.close()

    if begin is None:
        return

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        patience = connection.info.get("patience", 0.0)
        _patiently(lambda: connection.exec_driver_sql(begin), patience)


Begin = Callable[[sqlite3.Connection, float], None]
"""How a transaction over the driver is begun, with the seconds to wait for others."""


def begin_deferred(driver: sqlite3.Connection, patience: float) -> None:
    """For reading alone: it takes no lock, so there is nothing to be patient about."""
    driver.execute("BEGIN")


def begin_immediate(driver: sqlite3.Connection, patience: float) -> None:
    """Takes the write lock. Raises sqlite3.OperationalError after `patience` seconds."""
    _patiently(lambda: driver.execute("BEGIN IMMEDIATE"), patience)


def _patiently(begin: Callable[[], object], patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            begin()
            return
        except (OperationalError, sqlite3.OperationalError) as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise


def give_way() -> None:
    """This thread leaves the processor to all others, where the system has that for threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def checkpoint(path: str) -> bool:
    """Moves the write-ahead log into the file, as far as that holds nobody up. Whether it is a long
    one that should be begun anew. Raises sqlite3.Error."""
    return _moved(path, "PASSIVE") >= _LONG_LOG


def begin_log_anew(path: str) -> None:
    """Where there is always somebody who writes, the log would only grow: writers wait while the
    rest of it is moved. Raises sqlite3.Error."""
    _moved(path, "RESTART")


def _moved(path: str, how: str) -> int:
    """Pages of the log."""
    with closing(sqlite3.connect(path, timeout=POLL, isolation_level=None)) as connection:
        pages: int = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[1]
    return pages


def prepare_sqlite(path: Path, busy_timeout: float) -> None:
    """Creates the file where there is none, checks that it is ours to write, switches to WAL.

    Raises StoreUnavailable with what to mend.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"The database file {path} can't be opened: {error}.") from error
    try:
        _switch_to_wal(connection, busy_timeout)
        connection.execute("BEGIN IMMEDIATE")
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"The database file {path} can't be used ({error}); mend it, restore a copy, "
            "or point the database URL at another file."
        ) from error
    finally:
        connection.close()
    if names and "alembic_version" not in names:
        raise StoreUnavailable(
            f"The database file {path} belongs to another program; "
            "point the database URL at another file."
        )


def _switch_to_wal(connection: sqlite3.Connection, patience: float) -> None:
    # The switch needs the file alone for a moment, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
