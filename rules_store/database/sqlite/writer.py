"""Whole SQLite transactions in one visit to a thread.

Through the async driver every statement is up to four visits, each of which waits for the
interpreter, and on a busy event loop the file stays locked all that time. The same repository code
runs here (`rules_store.database.sqlite.sync_connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import URL, create_engine

from rules_store.database import json_codec
from rules_store.database.sqlite.inline import AtOnce
from rules_store.database.sqlite.setup import Begin, set_up_sqlite
from rules_store.database.sqlite.sync_connection import PlainConnection, Work
from rules_store.errors import StoreUnavailable

T = TypeVar("T")

_TOGETHER = 64
"""Works that one transaction holds at most."""


@dataclass(slots=True, eq=False)
class _Waiting:
    work: Work[Any] | None
    """None: a turn for somebody who uses another connection."""
    patience: float
    short: bool
    since: float
    """When it came, by the event loop's clock."""
    future: asyncio.Future[Any]
    over: threading.Event | None = None
    """The end of a turn; None: of a work."""
    result: Any = None
    error: BaseException | None = None


class DirectConnection:
    """One connection in a thread that runs transactions in the order of their arrival.

    A short work that finds nobody before it is done at once, in the event loop's thread. Short ones
    that wait when a transaction begins share it, each behind a savepoint of its own (group commit:
    DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984). None
    is told of its success before all are committed.

    `begin` begins each transaction, whose statements wait `busy_timeout` seconds for other
    processes. The patience of who waits is the seconds to wait for other processes at its
    beginning, and those for which the queue may stand still, however long it is.
    """

    def __init__(self, url: URL, begin: Begin, busy_timeout: float) -> None:
        self._begin = begin
        self.engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            json_serializer=json_codec.dumps,
            json_deserializer=json_codec.loads,
        )
        set_up_sqlite(self.engine, None, busy_timeout)
        self._plain = PlainConnection(self.engine)
        self._at_once = AtOnce(self.engine, begin)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        """For what follows, down to `_wake`; never held for longer than a look at it."""
        self._waiting: deque[_Waiting] = deque()
        self._idle = False
        self._closed = False
        self._wake = threading.Semaphore(0)
        self._moved = 0.0
        """When a transaction last succeeded, by the event loop's clock."""
        self._alarm: asyncio.TimerHandle | None = None
        self._apart = -math.inf
        """Until a transaction succeeds after this moment, none is done at once."""

    async def run(self, work: Work[T], patience: float, *, short: bool = False) -> T:
        """`work` in a transaction, which a `short` one may share. Raises StoreUnavailable."""
        if short and self._idle and self._moved > self._apart:
            done = self._at_once.run(work)
            if done is not None:
                return cast(T, done.result)
        return cast(T, await self._enqueue(work, patience, short).future)

    @contextlib.asynccontextmanager
    async def turn(self, patience: float) -> AsyncIterator[None]:
        """Nothing else runs until the end of the block. Raises StoreUnavailable."""
        over = threading.Event()
        mine = self._enqueue(None, patience, short=False, over=over)
        try:
            await mine.future
            yield
            self._moved = asyncio.get_running_loop().time()
        finally:
            over.set()

    @contextlib.contextmanager
    def checkpointing(self) -> Iterator[None]:
        """While the block moves the log into the file, and for the first transaction after it,
        which waits for the disk, all go to the thread."""
        self._apart = math.inf
        try:
            yield
        finally:
            self._apart = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Ends with what waits."""
        self._closed = True
        if self._thread is not None:
            self._wake.release()
            await asyncio.to_thread(self._thread.join)
            self._idle = False
        if self._alarm is not None:
            self._alarm.cancel()
        self._at_once.close()
        self.engine.dispose()

    # -- on the event loop

    def _enqueue(
        self,
        work: Work[Any] | None,
        patience: float,
        short: bool,
        over: threading.Event | None = None,
    ) -> _Waiting:
        loop = asyncio.get_running_loop()
        mine = _Waiting(work, patience, short, loop.time(), loop.create_future(), over)
        with self._lock:
            self._waiting.append(mine)
            wake, self._idle = self._idle, False
        if wake:
            self._wake.release()
        elif self._thread is None:
            name = f"sqlite-{self._begin.__name__}"
            self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._thread.start()
        self._watch(mine.since + patience, loop)
        return mine

    def _watch(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """One alarm for all who wait: one for each costs more than most of their work."""
        if self._alarm is not None:
            if self._alarm.when() <= deadline:
                return
            self._alarm.cancel()
        self._alarm = loop.call_at(deadline, self._lose_patience, loop)

    def _lose_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._alarm = None
        now = loop.time()
        with self._lock:
            deadlines = {
                each: max(each.since, self._moved) + each.patience for each in self._waiting
            }
            self._waiting = deque(each for each in self._waiting if deadlines[each] > now)
        for each, deadline in deadlines.items():
            if deadline > now:
                self._watch(deadline, loop)
            elif not each.future.done():
                each.future.set_exception(
                    StoreUnavailable("The database is busy: a write is stuck.")
                )

    def _deliver(self, ended: list[_Waiting]) -> None:
        for each in ended:
            if each.over is None and each.error is None:
                self._moved = each.future.get_loop().time()
            if each.future.done():
                continue  # whoever waited has been cancelled
            if each.error is None:
                each.future.set_result(each.result)
            else:
                each.future.set_exception(each.error)

    # -- in the thread

    def _serve(self) -> None:
        while True:
            with self._lock:
                group = self._group()
                self._idle = not group
            if group:
                if group[0].over is not None:
                    self._tell(group)
                    group[0].over.wait()
                else:
                    self._transact(group)
            elif self._closed:
                break
            else:
                self._wake.acquire()
        self._plain.forget()

    def _group(self) -> list[_Waiting]:
        """What is next, taken out of the queue."""
        group: list[_Waiting] = []
        while self._waiting and len(group) < _TOGETHER:
            if group and not (group[0].short and self._waiting[0].short):
                break
            following = self._waiting.popleft()
            if not following.future.done():
                group.append(following)
        return group

    def _transact(self, group: list[_Waiting]) -> None:
        try:
            group = self._begin_for(group, self._plain.driver)
            for each in group:
                assert each.work is not None
                if len(group) == 1:
                    each.result = self._plain.run(each.work)
                else:
                    each.result, each.error = self._plain.run_apart(each.work)
            if group:
                self._plain.commit()
        except BaseException as error:
            # Nothing is committed.
            for each in group:
                each.error = error
        if any(each.error is not None for each in group):
            self._plain.forget()
        self._tell(group)

    def _begin_for(self, group: list[_Waiting], driver: sqlite3.Connection) -> list[_Waiting]:
        """Begins a transaction for those who have the patience, and returns them; the others are
        told of their error at once."""
        waited = 0.0
        while group:
            least = min(each.patience for each in group)
            try:
                self._begin(driver, least - waited)
                break
            except sqlite3.OperationalError as error:
                waited = least
                lost = [each for each in group if each.patience <= waited]
                for each in lost:
                    each.error = error
                self._tell(lost)
                group = [each for each in group if each.patience > waited]
        return group

    def _tell(self, group: list[_Waiting]) -> None:
        if group:
            with contextlib.suppress(RuntimeError):  # a loop that was closed before
                group[0].future.get_loop().call_soon_threadsafe(self._deliver, group)
