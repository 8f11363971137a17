"""The scripted model server of benchmarks and tests, in plain ASGI: a framework would be measured
too.

    python -m benchmarks.model_server --port 9000 --pause 0.1

`ModelServer` answers what every model server does; a subclass says how it chats. `Instant` answers
at once or after a set time, `Obedient` lets its distiller write the rules that an attacker wants,
and the tests have one that also fails in every way (tests/fakes.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import typer
import uvicorn

Event = MutableMapping[str, Any]
Body = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

DIMENSION = 384
_START_SECONDS = 30.0


class ModelServer:
    """An ASGI app with the endpoints of vLLM that the gateway asks. `chat` is the subclass's."""

    model = "scripted"

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        if self.chats_at(scope["path"]):
            await self.chat(scope, raw, receive, send)
        else:
            status, body = self.reply(scope, raw)
            await respond(send, orjson.dumps(body), status)

    def chats_at(self, path: str) -> bool:
        return path == "/v1/chat/completions"

    async def chat(self, scope: Event, raw: bytes, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    def reply(self, scope: Event, raw: bytes) -> tuple[int, Any]:
        """Status and JSON body of any other endpoint."""
        path = scope["path"]
        if path == "/v1/embeddings":
            return 200, embeddings(orjson.loads(raw))
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "vllm"}
        known: dict[str, Body] = {
            "/v1/models": {"object": "list", "data": [{**model, "max_model_len": 32768}]},
            "/tokenize": {"count": 30, "max_model_len": 32768, "tokens": []},
            "/health": {},
        }
        return (200, known[path]) if path in known else (404, {})


async def respond(send: Send, content: bytes, status: int = 200) -> None:
    length = str(len(content)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def completion(model: str, text: str, usage: tuple[int, int], logprob: float | None = None) -> Body:
    """A whole answer. `usage`: tokens of prompt and answer; `logprob`: of each of its words."""
    words: list[Body] = [{"token": w, "logprob": logprob, "top_logprobs": []} for w in text.split()]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": None if logprob is None else {"content": words},
    }
    prompt, answer = usage
    return {
        **_head(model, "chat.completion"),
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        },
    }


def frame(model: str, delta: dict[str, str], finish: str | None = None) -> bytes:
    """One server-sent event of a streamed answer; the last one says that it is done."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {**_head(model, "chat.completion.chunk"), "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n" + (b"data: [DONE]\n\n" if finish else b"")


def _head(model: str, kind: str) -> Body:
    return {"id": f"chatcmpl-{model}", "object": kind, "created": 0, "model": model}


def bag_of_words(texts: Sequence[str], dimension: int = DIMENSION) -> np.ndarray:
    """Words hashed to unit vectors: texts that share words are near, and nothing is loaded.
    Shape (len(texts), dimension), float32."""
    rows = np.zeros((len(texts), dimension), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()) or [""]:
            # Several signed places a word, so that no two words ever fall together.
            places = np.frombuffer(hashlib.blake2b(word.encode()).digest(), dtype="<u4")
            np.add.at(row, (places >> 1) % dimension, np.where(places & 1, 0.25, -0.25))
        row /= np.linalg.norm(row)
    return rows


def embeddings(body: Body) -> Body:
    """The answer of `/v1/embeddings`, by `bag_of_words`."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "index": index, "embedding": row.tolist()}
        for index, row in enumerate(bag_of_words(texts))
    ]
    return {"object": "list", "data": data, "model": body.get("model")}


class Instant(ModelServer):
    """Answers at once, so that what is left is the gateway's own time; a stream it sends in 20
    pieces, or as many as the request's `pieces` says, `pause` seconds between two.

    With `delay` an answer takes that long: any number side by side, as on a server that batches, or
    with `serial` one after the other; with `scatter` hardly two answers are the same.
    """

    model = "instant"
    answer = "The answer is \\boxed{4}."
    pieces = tuple(f"word{number} " for number in range(20))

    def __init__(
        self,
        pause: float = 0.1,
        delay: float = 0.0,
        serial: bool = False,
        scatter: bool = False,
    ) -> None:
        self._pause = pause
        self._delay = delay
        self._scatter = scatter
        self._turns = asyncio.Semaphore(1 if serial else 1_000_000)
        self._whole = orjson.dumps(completion(self.model, self.answer, (20, 9)))
        self._frames = self._pieces(self.pieces)

    async def chat(self, scope: Event, raw: bytes, receive: Receive, send: Send) -> None:
        if self._delay:
            await self._work(receive)
        if b'"stream":true' in raw.replace(b" ", b""):
            await self._stream(raw, send)
        else:
            await respond(send, self._whole)

    async def _work(self, receive: Receive) -> None:
        """Takes its time, unless the client leaves."""
        gone = asyncio.ensure_future(receive())
        try:
            async with self._turns:
                await asyncio.wait([gone], timeout=self._delay)
        finally:
            gone.cancel()

    async def _stream(self, raw: bytes, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in self._said(raw):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not self._delay:
                await asyncio.sleep(self._pause)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _said(self, raw: bytes) -> list[bytes]:
        if self._delay:  # which has said already how long an answer takes
            said = f"The answer is \\boxed{{{zlib.crc32(raw)}}}." if self._scatter else self.answer
            return [frame(self.model, {"role": "assistant", "content": said}), *self._frames[-1:]]
        wanted = re.search(rb'"pieces": ?(\d+)', raw)
        return self._pieces(["word "] * int(wanted[1])) if wanted else self._frames

    def _pieces(self, pieces: Sequence[str]) -> list[bytes]:
        """The frames of a stream."""
        return [
            frame(self.model, {"role": "assistant", "content": ""}),
            *(frame(self.model, {"content": piece}) for piece in pieces),
            frame(self.model, {}, "stop"),
        ]


class Obedient(ModelServer):
    """Its distiller obeys the attacker: it writes exactly the rules that are wanted, whatever its
    prompt and the schema say. The other answers are plain and disagree, so that every request
    teaches."""

    model = "obedient"

    def __init__(self) -> None:
        self.port = 0
        """Known while it is served; see `serving`."""
        self.obey({})

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def obey(self, wants: Mapping[str, str]) -> None:
        """The rules that the distiller writes next, by their polarity."""
        self._wants, self._students = dict(wants), 0
        self.prompt = self.distiller_prompt = ""
        """Texts of the last distiller's call and of the last one that was no structured step."""

    async def chat(self, scope: Event, raw: bytes, receive: Receive, send: Send) -> None:
        text = self._text(orjson.loads(raw))
        usage = (20, len(text.split()))
        await respond(send, orjson.dumps(completion(self.model, text, usage, logprob=-0.5)))

    def _text(self, body: Body) -> str:
        said = "\n".join(str(message.get("content")) for message in body["messages"])
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
        properties = schema.get("properties", {})
        if "positive" in properties:
            self.distiller_prompt = said
            return orjson.dumps(self._wants).decode()
        if properties:
            return orjson.dumps({"variants": []}).decode()
        self.prompt = said
        if body.get("temperature"):
            self._students += 1
            if self._students == 2:
                return "I see it otherwise, so it is \\boxed{hazel}."
        return "Step by step that gives \\boxed{walnut}."


@contextmanager
def serving(app: Obedient) -> Iterator[Obedient]:
    """Serves on 127.0.0.1 in a thread of this process, so that its script can be changed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app.port = listener.getsockname()[1]
        server = uvicorn.Server(_config(app, app.port))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not server.started:
            if time.monotonic() > deadline:
                raise RuntimeError("the scripted model server did not start")
            time.sleep(0.01)
        try:
            yield app
        finally:
            server.should_exit = True
            thread.join(_START_SECONDS)


def _config(app: ModelServer, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        interface="asgi3",
        log_level="warning",
        access_log=False,
        lifespan="off",
    )


def main(
    port: int = 9000,
    pause: float = 0.1,
    delay: float = 0.0,
    serial: bool = False,
    scatter: bool = False,
) -> None:
    """`pause`: seconds between two pieces of a stream."""
    uvicorn.Server(_config(Instant(pause, delay, serial, scatter), port)).run()


if __name__ == "__main__":
    typer.run(main)
