"""Short SQLite transactions in the event loop's own thread, while the file is free.

A write of a request takes SQLite some hundredths of a millisecond; handing it to a thread and back
costs ten times that, more where both want the interpreter. The loop never waits for a lock here,
and where the disk is slow it leaves the file to the thread.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Engine

from rules_store.database.sqlite.setup import Begin
from rules_store.database.sqlite.sync_connection import PlainConnection, Work

T = TypeVar("T")

LONG = 0.02
"""Seconds that no transaction of the event loop's should take."""
WARY = 5.0
"""Seconds without one after it did."""


@dataclass(frozen=True, slots=True)
class Done:
    result: Any


class AtOnce:
    def __init__(self, engine: Engine, begin: Begin) -> None:
        self._begin = begin
        self._plain = PlainConnection(engine)
        self._prepared: sqlite3.Connection | None = None
        self._wary_until = 0.0

    def run(self, work: Work[T]) -> Done | None:
        """`work` in a transaction. None, and nothing is done: another one holds the file, or the
        disk has been slow."""
        started = monotonic()
        if started < self._wary_until:
            return None
        try:
            if not self._begun():
                return None
            result = self._plain.run(work)
            self._plain.commit()
            return Done(result)
        except BaseException:
            # Nothing is committed.
            self._plain.forget()
            raise
        finally:
            ended = monotonic()
            if ended - started > LONG:
                self._wary_until = ended + WARY

    def close(self) -> None:
        self._plain.forget()

    def _begun(self) -> bool:
        """Whether a transaction could be begun."""
        driver = self._plain.driver
        if driver is not self._prepared:
            driver.execute("PRAGMA busy_timeout = 0")
            # The log is moved into the file by others: the event loop does not wait for the disk.
            driver.execute("PRAGMA wal_autocheckpoint = 0")
            self._prepared = driver
        try:
            self._begin(driver, 0.0)
        except sqlite3.OperationalError:
            return False
        return True
