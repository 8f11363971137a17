"""A model server for measuring what the gateway and learning cost: it counts its calls and answers
by script, in pieces of a token each.

    python -m benchmarks.scaling.model --port 9000

A client's stream has as many pieces as its `max_tokens`. The loop's samples have `TOKENS`; they
agree on `EASY` of the questions, and on the others every answer is right by a coin. The Tutor's
wordings can be used, and the distiller writes rules that are admitted.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import typer
import uvicorn

from benchmarks.serving.material import rule

MODEL = "scripted"
TOKENS = 100
EASY = 0.25
CHARACTERS = 4
"""Of a token."""

Event = MutableMapping[str, Any]
Body = dict[str, Any]
Send = Callable[[Event], Awaitable[None]]


class Scripted:
    """Plain ASGI: a framework here would take CPU from what is measured."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._counts: Counter[str] = Counter()

    async def __call__(
        self, scope: Event, receive: Callable[[], Awaitable[Event]], send: Send
    ) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/chat/completions":
            await self._chat(orjson.loads(raw), send)
            return
        model = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 32768}
        known: dict[str, Body] = {
            "/v1/models": {"object": "list", "data": [model]},
            "/tokenize": {"count": 30, "max_model_len": 32768, "tokens": []},
            "/health": {},
            "/counts": dict(self._counts),
        }
        await _reply(send, known.get(scope["path"]))

    async def _chat(self, body: Body, send: Send) -> None:
        kind, pieces = _answer(body)
        said = sum(len(str(message["content"])) for message in body["messages"])
        usage = {
            "prompt_tokens": said // CHARACTERS,
            "completion_tokens": len(pieces),
            "total_tokens": said // CHARACTERS + len(pieces),
        }
        self._counts.update({"calls": 1, kind: 1, f"{kind}_tokens": len(pieces)})
        self._counts["prompt_tokens"] += usage["prompt_tokens"]
        self._counts[f"{kind}_prompt"] += usage["prompt_tokens"]
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            await _reply(send, {**_head("chat.completion"), "choices": [choice], "usage": usage})
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send(_frame(piece, None, bool(body.get("logprobs"))))
            await asyncio.sleep(float(body.get("pause", self._pause)))
        await send(_frame("", "stop", False))
        if (body.get("stream_options") or {}).get("include_usage"):
            await send(_event({**_head("chat.completion.chunk"), "choices": [], "usage": usage}))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _answer(body: Body) -> tuple[str, list[str]]:
    """Which role asks, and the pieces of its answer."""
    text = "\n".join(str(message["content"]) for message in body["messages"])
    shape = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
    properties = shape.get("properties", {})
    number = int((re.findall(r"order number (\d+)", text) or ["0"])[0])
    if "variants" in properties:
        asked = text[text.index("\n\n", text.index("Restate this")) + 2 :]
        count = properties["variants"].get("minItems", 1)
        wordings = [f"{'Once more. ' * (n + 1)}{asked}" for n in range(count)]
        return "tutor", _cut(orjson.dumps({"variants": wordings}).decode())
    if properties:
        advice, _ = rule(number)
        lot = "".join("bcdfghjklm"[int(digit)] + "a" for digit in str(number))
        said = re.sub(r"\d+", lot, advice).replace("When", "when")
        written = {
            "positive": f"It is important to look twice {said}"[:200].rstrip(",. ") + ".",
            "negative": f"It is a mistake to hurry {lot} {said}"[:200].rstrip(",. ") + ".",
            "trigger": f"questions about orders of {lot}",
        }
        return "distiller", _cut(orjson.dumps({k: written[k] for k in properties}).decode())
    if not body.get("logprobs") and body.get("max_tokens") and "boxed" not in text:
        return "client", ["word "] * int(body["max_tokens"])
    seed = hashlib.blake2b(orjson.dumps([text, body.get("seed"), body.get("temperature")]))
    dice = random.Random(seed.digest())
    easy = random.Random(number).random() < EASY
    value = 4 if easy or dice.random() < 0.5 else dice.randint(5, 7)
    return "sample", [*["word "] * (TOKENS - 1), f"\\boxed{{{value}}}"]


def _cut(text: str) -> list[str]:
    return [text[at : at + CHARACTERS] for at in range(0, len(text), CHARACTERS)]


def _head(kind: str) -> Body:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 0, "model": MODEL}


def _frame(piece: str, finish: str | None, logprobs: bool) -> Event:
    token = {"token": piece, "logprob": -0.3, "top_logprobs": []}
    choice = {
        "index": 0,
        "delta": {"content": piece} if finish is None else {},
        "logprobs": {"content": [token]} if logprobs else None,
        "finish_reason": finish,
    }
    return _event({**_head("chat.completion.chunk"), "choices": [choice]})


def _event(body: Body) -> Event:
    content = b"data: " + orjson.dumps(body) + b"\n\n"
    return {"type": "http.response.body", "body": content, "more_body": True}


async def _reply(send: Send, body: Body | None) -> None:
    headers = [(b"content-type", b"application/json")]
    status = 404 if body is None else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})


def main(port: int = 9000, pause: float = 0.002) -> None:
    """`pause`: seconds between two pieces of a stream."""
    app = Scripted(pause)
    uvicorn.run(
        app, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off"
    )


if __name__ == "__main__":
    typer.run(main)
