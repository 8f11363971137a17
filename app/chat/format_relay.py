"""Steer in another format than chat's: the client's request goes to the model server's own endpoint
of that format, with the experience in it; answer, events and ids stay what they are there.

What comes is read along the way. What can't be read is passed on: it is the client's to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

from app.access.metering import Charge, Meter
from app.chat.call import Answer, ChatCall, SteeredRequest, Stream
from app.chat.finishing import Finisher
from app.chat.formats import AnswerReader, ApiFormat, additions
from app.chat.formats.base import event as framed
from app.chat.formats.base import last_event
from app.chat.relay import begun_events, kept_headers
from app.chat.steering import Steering
from app.chat.system_role import SystemRole
from app.domain import json_text
from app.domain.trajectory import Cost
from app.exceptions import TTCLError, UpstreamUnavailable
from app.loop.loop import RULES_DROPPED
from app.observability.tracing import Span, set_attributes, set_cost, set_failed
from app.upstream.capabilities import is_context_overflow
from app.upstream.client import Upstream
from app.upstream.sse import data_of
from app.upstream.transport import UpstreamResponse
from app.upstream.usage import UsageReader, said_in
from app.upstream.wire import MOST_READ, NOT_READ, error_from, object_of

REFUSED = frozenset({400, 413, 422})
"""Statuses with which a server refuses what a request says."""
EXPERIENCE_REFUSED = "experience_refused"
"""A request was refused with the experience in it."""


class FormatRelay:
    def __init__(
        self, upstream: Upstream, steering: Steering, finisher: Finisher, meter: Meter
    ) -> None:
        self._upstream = upstream
        self._meter = meter
        self._steering = steering
        self._finisher = finisher

    async def answer(self, call: ChatCall, steered: SteeredRequest) -> Answer | Stream:
        """A stream where the upstream streams; whatever it refuses is the answer. Raises
        `TTCLError` where it can't be reached."""
        exchange = _Exchange(call, Charge(self._meter, call.caller))
        stack = AsyncExitStack()
        try:
            response = await self._open(call, steered, stack)
            headers = {**kept_headers(response, call), **steered.headers()}
            if response.status == 200 and response.is_stream:
                return await self._stream(exchange, steered, response, headers, stack)
            answer = await self._whole(exchange, steered, response, headers)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                # The model was at work, and how much it made nobody will tell.
                exchange.pay(whole=False)
            await stack.aclose()
            raise
        await stack.aclose()
        return answer

    async def _open(
        self, call: ChatCall, steered: SteeredRequest, stack: AsyncExitStack
    ) -> UpstreamResponse:
        """An open response. What is refused with the experience in it is asked again without, so
        that no client is refused for what it did not send; where the model has no role for it, it
        goes into the user's turn."""
        fmt = _format(call)
        role = SystemRole(self._upstream.capabilities_of(call.model.id), call.messages)
        dropped: str | None = None
        while True:
            body = self._body(call, steered, folded=role.folded)
            response = await stack.enter_async_context(self._upstream.open_chat(body, fmt.path))
            set_attributes(response.span, model=call.model.id)
            if await self._steering.settle(call, steered):
                await stack.aclose()  # asked with what must not be given, and asked again without
                continue
            if response.status not in REFUSED or not steered.experience:
                if response.status == 200:
                    if steered.experience:
                        role.taken()
                    if dropped is not None:
                        self._steering.degrade(steered, dropped)
                return response
            error = error_from(response.status, await response.read(), response.retry_after)
            if role.fold(error):
                continue
            steered.drop_experience()
            dropped = RULES_DROPPED if is_context_overflow(error) else EXPERIENCE_REFUSED

    def _body(self, call: ChatCall, steered: SteeredRequest, *, folded: bool) -> bytes:
        if not steered.experience:
            return call.raw if call.verbatim else json_text.dumps(call.body)
        given = additions(
            self._steering.insertion(call, steered),
            in_question=call.in_question,
            folded=folded,
        )
        return json_text.dumps(_format(call).add(call.body, given))

    async def _whole(
        self,
        exchange: _Exchange,
        steered: SteeredRequest,
        response: UpstreamResponse,
        headers: dict[str, str],
    ) -> Answer | Stream:
        call = exchange.call
        content = await response.read()
        as_it_came = Answer(content, _typed(headers, response), response.status)
        if response.status != 200:
            await self._finisher.failed(call, steered, f"upstream_error:{response.status}")
            return as_it_came
        body = None
        if len(content) > MOST_READ:
            self._steering.degrade(steered, NOT_READ)
            as_it_came.headers.update(steered.headers())
            exchange.usage.note(said_in(content))
        elif (body := object_of(content)) is not None:
            exchange.usage.note(body)
            exchange.reader.read_whole(body)
        cost = exchange.pay(whole=True)
        set_cost(response.span, cost)
        complete = body is not None and exchange.reader.complete
        text = exchange.reader.text
        await self._finisher.answered(call, steered, text, cost, complete=complete)
        if body is None:
            return as_it_came
        if call.asked_model != call.model.id:
            body["model"] = call.asked_model
        if call.request.stream:
            shown = steered.told(call, cost) if call.wants_ttcl else None
            return _stream_of(_format(call).events(body), shown, headers)
        return Answer(json_text.dumps({**body, "ttcl": steered.told(call, cost)}), headers)

    async def _stream(
        self,
        exchange: _Exchange,
        steered: SteeredRequest,
        response: UpstreamResponse,
        headers: dict[str, str],
        stack: AsyncExitStack,
    ) -> Stream:
        events, begun = await begun_events(response)
        relayed = self._relayed(exchange, steered, begun, response.span)

        async def close() -> None:
            await relayed.aclose()
            exchange.pay(whole=False)  # of events that nobody began to read
            await events.aclose()
            await stack.aclose()

        return Stream(relayed, headers, close)

    async def _relayed(
        self,
        exchange: _Exchange,
        steered: SteeredRequest,
        events: AsyncIterator[bytes],
        asked: Span,
    ) -> AsyncGenerator[bytes]:
        """The upstream's events; the episode is durable before the last of them goes out."""
        reader, failure, durable = exchange.reader, None, False
        try:
            async for event in events:
                said, changes = exchange.read(event)
                if reader.ended and not durable:
                    durable = True
                    cost = await self._answered(exchange, steered, complete=reader.complete)
                    if said and exchange.call.wants_ttcl:
                        changes["ttcl"] = steered.told(exchange.call, cost)
                yield framed({**said, **changes}) if changes and "type" in said else event
            if not reader.ended:
                raise UpstreamUnavailable("the model server cut the stream")
        except TTCLError as error:
            set_failed(asked, type(error).__name__)
            failure = reader.failure(error)
        finally:
            # Also of a stream that its client left early.
            set_cost(asked, exchange.pay(whole=reader.ended))
        if not durable:
            await self._answered(exchange, steered, complete=False)
        if failure is not None:
            yield failure

    async def _answered(
        self, exchange: _Exchange, steered: SteeredRequest, *, complete: bool
    ) -> Cost:
        cost = exchange.cost(whole=complete)
        text = exchange.reader.text
        await self._finisher.answered(exchange.call, steered, text, cost, complete=complete)
        return cost


class _Exchange:
    """One request and what has been read of its answer."""

    def __init__(self, call: ChatCall, bill: Charge) -> None:
        self.call = call
        self.reader: AnswerReader = _format(call).reader()
        self.usage = UsageReader()
        self._bill = bill

    def read(self, event: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """What an event says, and what is to be changed of it: mostly nothing, so that its bytes
        stay the upstream's. Raises `UpstreamError` where there is no end to them."""
        data = data_of(event)
        if data == b"[DONE]":
            self.reader.ended = True
        said = None if data is None else object_of(data)
        if said is None:
            return {}, {}
        self.usage.note(said)
        changes = self.reader.read_event(said)
        if self.call.asked_model != self.call.model.id:
            changes |= {
                name: {**value, "model": self.call.asked_model}
                for name, value in said.items()
                if name in ("response", "message") and isinstance(value, dict) and "model" in value
            }
        return said, changes

    def cost(self, *, whole: bool) -> Cost:
        return self.usage.cost(self.call.raw, whole=whole)

    def pay(self, *, whole: bool) -> Cost:
        cost = self.cost(whole=whole)
        self._bill.pay(cost)
        return cost


def _format(call: ChatCall) -> ApiFormat:
    assert call.format is not None
    return call.format


def _typed(headers: dict[str, str], response: UpstreamResponse) -> dict[str, str]:
    return {**headers, "Content-Type": response.content_type}


def _stream_of(events: Iterator[dict[str, Any]], told: Any, headers: dict[str, str]) -> Stream:
    """The events of a whole answer as the stream that the client asked for."""
    *first, last = events

    async def framed_events() -> AsyncGenerator[bytes]:
        for payload in first:
            yield framed(payload)
        yield last_event(last, told)

    made = framed_events()
    return Stream(made, headers, made.aclose)
