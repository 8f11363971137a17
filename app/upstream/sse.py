"""Server-sent events: cutting a byte stream into events, and reading an answer out of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.exceptions import UpstreamError
from app.trajectory import Cost
from app.upstream.wire import parse_usage

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
MAX_EVENT = 16 * 1024 * 1024
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


async def split_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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
    """What a stream has said so far, of its first choice."""

    parts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    cost: Cost = Cost(calls=1)
    failed: bool = False
    ended: bool = False

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def complete(self) -> bool:
        return self.ended and not self.failed and self.finish_reason is not None

    def read(self, chunk: dict[str, Any]) -> None:
        """Take in one chunk; an odd shape is passed over, it is the client's to judge."""
        if "error" in chunk:
            self.failed = True
        if chunk.get("usage"):
            self.cost = parse_usage(chunk["usage"])
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return
        for choice in choices:
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                continue
            content = (choice.get("delta") or {}).get("content")
            if isinstance(content, str):
                self.parts.append(content)
            if choice.get("finish_reason"):
                self.finish_reason = choice["finish_reason"]
