"""Stand-ins for the model server and the embedding model, scripted and with a memory.

    with ScriptedUpstream() as upstream:
        upstream.when(is_tutor, Reply.of_json({"variants": ["a", "b"]}))
        upstream.enqueue(Reply("first"), Reply(fault=Fault.CUT, after=2))
        ...  # point a client at upstream.base_url
        assert upstream.chats[0].body["temperature"] == 0

A request is answered by the first `when` that matches it, else by the queue, else by `default`;
a structured call that nobody scripted gets a smallest value of its schema.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from benchmarks.model_server import ModelServer, bag_of_words, embeddings
from tests.chat_endpoint import ChatEndpoint
from tests.format_wires import WIRES, as_chat
from tests.live import LiveServer
from tests.replies import (
    CREATED,
    Body,
    Fault,
    Reply,
    Script,
    instance_of,
    prompt_tokens,
    text_of,
    tokens_of,
)

__all__ = [
    "Call",
    "Fault",
    "HashEmbedder",
    "Reply",
    "ScriptedUpstream",
    "instance_of",
    "is_distiller",
    "is_structured_step",
    "is_student",
    "is_teacher",
    "is_tutor",
    "schema_of",
    "text_of",
    "tokens_of",
]


@dataclass
class Call:
    """One request as it arrived. Times are `time.monotonic()` seconds, None while not reached."""

    path: str
    headers: dict[str, str]
    raw: bytes
    body: Body
    started: float
    finished: float | None = None
    aborted: float | None = None
    """When the client went away before the answer was complete."""

    @property
    def asked(self) -> Body:
        """The body in chat's terms, whatever its format."""
        return as_chat(self.path, self.body)

    @property
    def text(self) -> str:
        return text_of(self.asked)

    @property
    def open(self) -> bool:
        return self.finished is None and self.aborted is None


def schema_of(body: Body) -> Body | None:
    """The JSON schema that a structured call asks for."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") != "json_schema":
        return None
    schema = (wanted.get("json_schema") or {}).get("schema")
    return schema if isinstance(schema, dict) else None


def is_distiller(body: Body) -> bool:
    return "positive" in ((schema_of(body) or {}).get("properties") or {})


def is_tutor(body: Body) -> bool:
    """A structured call for a list."""
    properties = ((schema_of(body) or {}).get("properties") or {}).values()
    return any(p.get("type") == "array" for p in properties)


def is_student(body: Body) -> bool:
    return not is_structured_step(body) and body.get("temperature") == 0.7


def is_teacher(body: Body) -> bool:
    return not is_structured_step(body) and body.get("temperature") == 0


def is_structured_step(body: Body) -> bool:
    """A Tutor's or a distiller's call, whatever it samples with."""
    return is_tutor(body) or is_distiller(body)


class ScriptedUpstream(ModelServer):
    """A model server that speaks the OpenAI chat API as vLLM does, on a real port."""

    def __init__(self, *, models: Sequence[str] = ("scripted-model",)) -> None:
        self.models = list(models)
        self.owned_by = "vllm"
        self.max_model_len: int | None = 8192
        self.tokenizes = True
        self.token_answers: list[Any] = []
        """What /tokenize says next, instead of the count."""
        self.healthy = True
        self.formats = True
        """Whether it serves `/v1/responses` and `/v1/messages`."""
        self.lax = False
        """Whether it answers anything with `default`, whatever the types of its fields."""
        self.api_key: str | None = None
        self.null_usage = True
        """Whether chunks before the usage chunk carry `usage: null` (OpenAI) or nothing (vLLM)."""
        self.default = Reply()
        self.history: list[Call] = []
        self._rules: list[tuple[Callable[[Body], bool], Callable[[Body], Reply]]] = []
        self._queue: deque[Reply] = deque()
        self._lock = threading.Lock()
        self._chat = ChatEndpoint(self)
        self._server = LiveServer(self)

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()

    def down(self) -> None:
        """Stops listening, so that connections are refused, until `up()`; the port is kept."""
        self._server.stop()

    def up(self) -> None:
        if not self._server.running:
            self._server.start()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    # -- script --------------------------------------------------------------------------------

    def enqueue(self, *replies: Reply) -> None:
        with self._lock:
            self._queue.extend(replies)

    def when(self, condition: str | Callable[[Body], bool], reply: Script) -> None:
        """Answers requests that fit with `reply`: one Reply, a list used up in order (its last
        one stays), or a function of the body. A string fits when it is in the messages' text."""
        if isinstance(condition, str):
            needle = condition
            fits: Callable[[Body], bool] = lambda body: needle in text_of(body)  # noqa: E731
        else:
            fits = condition
        self._rules.append((fits, _as_function(reply)))

    def reset(self) -> None:
        """Forgets script and history, keeps port and switches."""
        with self._lock:
            self._rules, self._queue, self.history = [], deque(), []
            self.default = Reply()

    def reply_to(self, body: Body) -> Reply:
        with self._lock:
            for fits, make in self._rules:
                if fits(body):
                    return make(body)
            if self._queue:
                return self._queue.popleft()
        schema = schema_of(body)
        if schema is not None:
            return Reply.of_json(instance_of(schema))
        if (body.get("response_format") or {}).get("type") == "json_object":
            return Reply.of_json({"answer": 4})
        return self.default

    # -- memory --------------------------------------------------------------------------------

    @property
    def chats(self) -> list[Call]:
        return [call for call in self.history if call.path.endswith("/chat/completions")]

    @property
    def formatted(self) -> list[Call]:
        """Calls in other formats."""
        return [call for call in self.history if call.path in WIRES]

    async def until(self, condition: Callable[[], object], within: float = 5.0) -> None:
        """Waits until `condition()` holds; AssertionError after `within` seconds."""
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"not within {within} s; {self._summary()}"
            await asyncio.sleep(0.005)

    async def settled(self, within: float = 5.0) -> None:
        """Waits until no chat call is open."""
        await self.until(lambda: not any(call.open for call in self.chats), within)

    def _summary(self) -> str:
        chats = self.chats
        open_calls, aborted = sum(c.open for c in chats), sum(c.aborted is not None for c in chats)
        return f"{len(chats)} chat calls, {open_calls} open, {aborted} aborted"

    def record(self, scope: Any, raw: bytes) -> Call:
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = {}
        call = Call(
            path=scope["path"],
            headers={name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
            raw=raw,
            body=body if isinstance(body, dict) else {},
            started=time.monotonic(),
        )
        self.history.append(call)
        return call

    # -- the endpoints -------------------------------------------------------------------------

    def chats_at(self, path: str) -> bool:
        return super().chats_at(path) or (self.formats and path in WIRES)

    async def chat(self, scope: Any, raw: bytes, receive: Any, send: Any) -> None:
        await self._chat(self.record(scope, raw), scope, receive, send)

    def reply(self, scope: Any, raw: bytes) -> tuple[int, Any]:
        call = self.record(scope, raw)
        call.finished = time.monotonic()
        if call.path == "/v1/models":
            return 200, {"object": "list", "data": [self._model(name) for name in self.models]}
        if call.path == "/tokenize" and self.tokenizes:
            return 200, self.token_answers.pop(0) if self.token_answers else self._tokens(call.body)
        if call.path == "/v1/embeddings":
            return 200, embeddings(call.body)
        if call.path == "/health":
            return 200 if self.healthy else 503, {}
        return 404, {"detail": "Not Found"}

    def _model(self, name: str) -> Body:
        limit = {"max_model_len": self.max_model_len} if self.max_model_len else {}
        known = {"id": name, "object": "model", "created": CREATED, "owned_by": self.owned_by}
        return {**known, **limit}

    def _tokens(self, body: Body) -> Body:
        prompt = len(tokens_of(body.get("prompt") or ""))
        count = prompt_tokens(body) if "messages" in body else prompt
        return {"count": count, "max_model_len": self.max_model_len, "tokens": [*range(count)]}

    # -- what a model server refuses -----------------------------------------------------------

    def refusal(self, call: Call) -> Reply | None:
        """vLLM's own 401, 404 and 400, in its words."""
        if self.api_key and call.headers.get("authorization") != f"Bearer {self.api_key}":
            return Reply(status=401, body={"error": "Unauthorized"})
        model = call.body.get("model")
        if model not in self.models:
            message = f"The model `{model}` does not exist."
            return Reply.error(404, message, type="NotFoundError", param="model")
        asked = call.asked
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or 0
        used = prompt_tokens(asked)
        if self.max_model_len and used + limit > self.max_model_len:
            message = (
                f"This model's maximum context length is {self.max_model_len} tokens. However, "
                f"you requested {limit} output tokens and your prompt contains {used} input tokens."
            )
            return Reply.error(400, message, param="input_tokens")
        return None

    def drop(self, scope: Any) -> None:
        self._server.drop(scope["client"])


def _as_function(reply: Script) -> Callable[[Body], Reply]:
    if isinstance(reply, Reply):
        return lambda body: reply
    if callable(reply):
        return reply
    left = deque(reply)
    return lambda body: left.popleft() if len(left) > 1 else left[0]


class HashEmbedder:
    """Bag of words hashed to unit vectors: texts that share words are near, and nothing is loaded.

    `failure` is raised, `delay` seconds are waited, `hang` waits for ever; all can be switched
    while it is in use.
    """

    def __init__(self, name: str = "hash-384", dimension: int = 384) -> None:
        self.name = name
        self.dimension: int | None = dimension
        self.ready = True
        self.failure: Exception | None = None
        self.delay = 0.0
        self.hang = False
        self.probes = 0
        self.history: list[list[str]] = []

    def forget(self) -> None:
        pass

    async def embed_anew(self, texts: Sequence[str]) -> np.ndarray:
        """As `embed`, but counted apart: probes come whenever they come."""
        self.probes += 1
        return await self._made(texts)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (len(texts), dimension), float32, each row of length one."""
        self.history.append(list(texts))
        return await self._made(texts)

    async def _made(self, texts: Sequence[str]) -> np.ndarray:
        if self.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        assert self.dimension is not None
        return bag_of_words(texts, self.dimension)
