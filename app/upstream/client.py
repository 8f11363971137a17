"""The network to the model server, behind one class.

Two ways in: `open_chat` relays a client's own request (bytes in, a streaming response out), and
`complete` / `structured` make the loop's calls. Both retry once, and only while nothing has been
answered: a refused or dropped connection, or 502/503/504. A cancelled caller closes its connection,
which is what makes vLLM and llama.cpp abort the generation.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import asynccontextmanager
from typing import Any

from app.domain import json_text
from app.domain.tokens import CHARACTERS_PER_TOKEN
from app.domain.trajectory import Cost, Message
from app.exceptions import (
    ModelNotFound,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.observability.tracing import set_attributes, set_cost
from app.upstream.call_limiter import CallLimiter
from app.upstream.capabilities import (
    LIMIT,
    OTHER_LIMIT,
    SYSTEM_ROLE,
    TOKENIZER,
    Capabilities,
    ModelInfo,
    is_context_overflow,
    without_patterns,
)
from app.upstream.refusals import (
    has_system,
    is_plain,
    refused_field,
    refuses_system_role,
    without_system,
)
from app.upstream.sse import Merged, StreamedAnswer, data_of, split_events
from app.upstream.transport import Transport, UpstreamResponse, forwarded_query
from app.upstream.types import Completion, LoopParams
from app.upstream.usage import text_characters
from app.upstream.wire import (
    error_from,
    object_of,
    parse_completion,
    parse_object,
    token_logprobs,
    unreadable,
)

CHAT = "/chat/completions"
MODELS_TTL = 30.0
MODELS_TIMEOUT = 10.0
OVER_LIMIT = 64
LONG_TOKEN = 24
"""An answer is cut here once it has so many events more than tokens were allowed, and so many
characters for each of those: some servers send pieces smaller than a token."""
THINKING_ROOM = 4096
"""Tokens that a model which thinks gets beside the limit that the loop set for its answer."""
BLIND_STATUS = 422
"""Of frameworks that refuse unknown fields without naming one in a way that can be read."""
SAMPLING = frozenset({"temperature", "top_p", "seed", LIMIT, OTHER_LIMIT, "logprobs"})
NOT_THERE = (404, 405, 501)
"""With which servers say that they have no such path."""
SHORT_TEXT = 500
"""Characters of a text that any tokenizer takes."""
BACKGROUND_PRIORITY = 10
"""vLLM serves lower values first; a client's request has 0."""


class Upstream:
    """Client of one OpenAI-compatible server. `base_url` ends in /v1.

    `availability` returns a sentence while the server is known to be down (the embedded engine
    that is starting, say), else None: such a request fails at once with 503.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 5.0,
        gate: CallLimiter | None = None,
        availability: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._transport = Transport(
            base_url,
            api_key=api_key,
            timeout=timeout,
            connect_timeout=connect_timeout,
            availability=availability,
        )
        self._root = base_url.removesuffix("/v1")
        self._only_model = model
        self._models: dict[str, ModelInfo] = {}
        self._models_at = float("-inf")
        self._models_lock = asyncio.Lock()
        self.gate = gate or CallLimiter(1)
        self.capabilities: dict[str, Capabilities] = {}
        """What each model turned out to be able to do, by its id."""

    def capabilities_of(self, model: str) -> Capabilities:
        return self.capabilities.setdefault(model, Capabilities())

    async def close(self) -> None:
        await self._transport.close()

    # --- what is served

    async def models(self) -> dict[str, ModelInfo]:
        """Models by id, asked anew after half a minute. Raises `UpstreamError`."""
        if time.monotonic() - self._models_at < MODELS_TTL and self._models:
            return self._models
        return await self._refresh_models()

    async def resolve_model(self, name: str) -> ModelInfo:
        """The upstream's model of that name. Raises `ModelNotFound`, `UpstreamError`."""
        known = self._models.get(name)
        if known is not None and time.monotonic() - self._models_at < MODELS_TTL:
            return known
        try:
            models = await self._refresh_models()
        except UpstreamError:
            # The list is old but the name was good: let the request itself tell what is wrong.
            if known is not None:
                return known
            raise
        if name not in models:
            raise ModelNotFound(f"The model '{name}' does not exist", param="model")
        return models[name]

    def unlisted(self, name: str) -> ModelInfo:
        """A model by the name that a request gives it, whether it is listed or not. Raises
        `ModelNotFound` where another one is all that is exposed."""
        if self._only_model is not None and name not in ("", self._only_model):
            raise ModelNotFound(f"The model '{name}' does not exist", param="model")
        return ModelInfo(name, "upstream", 0, None)

    async def _refresh_models(self) -> dict[str, ModelInfo]:
        async with self._models_lock:
            if time.monotonic() - self._models_at < 1.0 and self._models:
                return self._models
            self._models = await self._listed()
            self._models_at = time.monotonic()
            # llama.cpp often closes a kept-alive connection after a stream, without a word.
            self._transport.drops_connections = any(
                m.owned_by == "llamacpp" for m in self._models.values()
            )
            return self._models

    async def _listed(self) -> dict[str, ModelInfo]:
        """What the server lists; where that can't be read, the model that was named."""
        only = self._only_model
        try:
            return ModelInfo.parse_list(await self._list_models(), only)
        except (UpstreamUnavailable, UpstreamTimeout):
            raise
        except UpstreamError as error:
            # 401: it is the key that is wrong.
            if only is None or error.status == 401:
                raise
        return {only: ModelInfo(only, "upstream", 0, None)}

    async def _list_models(self) -> bytes:
        try:
            async with asyncio.timeout(MODELS_TIMEOUT):
                response = await self._transport.send("GET", "/models", None, stream=False)
                try:
                    content = await response.read()
                finally:
                    response.close()
        except TimeoutError:
            raise UpstreamTimeout("the model server did not list its models in time") from None
        if response.status != 200:
            raise error_from(response.status, content, response.retry_after)
        return content

    # --- relaying a client's request

    @asynccontextmanager
    async def open_chat(self, body: bytes, path: str = CHAT) -> AsyncIterator[UpstreamResponse]:
        """Send a chat request, or one in the format of another `path`, as it is; yields the
        response with its body unread, whatever its status. Leaving the block closes the connection.
        Raises `UpstreamError`."""
        async with self.gate.foreground():
            query = forwarded_query.get()
            response = await self._transport.send("POST", path, body, stream=True, query=query)
            try:
                yield response
            finally:
                response.close()

    async def forward(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> UpstreamResponse:
        """A client's own request to any path of the server: see `Transport.forward`. Learning
        gives way to it until the answer begins."""
        async with self.gate.foreground():
            return await self._transport.forward(method, target, body, headers)

    async def answer_to(
        self, path: str, body: dict[str, Any], *, added: Mapping[str, Any], plain: bool
    ) -> dict[str, Any]:
        """The whole answer to a client's request in the format of `path`. Of the `added` fields,
        the loop's own, those that the model refuses are left out, as in `complete`: from now on
        where what the client sent is `plain`, else this time. Raises `UpstreamError`."""
        caps = self.capabilities_of(str(body.get("model")))
        without: set[str] = set()
        while True:
            ours = {k: v for k, v in added.items() if k not in without and not caps.refuses(k)}
            async with self.open_chat(json_text.dumps({**body, **ours}), path) as response:
                content = await response.read()
                status, after = response.status, response.retry_after
                kind = response.content_type
            if status != 200:
                error = error_from(status, content, after)
                field = refused_field(error, set(ours))
                if field is None:
                    raise error
                without.add(field)
                continue
            if plain:
                for name in without:
                    caps.refuse(name)
            answer = object_of(content)
            if answer is None:
                raise unreadable(kind, content)
            return answer

    # --- the loop's own calls (ChatBackend)

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        caps = self.capabilities_of(model)
        # Streamed, and put together here: llama.cpp notices a caller's end only on a stream.
        body = {**params, "model": model, "messages": messages, "stream": True}
        given = params if isinstance(params, LoopParams) else LoopParams(params, added=())
        added, plain = set(given.added), is_plain({name: params[name] for name in given.sent})
        body["stream_options"] = {"include_usage": True}
        added.add("stream_options")
        if logprobs:
            if not body.get("logprobs"):
                added |= {"logprobs"} if "top_logprobs" in body else {"logprobs", "top_logprobs"}
            body["logprobs"] = True
            # llama.cpp: without a number come 20 alternatives a token, with 0 nothing at all.
            body.setdefault("top_logprobs", 1)
        if background and await self._schedules(model):
            body["priority"] = BACKGROUND_PRIORITY
            added.add("priority")
        completion = await self._roomy(body, added, caps, plain=plain, background=background)
        if completion.logprobs is not None:
            caps.note_logprobs(True)
        elif "logprobs" in body and completion.text and plain:
            caps.note_logprobs(False)
        return completion

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        """Tries the schema, then the schema without patterns, then the prompt alone; what works
        is remembered. A fault of the server costs one more try, without patterns. The answer goes
        through a tolerant parser in every case."""
        caps = self.capabilities_of(model)
        fault: UpstreamError | None = None
        refused: list[int] = []
        level = caps.schema_level
        while True:
            asked = LoopParams(params, added=params, sent=params.keys() - SAMPLING)
            if level > 0:
                sent = schema if level == 2 else without_patterns(schema)
                asked["response_format"] = {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": sent, "strict": True},
                }
            try:
                completion = await self.complete(model, messages, asked, background=background)
            except UpstreamRejected as error:
                if level == 0 or error.status not in (400, 422) or is_context_overflow(error):
                    raise
                refused.append(level)
                level -= 1
                continue
            except (UpstreamUnavailable, UpstreamTimeout):
                raise
            except UpstreamError as error:
                # vLLM's grammar engine fails on some patterns, now and then: once more without.
                if level < 2 or fault is not None:
                    raise fault or error from None
                fault, level = error, 1
                continue
            for each in refused:
                caps.refuse_schema(each)
            if fault is not None:
                cost = completion.cost + Cost(calls=1)
                completion = dataclasses.replace(completion, cost=cost)
            return parse_object(completion.text, schema), completion

    async def count_tokens(self, model: str, text: str, *, seconds: float = 1.0) -> int | None:
        """Tokens of a text by the upstream's own tokenizer; None when it offers none."""
        caps = self.capabilities_of(model)
        if caps.tokenizer is False:
            return None
        # vLLM reads `prompt`, llama.cpp reads `content`.
        ask = {"model": model, "prompt": text, "content": text, "add_special_tokens": False}
        try:
            response = await self._transport.post(f"{self._root}/tokenize", ask, seconds)
            if response.status != 200:
                # A long text may be what it refuses, and not what there is none for.
                if response.status in NOT_THERE or len(text) <= SHORT_TEXT:
                    caps.refuse(TOKENIZER)
                return None
            answer = json_text.loads(await response.read())
            count = int(answer.get("count", len(answer.get("tokens") or [])))
        except (UpstreamError, ValueError, AttributeError, TypeError):
            return None
        if count <= 0 < len(text):
            return None  # llama.cpp's answer to a shape that it does not know
        caps.note_tokenizer()
        return count

    # --- below: how a call is made

    async def _schedules(self, model: str) -> bool:
        """Whether the server is a vLLM, the only one known to read `priority`."""
        try:
            info = (await self.models()).get(model)
        except UpstreamError:
            return False
        return info is not None and info.owned_by == "vllm"

    async def _roomy(
        self,
        body: dict[str, Any],
        added: set[str],
        caps: Capabilities,
        *,
        plain: bool,
        background: bool,
    ) -> Completion:
        """One call, with room to think where the loop's own limit would leave none: at once for a
        model that thought the last time, else after its answer was cut before it began. One that
        only a prompt made think is soon found not to."""
        limit = body.get(LIMIT)
        if LIMIT not in added or not isinstance(limit, int):
            return await self._tolerant(body, added, caps, plain=plain, background=background)
        roomy = {**body, LIMIT: limit + THINKING_ROOM}
        if caps.thinks:
            roomed = await self._tolerant(roomy, added, caps, plain=plain, background=background)
            caps.thinks = roomed.thought
            return roomed
        completion = await self._tolerant(body, added, caps, plain=plain, background=background)
        if not completion.spent_on_thinking:
            return completion
        caps.thinks = True
        again = await self._tolerant(roomy, added, caps, plain=plain, background=background)
        return dataclasses.replace(again, cost=completion.cost + again.cost)

    async def _tolerant(
        self,
        body: dict[str, Any],
        added: set[str],
        caps: Capabilities,
        *,
        plain: bool,
        background: bool,
    ) -> Completion:
        """One call. What the model refuses of the fields that the loop `added` is left out, and so
        is its system role: from now on, once it has answered without them, and where nothing that
        the client sent can have been the cause (`plain`); else this time."""
        without: set[str] = set()
        blind: UpstreamFailed | None = None
        ours = {*added, OTHER_LIMIT} if LIMIT in added else added
        while True:
            sent = _without(body, added, without | caps.refused())
            try:
                completion = await self._call(sent, background=background)
            except UpstreamFailed as error:
                if blind is not None:
                    raise blind from None
                droppable = ours & sent.keys()
                field = refused_field(error, _alike(droppable))
                if field is not None:
                    without.add(field)
                elif refuses_system_role(error) and has_system(sent["messages"]):
                    without.add(SYSTEM_ROLE)
                elif error.status == BLIND_STATUS and droppable & SAMPLING:
                    # It says nothing of which: without all of them, or not at all.
                    without |= droppable | (ours & {LIMIT, OTHER_LIMIT})
                    blind = error
                else:
                    raise
                continue
            if plain:
                for name in without:
                    caps.refuse(name)
            return completion

    async def _call(self, body: dict[str, Any], *, background: bool) -> Completion:
        payload = json_text.dumps(body)
        async with self.gate.background() if background else self.gate.foreground():
            response = await self._transport.send(
                "POST", CHAT, payload, stream=True, query=forwarded_query.get()
            )
            try:
                if response.status != 200:
                    content = await response.read()
                    raise error_from(response.status, content, response.retry_after)
                if response.is_stream:
                    completion = await self._assembled(response, body)
                else:
                    completion = parse_completion(await response.read(), response.content_type)
                    if not completion.cost.tokens:
                        made = len(completion.text) + len(completion.reasoning or "")
                        cost = _estimated(body, made)
                        completion = dataclasses.replace(completion, cost=cost)
                set_attributes(response.span, model=body["model"])
                set_cost(response.span, completion.cost)
                return completion
            finally:
                response.close()

    async def _assembled(self, response: UpstreamResponse, body: dict[str, Any]) -> Completion:
        answer = StreamedAnswer(raw=Merged())
        limit = _limit_of(body)
        ended = False
        async for event in split_events(response.chunks()):
            data = data_of(event)
            if data == b"[DONE]":
                ended = True
                break
            if data is not None:
                answer.read_event(data)
            if answer.error is not None:
                raise UpstreamError(answer.error)
            if answer.events > limit + OVER_LIMIT and answer.characters > limit * LONG_TOKEN:
                answer.finish_reason = "length"  # as the server should have said itself
                break
        if answer.finish_reason is None and not (ended and answer.begun):
            raise UpstreamUnavailable("the model server cut its answer")
        raw = {"content": answer.logprobs} if answer.logprobs else None
        return Completion(
            text=answer.text,
            finish_reason=answer.finish_reason or "stop",
            reasoning=answer.reasoning,
            logprobs=token_logprobs(raw),
            raw_logprobs=raw,
            raw=answer.raw.whole() if answer.raw else None,
            cost=answer.cost if answer.cost.tokens else _estimated(body, answer.characters),
        )


def _without(body: dict[str, Any], added: set[str], refused: set[str]) -> dict[str, Any]:
    """The body less what is refused of what the loop `added`."""
    sent = {name: value for name, value in body.items() if name not in added & refused}
    if LIMIT in added & refused and OTHER_LIMIT not in refused:
        sent[OTHER_LIMIT] = body[LIMIT]
    if "logprobs" in added & refused:
        sent.pop("top_logprobs", None)
    if SYSTEM_ROLE in refused:
        sent["messages"] = without_system(sent["messages"])
    return sent


def _alike(names: Set[str]) -> set[str]:
    """What a refusal may name: of log-probabilities either field."""
    return {"logprobs" if name == "top_logprobs" else name for name in names}


def _limit_of(body: dict[str, Any]) -> float:
    """Most tokens of the answer; some write that there is no limit as -1."""
    limit = body.get(OTHER_LIMIT) or body.get(LIMIT)
    return limit if isinstance(limit, int | float) and limit > 0 else math.inf


def _estimated(body: dict[str, Any], made: int) -> Cost:
    """What a call cost whose answer does not tell; `made` in characters."""
    asked = text_characters([each.get("content") for each in body["messages"]])
    return Cost(1, asked // CHARACTERS_PER_TOKEN, math.ceil(made / CHARACTERS_PER_TOKEN))
