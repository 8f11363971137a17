"""The face of the package: a checked call in, an answer or an open stream out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.chat.call import Answer, ChatCall, SteeredRequest, Stream
from app.chat.finishing import Finisher
from app.chat.format_relay import FormatRelay
from app.chat.inline_exploration import InlineExploration
from app.chat.joining import JoinedRequests, Wanted
from app.chat.relay import Relay
from app.chat.steering import Steering
from app.domain.trajectory import Mode
from app.exceptions import TTCLError

CLIENT_GONE = "client_gone"
"""Why an answer was not finished."""


class ChatService:
    def __init__(
        self,
        steering: Steering,
        relay: Relay,
        format_relay: FormatRelay,
        exploration: InlineExploration,
        finisher: Finisher,
        joined: JoinedRequests,
    ) -> None:
        self._steering = steering
        self._relay = relay
        self._format_relay = format_relay
        self._exploration = exploration
        self._finisher = finisher
        self._joined = joined

    def new_episode(self) -> str:
        """Its id; a request has it before anything is done for it, so that all logs name it."""
        return self._steering.new_episode()

    async def answer(self, call: ChatCall) -> tuple[Answer | Stream, Callable[[str], None]]:
        """A whole answer or an open stream, and what is to be told why it ended before its end.
        Raises `TTCLError` for what fails before the first byte; cancelling it cancels every
        upstream call, unless others wait for the same answer or may come back for it."""
        steered: list[SteeredRequest] = []
        if call.joins is None:
            answer = await self._serve(call, steered)
        else:
            answer = await self._joined.answer(
                call.joins,
                call.caller.name,
                lambda wanted: self._explore(call, wanted),
                is_retry=call.says_retry,
            )

        def cut(reason: str) -> None:
            if steered and steered[0].episode is not None:
                self._finisher.abandon(call, steered[0], reason)

        return answer, cut

    async def _explore(self, call: ChatCall, wanted: Wanted) -> Answer:
        answer = await self._serve(call, [], wanted)
        assert isinstance(answer, Answer)  # a stream is joined by nobody
        return answer

    async def _serve(
        self, call: ChatCall, told: list[SteeredRequest], wanted: Wanted | None = None
    ) -> Answer | Stream:
        if call.mode is Mode.OFF:
            return await self._relay.answer(call, SteeredRequest(Mode.OFF))
        steered = await self._steering.steer(call)
        told.append(steered)
        try:
            if steered.mode is Mode.EXPLORE:
                return await self._exploration.answer(call, steered, wanted)
            relay = self._relay if call.format is None else self._format_relay
            return await relay.answer(call, steered)
        except asyncio.CancelledError:
            self._finisher.abandon(call, steered, CLIENT_GONE)
            raise
        except TTCLError as error:
            await self._finisher.failed(call, steered, f"upstream_error:{error.status}")
            raise
