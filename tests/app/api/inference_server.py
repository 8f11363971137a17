"""A model server with any path, which keeps what it was asked and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from tests.live import LiveServer


@dataclass
class Asked:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    aborted: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class Told:
    status: int = 200
    body: Any = field(default_factory=lambda: {"ok": True})
    """Bytes as they are; a list in pieces, of which None is silence for ever; else as JSON."""
    headers: list[tuple[str, str]] = field(
        default_factory=lambda: [("content-type", "application/json")]
    )
    pause: float = 0
    """Seconds after each piece."""

    @property
    def pieces(self) -> list[bytes | None]:
        if isinstance(self.body, list):
            return self.body
        return [self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)]


def streamed(*pieces: bytes | None) -> Told:
    return Told(body=[*pieces], headers=[("content-type", "text/event-stream")])


class InferenceServer:
    def __init__(self) -> None:
        self.history: list[Asked] = []
        self.answers: dict[str, Told | Callable[[Asked], Told]] = {}
        self.default = Told()
        self._server = LiveServer(self)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()

    @property
    def base_url(self) -> str:
        return f"{self._server.url}/v1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = scope["query_string"].decode()
        asked = Asked(
            scope["method"],
            scope["raw_path"].decode() + (f"?{query}" if query else ""),
            [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]],
            body,
        )
        self.history.append(asked)
        told = self.answers.get(scope["path"], self.default)
        told = told(asked) if callable(told) else told
        headers = [(name.encode(), value.encode()) for name, value in told.headers]
        await send({"type": "http.response.start", "status": told.status, "headers": headers})
        for piece in told.pieces:
            if piece is None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                asked.aborted = True
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(told.pause)
        await send({"type": "http.response.body", "body": b""})
