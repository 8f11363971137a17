"""Off and steer: the client's own request goes upstream, the answer comes back as it is made.

Off gives back what came: status, headers and bytes. Steer reads the answer, and so gives one that
can be read, or an error that says what came.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from app.access.metering import Charge, Meter, estimated_cost
from app.chat import response as rendered
from app.chat.call import Answer, ChatCall, SteeredRequest, Stream
from app.chat.finishing import Finisher
from app.chat.steering import Steering
from app.chat.system_role import SystemRole
from app.domain import json_text
from app.domain.trajectory import Cost, Mode
from app.exceptions import TTCLError, UpstreamError, UpstreamFailed, UpstreamUnavailable
from app.loop.loop import RULES_DROPPED
from app.loop.steer.injector import prompt_of
from app.observability.tracing import Span, set_attributes, set_cost, set_failed
from app.upstream.capabilities import is_context_overflow
from app.upstream.client import Upstream
from app.upstream.headers import to_client
from app.upstream.refusals import without_system
from app.upstream.sse import DONE, StreamedAnswer, data_of, frame, split_events
from app.upstream.transport import UpstreamResponse
from app.upstream.usage import said_in
from app.upstream.wire import (
    MOST_READ,
    NOT_READ,
    error_from,
    is_openai_error,
    made_characters,
    object_of,
    parse_usage,
    unreadable,
)

Headers = dict[str, str]


class Relay:
    def __init__(
        self, upstream: Upstream, steering: Steering, finisher: Finisher, meter: Meter
    ) -> None:
        self._upstream = upstream
        self._meter = meter
        self._steering = steering
        self._finisher = finisher

    async def answer(self, call: ChatCall, steered: SteeredRequest) -> Answer | Stream:
        """A stream where the upstream streams; it returns with the first event at hand: until then
        a failure is an HTTP status. Raises `TTCLError`."""
        bill = Charge(self._meter, call.caller)
        stack = AsyncExitStack()
        try:
            response = await self._open(call, steered, stack)
            headers = {**kept_headers(response, call), **steered.headers()}
            if response.status == 200 and response.is_stream:
                return await self._stream(call, steered, response, headers, bill, stack)
            answer = await self._whole(call, steered, response, headers, bill)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                # The model was at work, and how much it made nobody will tell.
                _pay(bill, call, Cost(), 0)
            await stack.aclose()
            raise
        await stack.aclose()
        return answer

    async def _whole(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        response: UpstreamResponse,
        headers: Headers,
        bill: Charge,
    ) -> Answer | Stream:
        content = await response.read()
        if len(content) > MOST_READ and not call.request.stream:
            return await self._unread(call, steered, response, content, headers, bill)
        body = object_of(content)
        if call.mode is Mode.OFF:
            return self._as_it_came(call, response, content, body, headers, bill)
        choice = _first_choice(body)
        if body is None or choice is None:
            raise unreadable(response.content_type, content)
        cost = parse_usage(body.get("usage"))
        set_cost(response.span, cost)
        _pay(bill, call, cost, _made(body))
        await self._finisher.answered(call, steered, _text(choice), cost, complete=True)
        body["ttcl"] = steered.told(call, cost)
        body["model"] = call.asked_model
        if call.request.stream:
            told = body["ttcl"] if call.wants_ttcl else None
            return rendered.stream_of(
                body, usage_chunk=call.wants_usage, told=told, headers=headers
            )
        return Answer(json_text.dumps(body), headers)

    async def _unread(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        response: UpstreamResponse,
        content: bytes,
        headers: Headers,
        bill: Charge,
    ) -> Answer:
        """One that is too long to be read goes out as it came, and nothing is learned from it."""
        cost = parse_usage((said_in(content) or {}).get("usage"))
        set_cost(response.span, cost)
        _pay(bill, call, cost, 0)
        if steered.episode is not None:
            self._steering.degrade(steered, NOT_READ)
            await self._finisher.answered(call, steered, "", cost, complete=False)
        return Answer(content, {**headers, **steered.headers()}, response.status)

    def _as_it_came(
        self,
        call: ChatCall,
        response: UpstreamResponse,
        content: bytes,
        body: dict[str, Any] | None,
        headers: Headers,
        bill: Charge,
    ) -> Answer:
        if body is None:
            raise unreadable(response.content_type, content)
        if response.status < 400:
            cost = parse_usage(body.get("usage"))
            set_cost(response.span, cost)
            _pay(bill, call, cost, _made(body))
            if call.asked_model != call.model.id and "model" in body:
                content = json_text.dumps({**body, "model": call.asked_model})
        return Answer(content, headers, response.status)

    async def _stream(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        response: UpstreamResponse,
        headers: Headers,
        bill: Charge,
        stack: AsyncExitStack,
    ) -> Stream:
        events, begun = await begun_events(response)
        relayed = self._relayed(call, steered, begun, bill, response.span)

        async def close() -> None:
            await relayed.aclose()
            _pay(bill, call, Cost(), 0)  # of events that nobody began to read
            await events.aclose()
            await stack.aclose()

        return Stream(relayed, headers, close)

    async def _open(
        self, call: ChatCall, steered: SteeredRequest, stack: AsyncExitStack
    ) -> UpstreamResponse:
        """An open 200 response, in mode off also one with an error in OpenAI's form. Where prompt
        and experience overflow the model's context, the experience gives way."""
        role = SystemRole(self._upstream.capabilities_of(call.model.id), call.messages)
        while True:
            body = self._body(call, steered, folded=role.folded)
            response = await stack.enter_async_context(self._upstream.open_chat(body))
            set_attributes(response.span, model=call.model.id)
            if await self._steering.settle(call, steered):
                await stack.aclose()  # asked with what must not be given, and asked again without
                continue
            if response.status == 200:
                if steered.experience:
                    role.taken()
                return response
            content = await response.read()
            if call.mode is Mode.OFF and is_openai_error(object_of(content)):
                return response
            error = error_from(response.status, content, response.retry_after)
            if steered.sent and role.fold(error):
                continue
            if not (steered.experience and is_context_overflow(error)):
                raise error
            steered.drop_experience()
            self._steering.degrade(steered, RULES_DROPPED)

    def _body(self, call: ChatCall, steered: SteeredRequest, *, folded: bool) -> bytes:
        if not steered.experience:
            return call.raw if call.verbatim else json_text.dumps(call.body)
        messages = self._steering.messages(call, steered)
        if folded:
            messages = steered.sent = without_system(messages)
        return json_text.dumps({**call.body, "messages": messages})

    async def _relayed(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        events: AsyncIterator[bytes],
        bill: Charge,
        asked: Span,
    ) -> AsyncGenerator[bytes]:
        """The upstream's events; the episode is durable before `[DONE]` goes out."""
        answer = StreamedAnswer()
        last: dict[str, Any] = {}
        try:
            async for event in events:
                data = data_of(event)
                if data == b"[DONE]":
                    answer.ended = True
                    break
                if data is not None:
                    chunk, event = _seen(event, data, answer, call)
                    if call.wants_ttcl and chunk.get("usage") and not chunk.get("choices"):
                        last = chunk
                        continue
                yield event
            if not answer.ended and answer.finish_reason is None and answer.error is None:
                raise UpstreamUnavailable("the model server cut the stream")
            answer.ended = True
        except TTCLError as error:
            answer.error = error.message
            set_failed(asked, type(error).__name__)
            yield frame(error.envelope())
        finally:
            # Also of a stream that its client left early.
            set_cost(asked, answer.cost)
            _pay(bill, call, answer.cost, answer.characters, whole=answer.ended)
        if steered.episode is not None:
            await self._finisher.answered(
                call, steered, answer.text, answer.cost, complete=answer.complete
            )
        if call.wants_ttcl and answer.error is None:
            yield frame({**(last or _last(answer, call)), "ttcl": steered.told(call, answer.cost)})
        yield DONE


def kept_headers(response: UpstreamResponse, call: ChatCall) -> Headers:
    """The model server's own, rate limits among them. Its request id is an answer's own only where
    the answer is."""
    off = call.mode is Mode.OFF
    return {
        name: value
        for name, value in to_client(response.headers, whole=False, own_id=off)
        if off or name != "content-type"
    }


def _pay(bill: Charge, call: ChatCall, cost: Cost, made: int, *, whole: bool = True) -> None:
    """The upstream's count where it tells one, which a stream does only if it is asked to, and
    surely of all its choices only at its end."""
    if whole and cost.tokens:
        call.summary.cost = cost
    if not bill.open:
        return
    if not (whole and cost.tokens):
        cost = max(cost, estimated_cost(prompt_of(call.messages), made), key=lambda c: c.tokens)
    bill.pay(cost)


def _last(answer: StreamedAnswer, call: ChatCall) -> dict[str, Any]:
    """A chunk behind the answer's own."""
    return {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": call.asked_model,
        "choices": [],
    }


def _seen(
    event: bytes, data: bytes, answer: StreamedAnswer, call: ChatCall
) -> tuple[dict[str, Any], bytes]:
    """Note what an event says, and give it for the client: as a chunk and in bytes, which stay the
    upstream's where that keeps to OpenAI's form and the model has no other name for the client.
    Raises `UpstreamError` for an error in it and for what can't be read; off passes both on."""
    off = call.mode is Mode.OFF
    try:
        chunk = answer.read_event(data)
    except UpstreamError:
        if off and answer.bounded:
            return {}, event
        raise
    if answer.error is not None:
        if off and is_openai_error(chunk):
            return chunk, event
        raise UpstreamFailed(answer.error, body=chunk)
    changes: dict[str, Any] = {}
    if call.asked_model != call.model.id and "model" in chunk:
        changes["model"] = call.asked_model
    # llama.cpp dates every chunk anew; one answer has one date.
    if "created" in chunk and chunk["created"] != answer.created:
        changes["created"] = answer.created
    # OpenAI's own chunks say `usage: null` until the last; vLLM's and llama.cpp's say nothing.
    if not off and call.wants_usage and "usage" not in chunk:
        changes["usage"] = None
    if not (changes or answer.mended):
        return chunk, event
    chunk = {**chunk, **changes}
    return chunk, frame(chunk)


async def begun_events(
    response: UpstreamResponse,
) -> tuple[AsyncGenerator[bytes], AsyncIterator[bytes]]:
    """The events of a stream, which are to be closed, and the same to be read, the first of them at
    hand: until then a failure is an HTTP status. Raises `UpstreamError`."""
    events = split_events(response.chunks())
    first = await anext(events, None)
    if first is None:
        raise UpstreamUnavailable("the model server closed the stream before its answer")
    return events, _chained(first, events)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item


def _first_choice(body: dict[str, Any] | None) -> dict[str, Any] | None:
    choices = (body or {}).get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _made(body: dict[str, Any]) -> int:
    """Characters of all choices."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        return 0
    return sum(made_characters(each.get("message")) for each in choices if isinstance(each, dict))


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
