"""A model server that answers at once, so that what is left is the gateway's own time. A stream
it sends in pieces, over about two seconds.

python -m benchmarks.serving.upstream --port 9000
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import typer
import uvicorn

MODEL = "instant"
PIECES = tuple(f"word{number} " for number in range(20))
PAUSE = 0.1
"""Seconds between two pieces of a stream."""

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
                "message": {"role": "assistant", "content": "The answer is \\boxed{4}."},
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


async def instant(
    scope: Event,
    receive: Callable[[], Awaitable[Event]],
    send: Callable[[Event], Awaitable[None]],
) -> None:
    """Plain ASGI: a framework here would be measured too."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/v1/chat/completions" and b'"stream":true' in body.replace(b" ", b""):
        await _stream(send)
        return
    reply = _REPLIES.get(scope["path"])
    headers = [(b"content-type", b"application/json")]
    if reply is not None:
        headers.append((b"content-length", str(len(reply)).encode()))
    status = 404 if reply is None else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reply or b""})


async def _stream(send: Callable[[Event], Awaitable[None]]) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for frame in _FRAMES:
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        await asyncio.sleep(PAUSE)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def main(port: int = 9000) -> None:
    uvicorn.run(
        instant, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off"
    )


if __name__ == "__main__":
    typer.run(main)
