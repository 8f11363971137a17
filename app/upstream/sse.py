"""Server-sent events: cutting a byte stream into events, and reading an answer out of them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.domain.trajectory import Cost
from app.exceptions import UpstreamError
from app.upstream.wire import made_characters, parse_usage

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
MAX_EVENT = 16 * 1024 * 1024
MAX_CHARACTERS = 16 * 1024 * 1024
"""Of one answer, all its choices together."""
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


async def split_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Whole events as they came, blank line included. A last piece without its blank line is
    dropped: it was cut. Raises `UpstreamError` for an event without end."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        start = 0
        for match in _END.finditer(buffer):
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
    return b"data: " + orjson.dumps(payload) + b"\n\n"


@dataclass(slots=True)
class StreamedAnswer:
    """What a stream has said so far: what is read is its first choice, what is counted all."""

    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    cost: Cost = field(default_factory=lambda: Cost(calls=1))
    characters: int = 0
    """All that was made: of every choice its text, reasoning and tool calls."""
    created: int | None = None
    """Of the first chunk that has a date."""
    begun: set[int] = field(default_factory=set)
    """Indices of the choices that have said something."""
    mended: bool = False
    """Whether the last event's chunk got the role that it should have had."""
    error: str | None = None
    ended: bool = False

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
        try:
            chunk: dict[str, Any] = orjson.loads(data)
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
        if chunk.get("usage"):
            self.cost = parse_usage(chunk["usage"])
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
            if isinstance(delta.get("content"), str):
                self.parts.append(delta["content"])
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if isinstance(thought, str):
                self.thoughts.append(thought)
            entries = (choice.get("logprobs") or {}).get("content")
            if isinstance(entries, list):
                self.logprobs += entries
            if choice.get("finish_reason"):
                self.finish_reason = choice["finish_reason"]
