"""A model server that answers at once, so that what is left is the gateway's own time. A stream
it sends in pieces. With `--delay` an answer takes that long: any number side by side, as on a
server that batches, or with `--serial` one after the other; with `--scatter` hardly two answers
are the same.

python -m benchmarks.serving.upstream --port 9000
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import typer
import uvicorn

MODEL = "instant"
ANSWER = "The answer is \\boxed{4}."
PIECES = tuple(f"word{number} " for number in range(20))

Event = MutableMapping[str, Any]

_ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-instant",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ANSWER},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29},
    }
)
_MODELS = orjson.dumps(
    {
        "object": "list",
        "data": [
            {
                "id": MODEL,
                "object": "model",
                "created": 0,
                "owned_by": "vllm",
                "max_model_len": 32768,
            }
        ],
    }
)


def _frame(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    frame = {
        "id": "chatcmpl-instant",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": MODEL,
        "choices": [choice],
    }
    return b"data: " + orjson.dumps(frame) + b"\n\n"


def _whole(said: str) -> list[bytes]:
    return [
        _frame({"role": "assistant", "content": said}, None),
        _frame({}, "stop") + b"data: [DONE]\n\n",
    ]


_FRAMES = [
    _frame({"role": "assistant", "content": ""}, None),
    *(_frame({"content": piece}, None) for piece in PIECES),
    _frame({}, "stop") + b"data: [DONE]\n\n",
]
_COUNT = orjson.dumps({"count": 30, "max_model_len": 32768, "tokens": []})
_REPLIES = {
    "/v1/chat/completions": _ANSWER,
    "/v1/models": _MODELS,
    "/tokenize": _COUNT,
    "/health": b"{}",
}


class Scripted:
    """Plain ASGI: a framework here would be measured too."""

    def __init__(self, pause: float, delay: float, serial: bool, scatter: bool) -> None:
        self._scatter = scatter
        self._pause = pause
        self._delay = delay
        self._turns = asyncio.Semaphore(1 if serial else 1_000_000)

    async def __call__(
        self,
        scope: Event,
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/chat/completions":
            if self._delay:
                await self._work(receive)
            if b'"stream":true' in body.replace(b" ", b""):
                await self._stream(send, self._said(body))
                return
        reply = _REPLIES.get(scope["path"])
        headers = [(b"content-type", b"application/json")]
        if reply is not None:
            headers.append((b"content-length", str(len(reply)).encode()))
        status = 404 if reply is None else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply or b""})

    async def _work(self, receive: Callable[[], Awaitable[Event]]) -> None:
        """Takes its time, unless the client leaves."""
        gone = asyncio.ensure_future(receive())
        try:
            async with self._turns:
                await asyncio.wait([gone], timeout=self._delay)
        finally:
            gone.cancel()

    def _said(self, body: bytes) -> str:
        return f"The answer is \\boxed{{{zlib.crc32(body)}}}." if self._scatter else ANSWER

    async def _stream(self, send: Callable[[Event], Awaitable[None]], said: str) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # A delay has said already how long an answer takes.
        frames = _whole(said) if self._delay else _FRAMES
        for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            if not self._delay:
                await asyncio.sleep(self._pause)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main(
    port: int = 9000,
    pause: float = 0.1,
    delay: float = 0.0,
    serial: bool = False,
    scatter: bool = False,
) -> None:
    """`pause`: seconds between two pieces of a stream."""
    app = Scripted(pause, delay, serial, scatter)
    uvicorn.run(
        app, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off"
    )


if __name__ == "__main__":
    typer.run(main)
