"""Every model call of a run, on disk as it comes, made once.

A run that was killed replays its calls from here and goes on; arms that make identical calls
(same model, messages, sampling, seed and schema) share one, and each still counts it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from app.domain.trajectory import Cost, Message
from app.exceptions import UpstreamError, UpstreamRejected
from app.upstream.types import ChatBackend, Completion
from benchmarks.journal import Journal, Row

_TRANSIENT_REJECTIONS = {408, 409, 425, 429}
PAUSES = (1.0, 3.0, 10.0, 30.0)
"""Seconds between attempts at a call that the upstream could not serve."""


class CallCache:
    """Wraps a `ChatBackend`. With `shared` false nothing is shared between scopes, but a run still
    resumes. `parallel` bounds the calls under way."""

    def __init__(
        self,
        backend: ChatBackend,
        journal: Journal,
        *,
        shared: bool = True,
        parallel: int = 8,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._shared = shared
        self._pauses = pauses
        self._slots = asyncio.Semaphore(parallel)
        self._offsets = {bytes.fromhex(row["key"]): offset for offset, row in journal.rows()}
        self._open: dict[bytes, asyncio.Task[Row]] = {}
        self.broken: UpstreamError | None = None
        """Set when the upstream failed for good: what follows is no result, the run must stop."""
        self.made = 0
        """Calls sent by this process."""

    def scoped(self, scope: str) -> MeteredBackend:
        """A backend that counts the calls of one question in one arm."""
        return MeteredBackend(self, self._backend, scope)

    async def close(self) -> None:
        for task in self._open.values():
            task.cancel()
        await asyncio.gather(*self._open.values(), return_exceptions=True)

    async def fetch(
        self, request: Row, call: Callable[[], Awaitable[Row]], *, scope: str, own: bool = False
    ) -> tuple[Row, bool]:
        """The journal's row of a call, and whether it was there before; an `own` call is never
        shared with another scope. Raises `UpstreamError`."""
        identity = request if self._shared and not own else {**request, "scope": scope}
        key = hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).digest()[:16]
        offset = self._offsets.get(key)
        if offset is not None:
            return self._journal.read(offset), True
        task = self._open.get(key)
        if task is None:
            task = asyncio.create_task(self._make(key, request, call))
            self._open[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # Shielded: one arm's time limit must not take the call away from another.
        return await asyncio.shield(task), False

    def _finished(self, key: bytes, task: asyncio.Task[Row]) -> None:
        self._open.pop(key, None)
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more

    async def _make(self, key: bytes, request: Row, call: Callable[[], Awaitable[Row]]) -> Row:
        async with self._slots:
            if self.broken is not None:
                raise self.broken
            started = time.monotonic()
            try:
                outcome = await self._patiently(call)
            except UpstreamError as error:
                self.broken = self.broken or error
                raise
            row = {
                "key": key.hex(),
                "request": request,
                **outcome,
                "seconds": round(time.monotonic() - started, 3),
            }
        self._offsets[key] = self._journal.append(row)
        return row

    async def _patiently(self, call: Callable[[], Awaitable[Row]]) -> Row:
        """A refusal (4xx) is the call's result; whatever may pass is tried again."""
        for pause in (*self._pauses, None):
            self.made += 1
            try:
                return await call()
            except UpstreamRejected as error:
                if error.status not in _TRANSIENT_REJECTIONS:
                    return {"refused": {"status": error.status, "message": error.message}}
                if pause is None:
                    raise
            except UpstreamError:
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")


@dataclass(slots=True)
class Meter:
    """What one question cost in one arm, shared calls included."""

    cost: Cost = field(default_factory=Cost)
    shared: int = 0
    """Calls answered from disk."""
    seconds: float = 0.0
    """Sum of the times that its calls took when they were made."""

    def taken(self) -> Meter:
        """As it stands now."""
        return replace(self)

    def since(self, earlier: Meter) -> Row:
        """What was spent after that; empty for nothing."""
        cost, before = self.cost, earlier.cost
        if cost.calls == before.calls:
            return {}
        return {
            "calls": cost.calls - before.calls,
            "prompt_tokens": cost.prompt_tokens - before.prompt_tokens,
            "completion_tokens": cost.completion_tokens - before.completion_tokens,
            "model_seconds": round(self.seconds - earlier.seconds, 3),
        }


class MeteredBackend:
    """The `ChatBackend` of one scope of a `CallCache`."""

    def __init__(self, cache: CallCache, backend: ChatBackend, scope: str) -> None:
        self._cache = cache
        self._backend = backend
        self._scope = scope
        self._server: Row = {}
        """What tells its calls from those to the run's own server."""
        self.meter = Meter()

    def through(self, backend: ChatBackend, server: str) -> MeteredBackend:
        """For calls to another server, told from others by that name; they count as those of this
        one do."""
        other = MeteredBackend(self._cache, backend, self._scope)
        other._server = {"server": server}
        other.meter = self.meter
        return other

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        request = {
            "model": model,
            "messages": messages,
            "params": params,
            "logprobs": logprobs,
            **self._server,
        }

        async def call() -> Row:
            completion = await self._backend.complete(
                model, messages, params, background=background, logprobs=logprobs
            )
            return {"completion": _dump(completion)}

        return self._counted(await self._cache.fetch(request, call, scope=self._scope))[0]

    async def own(self, request: Row, made: Callable[[], Awaitable[Completion]]) -> Completion:
        """A call to some other service, journalled and counted like the rest."""

        async def call() -> Row:
            return {"completion": _dump(await made())}

        fetched = await self._cache.fetch(request, call, scope=self._scope, own=True)
        return self._counted(fetched)[0]

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        request = {
            "model": model,
            "messages": messages,
            "params": params,
            "schema": schema,
            **self._server,
        }

        async def call() -> Row:
            value, completion = await self._backend.structured(
                model, messages, schema, params, background=background
            )
            return {"completion": _dump(completion), "value": value}

        completion, row = self._counted(await self._cache.fetch(request, call, scope=self._scope))
        return row["value"], completion

    def _counted(self, fetched: tuple[Row, bool]) -> tuple[Completion, Row]:
        row, known = fetched
        self.meter.seconds += row["seconds"]
        self.meter.shared += known
        if "refused" in row:
            self.meter.cost += Cost(calls=1)
            raise UpstreamRejected(row["refused"]["message"], status=row["refused"]["status"])
        completion = _load(row["completion"])
        self.meter.cost += completion.cost
        return completion, row


def _dump(completion: Completion) -> Row:
    cost = completion.cost
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "reasoning": completion.reasoning,
        "logprobs": completion.logprobs,
        "cost": [cost.calls, cost.prompt_tokens, cost.completion_tokens],
    }


def _load(row: Row) -> Completion:
    logprobs = row["logprobs"]
    return Completion(
        text=row["text"],
        finish_reason=row["finish_reason"],
        reasoning=row["reasoning"],
        logprobs=None if logprobs is None else tuple(logprobs),
        cost=Cost(*row["cost"]),
    )
