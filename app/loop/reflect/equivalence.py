"""Groups answers that mean the same.

Plain numbers are compared exactly, words by normalised text, everything else by math-verify in
worker processes, one of which is ended and replaced when a comparison takes too long. Tenants take
turns with them. Strict: no relative tolerance; tuples are ordered; an open interval is not a closed
one. A comparison that could not be finished says nothing (`ComparisonUnfinished`).

Times (2-core x86-64): numbers and words some ten microseconds each; a first comparison of two
formulas 5-150 ms, a repeated one nothing; the first formula starts a worker, about 0.7 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import combinations
from pathlib import Path

import cachetools

from app.access.tenants import FairSlots
from app.exceptions import TTCLError
from app.loop.reflect.normalise import (
    Formula,
    Number,
    Reading,
    Words,
    asks_for_percent,
    read,
    same_number,
)

_WORKER = Path(__file__).with_name("math_worker.py")
_START_SECONDS = 30.0
_BUSY = 4
"""Times the processor's seconds of a comparison that it may take on a machine that is busy."""
_SPARE_SECONDS = 1.0
_WORKERS = 2
"""Processes: none of a tenant's own formulas, however slow, keeps all others waiting."""
_EACH = 1
"""Of these for one tenant at a time."""
_FORGOTTEN = 300.0
"""Seconds after which a comparison that ended its worker is tried again."""


class ComparisonUnfinished(TTCLError):
    """Nobody knows whether two answers are the same: that is no evidence of anything."""

    code = "comparison_unfinished"


class _Told(Enum):
    YES = "yes"
    NO = "no"
    ENDED = "ended"
    """The question is too much for any worker."""
    UNASKED = "unasked"
    """There was no time left for it, or no worker."""


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """For a worker's start, which takes seconds on a busy machine, and for the turn before:
        neither is a formula's fault."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._at += time.monotonic() - began


class Equivalence:
    """One per application and event loop; `close()` ends the worker processes.

    `pair_seconds` of the processor bound one comparison. No comparison begins `total_seconds` after
    the start of a call, turns aside, so a hostile group costs `total_seconds + pair_seconds` and a
    restart at most. `memory_bytes` is a worker's address space.
    """

    def __init__(
        self,
        *,
        pair_seconds: float = 2.0,
        total_seconds: float = 6.0,
        memory_bytes: int = 1 << 30,
        cache_size: int = 4096,
    ) -> None:
        self._pair_seconds = pair_seconds
        self._total_seconds = total_seconds
        self._memory_bytes = memory_bytes
        self._known: cachetools.LRUCache[tuple[str, ...], _Told] = cachetools.LRUCache(cache_size)
        self._ended: cachetools.TTLCache[tuple[str, ...], _Told] = cachetools.TTLCache(
            cache_size, _FORGOTTEN
        )
        self._slots = FairSlots(_WORKERS, _EACH)
        self._idle: list[asyncio.subprocess.Process] = []
        self._closed = False

    async def groups(self, answers: Sequence[str]) -> tuple[int, ...]:
        """Class index of each answer; 0 is the largest class, then by first normalised wording.

        Classes are the connected components of pairwise equality, so they do not depend on the
        order of the answers. What no worker can evaluate equals nothing else. Raises
        `ComparisonUnfinished`.
        """
        readings = [read(answer) for answer in answers]
        distinct = sorted(set(readings), key=_order)
        root = {reading: reading for reading in distinct}
        deadline = _Deadline(self._total_seconds)
        for a, b in combinations(distinct, 2):
            told = _Told.NO if root[a] == root[b] else await self._same(a, b, deadline)
            if told is _Told.UNASKED:
                raise ComparisonUnfinished("the answers could not all be compared in time")
            if told is _Told.YES:
                old, new = root[b], root[a]
                root.update({r: new for r in distinct if root[r] == old})
        members = [root[reading] for reading in readings]
        ranked = sorted(set(members), key=lambda r: (-members.count(r), _order(r)))
        return tuple(ranked.index(member) for member in members)

    async def equivalent(self, a: str, b: str, *, question: str = "") -> bool:
        """Whether two answers mean the same. `question`: what they answer; it says whether plain
        numbers are per cent. Raises `ComparisonUnfinished`."""
        deadline = _Deadline(self._total_seconds)
        left, right = sorted((read(a), read(b)), key=_order)
        if left == right:
            return True
        if isinstance(left, Number) and isinstance(right, Number):
            return same_number(left, right, percent=asks_for_percent(question))
        told = await self._same(left, right, deadline)
        if told in (_Told.UNASKED, _Told.ENDED):
            raise ComparisonUnfinished("two answers could not be compared in time")
        return told is _Told.YES

    async def readable(self, answer: str) -> bool:
        """Whether an answer can be compared as mathematics, or is plain words or a number."""
        reading = read(answer)
        if not isinstance(reading, Formula):
            return True
        deadline = _Deadline(self._total_seconds)
        told = await self._asked({"parse": reading.text}, ("parse", reading.text), deadline)
        return told is _Told.YES

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            await _reap(self._idle.pop(), exited=False)

    async def _same(self, a: Reading, b: Reading, deadline: _Deadline) -> _Told:
        if isinstance(a, Number) and isinstance(b, Number):
            return _Told.YES if same_number(a, b) else _Told.NO
        if not _comparable(a, b):
            return _Told.NO
        left, right = sorted((_latex(a), _latex(b)))
        for formula in (left, right):
            told = await self._asked({"parse": formula}, ("parse", formula), deadline)
            if told is not _Told.YES:
                return told
        return await self._asked({"same": [left, right]}, ("same", left, right), deadline)

    async def _asked(
        self, request: dict[str, object], key: tuple[str, ...], deadline: _Deadline
    ) -> _Told:
        """A worker's answer, remembered."""
        known = self._known.get(key) or self._ended.get(key)
        if known is not None:
            return known
        async with contextlib.AsyncExitStack() as turn:
            with deadline.standing_still():
                await turn.enter_async_context(self._slots.slot())
            if deadline.passed:
                return _Told.UNASKED
            try:
                with deadline.standing_still():
                    process = self._idle.pop() if self._idle else await self._started()
            except (TimeoutError, ConnectionError):
                return _Told.UNASKED
            told = await self._exchange(process, request)
        if told is _Told.ENDED:
            self._ended[key] = told
        elif told is not _Told.UNASKED:
            self._known[key] = told
        return told

    async def _exchange(
        self, process: asyncio.subprocess.Process, request: dict[str, object]
    ) -> _Told:
        """One question to a worker, which is idle again after it, or has ended."""
        line: bytes | None = None
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(_BUSY * self._pair_seconds + _SPARE_SECONDS):
                line = await process.stdout.readline()
            if not line:
                return _Told.ENDED
            return _Told.YES if json.loads(line)["ok"] is True else _Told.NO
        except TimeoutError:
            return _Told.UNASKED
        except ConnectionError:
            line = b""
            return _Told.ENDED
        finally:
            # Also after a cancellation: an unread reply must not answer the next question.
            if line and not self._closed:
                self._idle.append(process)
            else:
                await _reap(process, exited=line == b"")

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # no module of this folder may stand in for one of Python's
            str(_WORKER),
            str(self._pair_seconds),
            str(self._memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        ready = b""
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await process.stdout.readline()
        finally:
            if not ready:
                await _reap(process, exited=False)
        if not ready:
            raise ConnectionError("the worker ended at its start")
        return process


async def _reap(process: asyncio.subprocess.Process, *, exited: bool) -> None:
    # Signalling a process that has just ended would take its status from asyncio's own watcher.
    if not exited:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()


def _comparable(a: Reading, b: Reading) -> bool:
    """Whether math-verify has a say: at least one formula, and no words but a symbol's name."""
    if not (isinstance(a, Formula) or isinstance(b, Formula)):
        return False
    return not any(isinstance(r, Words) and not _symbol(r.text) for r in (a, b))


def _symbol(text: str) -> bool:
    return len(text) == 1 or text in {"pi", "infinity"}


def _latex(reading: Reading) -> str:
    if isinstance(reading, Number):
        value = reading.value
        if value.denominator == 1:
            return str(value.numerator)
        return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return reading.text


def _order(reading: Reading) -> tuple[str, str, str]:
    if isinstance(reading, Number):
        return ("number", str(reading.value), reading.unit or "")
    return (type(reading).__name__, reading.text, "")
