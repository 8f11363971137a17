"""Server-sent events: cutting a byte stream into events, and reading an answer out of them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from app.domain import json_text
from app.domain.trajectory import Cost, RawAnswer
from app.exceptions import UpstreamError, UpstreamTimeout
from app.upstream.wire import made_characters, parse_usage

DONE = b"data: [DONE]\n\n"
PING = b": ping\n"
"""A comment without an empty line: that would end an event, which some clients then read as one
without data (openai-go before 3.43)."""
MAX_EVENT = 16 * 1024 * 1024
MAX_CHARACTERS = 16 * 1024 * 1024
"""Of one answer, all its choices together."""
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_END = 4
_SAID = re.compile(rb"[\r\n][^:\r\n]")
"""The beginning of a line that is no comment."""


async def heard(
    chunks: AsyncIterator[bytes], patience: float, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[bytes]:
    """A stream's chunks as they come. Raises `UpstreamTimeout` where for `patience` seconds of
    waiting nothing comes but comments and empty lines."""
    waited, last, since = 0.0, b"\n", clock()
    async for chunk in chunks:
        waited = 0.0 if _SAID.search(last + chunk) else waited + clock() - since
        if waited > patience:
            raise UpstreamTimeout("the model server sent nothing but comments")
        last = chunk[-1:]
        yield chunk
        since = clock()


async def split_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Whole events as they came, blank line included. A last piece without its blank line is
    dropped: it was cut. Raises `UpstreamError` for an event without end."""
    buffer = b""
    async for chunk in chunks:
        # An end may lie across two chunks.
        unseen = max(0, len(buffer) - _LONGEST_END + 1)
        buffer += chunk
        start = 0
        for match in _END.finditer(buffer, unseen):
            yield buffer[start : match.end()]
            start = match.end()
        buffer = buffer[start:]
        if len(buffer) > MAX_EVENT:
            raise UpstreamError("the model server sent an event without end")


def data_of(event: bytes) -> bytes | None:
    """The joined `data:` lines of an event; None for a comment."""
    if event.startswith(b"data: ") and event.count(b"\n", 0, -2) == 0:
        return event[6:].strip()  # the common case: one line
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def frame(payload: dict[str, Any]) -> bytes:
    return b"data: " + json_text.dumps(payload) + b"\n\n"


class _Text(list[str]):
    """Pieces of one text."""


_SAID_ONCE = ("role", "type", "id", "name", "index")
_OF_A_CHUNK = ("id", "object", "created", "model", "choices", "usage", "error")
_OF_A_CHOICE = ("index", "delta", "message", "logprobs", "finish_reason")


@dataclass(slots=True)
class Merged:
    """The whole that the pieces of a stream are of, whatever its fields: texts are joined, numbered
    items put in their places, and of anything else the last word holds."""

    message: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)

    def take(self, chunk: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> None:
        _merge(self.message, delta)
        self.choice.update({k: v for k, v in choice.items() if k not in _OF_A_CHOICE})
        self.body.update({k: v for k, v in chunk.items() if k not in _OF_A_CHUNK})

    def whole(self) -> RawAnswer:
        return RawAnswer(_joined(self.message), self.choice, self.body, self.usage)


def _merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        known = into.get(name)
        if isinstance(value, str) and name not in _SAID_ONCE:
            if isinstance(known, _Text):
                known.append(value)
            else:
                into[name] = _Text([value])
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = into[name] = {}
            _merge(known, value)
        elif isinstance(value, list):
            if not isinstance(known, list):
                known = into[name] = []
            for item in value:
                _merge_item(known, item)
        elif value is not None or known is None:
            into[name] = value


def _merge_item(known: list[Any], item: Any) -> None:
    if not isinstance(item, dict):
        known.append(item)
        return
    same = (each for each in known if "index" in item and each.get("index") == item["index"])
    found = next(same, None)
    if found is None:
        found = {}
        known.append(found)
    _merge(found, item)


def _joined(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(each) for name, each in value.items()}
    return [_joined(each) for each in value] if isinstance(value, list) else value


@dataclass(slots=True)
class StreamedAnswer:
    """What a stream has said so far: what is read is its first choice, what is counted all."""

    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    cost: Cost = field(default_factory=lambda: Cost(calls=1))
    events: int = 0
    characters: int = 0
    """All that was made: of every choice its text, reasoning and tool calls."""
    created: int | None = None
    """Of the first chunk that has a date."""
    id: Any = None
    """Of the first chunk that has one."""
    begun: set[int] = field(default_factory=set)
    """Indices of the choices that have said something."""
    mended: bool = False
    """Whether the last event's chunk got the role that it should have had."""
    error: str | None = None
    ended: bool = False
    raw: Merged | None = None
    """Where all that is said of the first choice is put together; None: nowhere."""

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def reasoning(self) -> str | None:
        return "".join(self.thoughts) or None

    @property
    def complete(self) -> bool:
        """Some end it without a word of why."""
        return self.ended and self.error is None

    @property
    def bounded(self) -> bool:
        return self.characters <= MAX_CHARACTERS

    def read_event(self, data: bytes) -> dict[str, Any]:
        """Take in one event's data; returns the chunk, in which a choice begins with its role.
        Raises `UpstreamError` for what is no chunk, and where there is no end to them."""
        self.mended = False
        self.events += 1
        try:
            chunk: dict[str, Any] = json_text.loads_lenient(data)
            self._read(chunk)
        except (ValueError, TypeError, AttributeError) as error:
            raise UpstreamError("the model server sent an event that can't be read") from error
        if not self.bounded:
            raise UpstreamError("the model server's answer has no end")
        return chunk

    def _read(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            failure = chunk["error"]
            said = failure.get("message") if isinstance(failure, dict) else failure
            self.error = str(said or "the model server failed in the middle of its answer")
        if self.created is None:
            self.created = chunk.get("created")
        if self.id is None:
            self.id = chunk.get("id")
        if chunk.get("usage"):
            self.cost = parse_usage(chunk["usage"])
            if self.raw is not None and isinstance(chunk["usage"], dict):
                self.raw.usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            index = choice.get("index", 0)
            if index not in self.begun:
                self.begun.add(index)
                # llama.cpp leaves it out where its first token is part of a character.
                if not delta.get("role"):
                    choice["delta"] = {"role": "assistant", **delta}
                    self.mended = True
            self.characters += made_characters(delta)
            if index != 0:
                continue
            if self.raw is not None:
                self.raw.take(chunk, choice, delta)
            if isinstance(delta.get("content"), str):
                self.parts.append(delta["content"])
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if isinstance(thought, str):
                self.thoughts.append(thought)
            entries = (choice.get("logprobs") or {}).get("content")
            if isinstance(entries, list):
                self.logprobs += entries
            if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
                self.finish_reason = choice["finish_reason"]
