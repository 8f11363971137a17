"""Off and steer: the client's own request goes upstream, the answer comes back as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import orjson

from app.access.metering import Charge, Meter, estimated_cost
from app.chat.call import Answer, ChatCall, SteeredRequest, Stream
from app.chat.finishing import Finisher
from app.chat.steering import Steering
from app.domain.trajectory import Cost, Mode
from app.exceptions import TTCLError, UpstreamError, UpstreamUnavailable
from app.loop.loop import RULES_DROPPED
from app.loop.steer.injector import prompt_of
from app.observability.tracing import Span, set_attributes, set_cost, set_failed
from app.upstream.capabilities import is_context_overflow
from app.upstream.client import Upstream
from app.upstream.sse import DONE, StreamedAnswer, data_of, frame, split_events
from app.upstream.transport import UpstreamResponse
from app.upstream.wire import error_from, made_characters, parse_usage


class Relay:
    def __init__(
        self, upstream: Upstream, steering: Steering, finisher: Finisher, meter: Meter
    ) -> None:
        self._upstream = upstream
        self._meter = meter
        self._steering = steering
        self._finisher = finisher

    async def whole(self, call: ChatCall, steered: SteeredRequest) -> Answer:
        """Raises `TTCLError`."""
        bill = Charge(self._meter, call.caller)
        try:
            async with AsyncExitStack() as stack:
                response = await self._open(call, steered, stack)
                content = await response.read()
                body = _completion(content)
                cost = parse_usage(body.get("usage"))
                set_cost(response.span, cost)
        except asyncio.CancelledError:
            # The model was at work, and how much it made nobody will tell.
            _pay(bill, call, Cost(), 0)
            raise
        choice = body["choices"][0]
        _pay(bill, call, cost, _made(body))
        if steered.episode is not None:
            await self._finisher.answered(
                call, steered, _text(choice), cost, complete=choice.get("finish_reason") is not None
            )
            body["ttcl"] = steered.told(call, cost)
        if steered.episode is not None or call.asked_model != call.model.id:
            body["model"] = call.asked_model
            content = orjson.dumps(body)
        return Answer(content, steered.headers())

    async def stream(self, call: ChatCall, steered: SteeredRequest) -> Stream:
        """Returns with the first event at hand: until then a failure is an HTTP status."""
        bill = Charge(self._meter, call.caller)
        stack = AsyncExitStack()
        try:
            response = await self._open(call, steered, stack)
            events = split_events(response.chunks())
            first = await anext(events, None)
            if first is None:
                raise UpstreamUnavailable("the model server closed the stream before its answer")
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                _pay(bill, call, Cost(), 0)
            await stack.aclose()
            raise
        relayed = self._relayed(call, steered, first, events, bill, response.span)

        async def close() -> None:
            await relayed.aclose()
            _pay(bill, call, Cost(), 0)  # of events that nobody began to read
            await events.aclose()
            await stack.aclose()

        return Stream(relayed, steered.headers(), close)

    async def _open(
        self, call: ChatCall, steered: SteeredRequest, stack: AsyncExitStack
    ) -> UpstreamResponse:
        """An open 200 response. Where prompt and experience overflow the model's context, the
        experience gives way."""
        while True:
            body = self._body(call, steered)
            response = await stack.enter_async_context(self._upstream.open_chat(body))
            set_attributes(response.span, model=call.model.id)
            if response.status == 200:
                return response
            content = await response.read()
            error = error_from(response.status, content, response.retry_after)
            if not (steered.experience and is_context_overflow(error)):
                raise error
            steered.drop_experience()
            self._steering.degrade(steered, RULES_DROPPED)

    def _body(self, call: ChatCall, steered: SteeredRequest) -> bytes:
        if not steered.experience:
            return call.raw if call.verbatim else orjson.dumps(call.body)
        return orjson.dumps({**call.body, "messages": self._steering.messages(call, steered)})

    async def _relayed(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        first: bytes,
        events: AsyncIterator[bytes],
        bill: Charge,
        asked: Span,
    ) -> AsyncGenerator[bytes]:
        """The upstream's events; the episode is durable before `[DONE]` goes out."""
        answer = StreamedAnswer()
        try:
            async for event in _chain(first, events):
                data = data_of(event)
                if data == b"[DONE]":
                    answer.ended = True
                    break
                yield event if data is None else _seen(event, data, answer, call)
            if not answer.ended and answer.finish_reason is None:
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
        yield DONE


def _pay(bill: Charge, call: ChatCall, cost: Cost, made: int, *, whole: bool = True) -> None:
    """The upstream's count where it tells one, which a stream does only if it is asked to, and
    surely of all its choices only at its end."""
    if not bill.open:
        return
    if not (whole and cost.tokens):
        cost = max(cost, estimated_cost(prompt_of(call.messages), made), key=lambda c: c.tokens)
    bill.pay(cost)


def _seen(event: bytes, data: bytes, answer: StreamedAnswer, call: ChatCall) -> bytes:
    """Note what an event says. Its bytes stay the upstream's where that keeps to OpenAI's form and
    the model has no other name for the client. Raises `UpstreamError`, also for an error in it."""
    chunk = answer.read_event(data)
    if answer.error is not None:
        raise UpstreamError(answer.error)
    changes: dict[str, Any] = {}
    if call.asked_model != call.model.id and "model" in chunk:
        changes["model"] = call.asked_model
    # llama.cpp dates every chunk anew; one answer has one date.
    if "created" in chunk and chunk["created"] != answer.created:
        changes["created"] = answer.created
    # OpenAI's own chunks say `usage: null` until the last; vLLM's and llama.cpp's say nothing.
    if call.mode is not Mode.OFF and call.wants_usage and "usage" not in chunk:
        changes["usage"] = None
    return frame({**chunk, **changes}) if changes or answer.mended else event


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item


def _completion(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
        if isinstance(body["choices"][0], dict):
            return body  # type: ignore[no-any-return]
    except (ValueError, KeyError, IndexError, TypeError):
        pass
    raise UpstreamError("the model server's answer can't be read")


def _made(body: dict[str, Any]) -> int:
    """Characters of all choices."""
    choices = (choice for choice in body["choices"] if isinstance(choice, dict))
    return sum(made_characters(choice.get("message")) for choice in choices)


def _text(choice: dict[str, Any]) -> str:
    content = (choice.get("message") or {}).get("content")
    return content if isinstance(content, str) else ""
