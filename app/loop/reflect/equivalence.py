"""Groups answers that mean the same.

Plain numbers are compared exactly, words by normalised text, everything else by math-verify in a
worker process that is ended and replaced when a comparison takes too long. Strict: no relative
tolerance; tuples are ordered; an open interval is not a closed one. A comparison that could not be
finished counts as different.

Times (2-core x86-64): numbers and words some ten microseconds each; a first comparison of two
formulas 5-150 ms, a repeated one nothing; the first formula starts the worker, about 0.7 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import cachetools

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
_SPARE_SECONDS = 1.0
"""How long after the worker's own alarm the parent waits before it ends the worker."""


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """For the worker's start, which takes seconds on a busy machine and is no formula's
        fault."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._at += time.monotonic() - began


class Equivalence:
    """One per application and event loop; `close()` ends the worker process.

    `pair_seconds` bounds one comparison. No comparison begins `total_seconds` after the start of a
    call, so a hostile group costs `total_seconds + pair_seconds` and a restart at most.
    `memory_bytes` is the worker's address space.
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
        self._known: cachetools.LRUCache[tuple[str, ...], bool] = cachetools.LRUCache(cache_size)
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def groups(self, answers: Sequence[str]) -> tuple[int, ...]:
        """Class index of each answer; 0 is the largest class, then by first normalised wording.

        Classes are the connected components of pairwise equality, so they do not depend on the
        order of the answers.
        """
        readings = [read(answer) for answer in answers]
        distinct = sorted(set(readings), key=_order)
        root = {reading: reading for reading in distinct}
        deadline = _Deadline(self._total_seconds)
        for a, b in combinations(distinct, 2):
            if root[a] != root[b] and await self._same(a, b, deadline):
                old, new = root[b], root[a]
                root.update({r: new for r in distinct if root[r] == old})
        members = [root[reading] for reading in readings]
        ranked = sorted(set(members), key=lambda r: (-members.count(r), _order(r)))
        return tuple(ranked.index(member) for member in members)

    async def equivalent(self, a: str, b: str, *, question: str = "") -> bool:
        """Whether two answers mean the same. `question`: what they answer; it says whether plain
        numbers are per cent."""
        deadline = _Deadline(self._total_seconds)
        left, right = sorted((read(a), read(b)), key=_order)
        if left == right:
            return True
        if isinstance(left, Number) and isinstance(right, Number):
            return same_number(left, right, percent=asks_for_percent(question))
        return await self._same(left, right, deadline)

    async def readable(self, answer: str) -> bool:
        """Whether an answer can be compared as mathematics, or is plain words or a number."""
        reading = read(answer)
        if not isinstance(reading, Formula):
            return True
        deadline = _Deadline(self._total_seconds)
        return await self._asked({"parse": reading.text}, ("parse", reading.text), deadline)

    async def close(self) -> None:
        async with self._turn:
            await self._end(exited=False)

    async def _same(self, a: Reading, b: Reading, deadline: _Deadline) -> bool:
        if isinstance(a, Number) and isinstance(b, Number):
            return same_number(a, b)
        if not _comparable(a, b):
            return False
        left, right = sorted((_latex(a), _latex(b)))
        for formula in (left, right):
            if not await self._asked({"parse": formula}, ("parse", formula), deadline):
                return False
        return await self._asked({"same": [left, right]}, ("same", left, right), deadline)

    async def _asked(
        self, request: dict[str, object], key: tuple[str, ...], deadline: _Deadline
    ) -> bool:
        """The worker's answer, remembered; False, not remembered, when the deadline has passed."""
        if key in self._known:
            return self._known[key]
        async with self._turn:
            if deadline.passed or not await self._worker_ready(deadline):
                return False
            answer = await self._exchange(request)
        self._known[key] = answer
        return answer

    async def _worker_ready(self, deadline: _Deadline) -> bool:
        try:
            with deadline.standing_still():
                await self._started()
        except (TimeoutError, ConnectionError):
            return False
        return True

    async def _exchange(self, request: dict[str, object]) -> bool:
        """One question to the worker; False when that question ended it."""
        line: bytes | None = None
        try:
            process = await self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(self._pair_seconds + _SPARE_SECONDS):
                line = await process.stdout.readline()
            return bool(line) and json.loads(line)["ok"] is True
        except (TimeoutError, ConnectionError):
            return False
        finally:
            # Also after a cancellation: an unread reply must not answer the next question.
            if not line:
                await self._end(exited=line == b"")

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
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
            self._process = process
        return self._process

    async def _end(self, *, exited: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            await _reap(process, exited=exited)


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
