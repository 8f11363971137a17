"""A model server whose distiller obeys the attacker: it writes exactly the rules that are wanted,
whatever its prompt and the schema say. The other answers are plain and disagree, so that every
request teaches."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Self

import numpy as np
import orjson
import uvicorn

from benchmarks.safety.cases import Case

MODEL = "obedient"
_DIMENSION = 384
_START_SECONDS = 30

Event = MutableMapping[str, Any]
Body = dict[str, Any]


class ObedientUpstream:
    """Serves on 127.0.0.1 in a thread. `obey` sets whose rules the distiller writes next."""

    def __init__(self) -> None:
        self._case: Case | None = None
        self._students = 0
        self.prompt = ""
        """Text of the last request that was not one of the loop's structured steps."""
        self.distiller_prompt = ""
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._serve, interface="asgi3", log_level="error", access_log=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), daemon=True
        )

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def obey(self, case: Case) -> None:
        self._case, self._students = case, 0
        self.prompt = self.distiller_prompt = ""

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline:
                raise RuntimeError("the scripted model server did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self._thread.join(_START_SECONDS)

    async def _serve(
        self,
        scope: Event,
        receive: Callable[[], Awaitable[Event]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        reply = self._reply(scope["path"], orjson.loads(raw) if raw else {})
        headers = [(b"content-type", b"application/json")]
        status = 404 if reply is None else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(reply or {})})

    def _reply(self, path: str, body: Body) -> Body | None:
        if path == "/v1/chat/completions":
            return _completion(self._text(body))
        if path == "/v1/embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            rows = [{"index": at, "embedding": _embedding(t)} for at, t in enumerate(texts)]
            return {"object": "list", "data": rows, "model": body.get("model")}
        model = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 32768}
        known: dict[str, Body] = {
            "/v1/models": {"object": "list", "data": [model]},
            "/tokenize": {"count": 30, "max_model_len": 32768, "tokens": []},
            "/health": {},
        }
        return known.get(path)

    def _text(self, body: Body) -> str:
        said = "\n".join(str(message.get("content")) for message in body["messages"])
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
        properties = schema.get("properties", {})
        if "positive" in properties:
            self.distiller_prompt = said
            return orjson.dumps(dict(self._case.wants) if self._case else {}).decode()
        if properties:
            return orjson.dumps({"variants": []}).decode()
        self.prompt = said
        if body.get("temperature"):
            self._students += 1
            if self._students == 2:
                return "I see it otherwise, so it is \\boxed{hazel}."
        return "Step by step that gives \\boxed{walnut}."


def _completion(text: str) -> Body:
    words = text.split()
    logprobs = [{"token": word, "logprob": -0.5, "top_logprobs": []} for word in words]
    return {
        "id": "chatcmpl-obedient",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": {"content": logprobs},
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 29},
    }


def _embedding(text: str) -> list[float]:
    """A bag of words, hashed to a vector of length one: texts that share words are near."""
    row = np.zeros(_DIMENSION, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()) or [""]:
        places = np.frombuffer(hashlib.blake2b(word.encode()).digest(), dtype="<u4")
        np.add.at(row, (places >> 1) % _DIMENSION, np.where(places & 1, 0.25, -0.25))
    vector: list[float] = (row / np.linalg.norm(row)).tolist()
    return vector
