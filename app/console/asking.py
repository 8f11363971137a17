"""The playground's two calls: one question answered as the service answers it, and by the model
alone, at the same time.

Both go the way of a client's requests (`ChatService`). The one with experience leaves an episode,
so that feedback on it teaches; it is drawn for no comparison, credited to no rule and not learned
from by itself (`ChatCall.playground`). The answer of the model alone is kept in that episode's
trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.access.callers import Caller
from app.access.tenants import tenant
from app.api.dependencies import reach, unknown_namespace
from app.chat.call import Answer, ChatCall
from app.chat.formats import Reading
from app.chat.request import TTCLOptions, parse_chat
from app.chat.service import CLIENT_GONE
from app.console.diff import Piece
from app.domain import json_text
from app.domain.trajectory import Message, Mode
from app.exceptions import InvalidRequest, NotAllowed, TTCLError
from app.upstream.capabilities import ModelInfo
from app.upstream.sse import StreamedAnswer, data_of
from app.upstream.wire import object_of
from app.wiring.container import AppState
from rules_store.models.keys import Permission

WITH, WITHOUT = "with", "without"
LONGEST_QUESTION = 20_000
LONGEST_SYSTEM = 20_000
TRACE = "playground"
"""Entry of the episode's trace."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What was asked. `model` empty: the first that the upstream has."""

    namespace: str
    question: str
    system: str = ""
    model: str = ""
    greedy: bool = True
    """At temperature 0, so that nothing but the experience makes a difference."""

    @property
    def messages(self) -> list[Message]:
        told = [{"role": "system", "content": self.system}] if self.system else []
        return [*told, {"role": "user", "content": self.question}]


@dataclass(slots=True)
class Outcome:
    """One of the two answers, as far as it has come."""

    text: str = ""
    error: str | None = None
    milliseconds: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def check(inquiry: Inquiry) -> None:
    """Raises `InvalidRequest`."""
    if not inquiry.question.strip():
        raise InvalidRequest("Ask something", param="question")
    for name, text, most in (
        ("question", inquiry.question, LONGEST_QUESTION),
        ("system", inquiry.system, LONGEST_SYSTEM),
    ):
        if len(text) > most:
            raise InvalidRequest(f"{name}: at most {most:,} characters", param=name)


class Asking:
    """Of one inquiry; `pieces` is read once. Afterwards `episode` is where it is all kept."""

    def __init__(self, state: AppState, caller: Caller, inquiry: Inquiry, calls: list[ChatCall]):
        self._state = state
        self._caller = caller
        self._inquiry = inquiry
        self._calls = calls
        self.outcomes = {WITH: Outcome(), WITHOUT: Outcome()}

    @property
    def episode(self) -> str:
        found = self._calls[0].episode
        assert found is not None, "the one with experience has one"
        return found

    @classmethod
    async def of(cls, state: AppState, caller: Caller, inquiry: Inquiry, request_id: str) -> Asking:
        """Raises `InvalidRequest`, `NotFound`, `NotAllowed` for a key that may neither ask nor
        write, `UpstreamError`."""
        check(inquiry)
        reach(caller, inquiry.namespace)
        if not (caller.may(Permission.CHAT) or caller.may(Permission.ADMIN_WRITE)):
            raise NotAllowed("This key may look, but not ask: it lacks the permission 'chat'")
        known = inquiry.namespace == state.settings.namespace
        if not (known or await state.store.namespaces.exists(inquiry.namespace)):
            raise unknown_namespace(inquiry.namespace)
        if inquiry.model:
            model = await state.upstream.resolve_model(inquiry.model)
        else:
            model = next(iter((await state.upstream.models()).values()))
        # Whether it teaches the person says, by feedback.
        learner = replace(caller, permissions=caller.permissions | {Permission.LEARN})
        calls = [
            _call(state, learner, inquiry, model, mode, request_id)
            for mode in (Mode.STEER, Mode.OFF)
        ]
        return cls(state, caller, inquiry, calls)

    async def pieces(self) -> AsyncGenerator[tuple[str, str]]:
        """(side, piece of its text) as they come, until both have ended and are kept. Raises
        `Overloaded`, `TooManyRequests`, StoreError. What fails on one side is its outcome."""
        tenant.set((self._caller.name, self._inquiry.namespace))
        leave = self._state.load.enter(self._caller.name)
        queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        tasks: list[asyncio.Task[None]] = []
        try:
            self._state.meter.admit(self._caller)
            for side, call in zip((WITH, WITHOUT), self._calls, strict=True):
                tasks.append(asyncio.create_task(self._answer(side, call, queue)))
            open_sides = len(tasks)
            while open_sides:
                piece = await queue.get()
                if piece is None:
                    open_sides -= 1
                else:
                    yield piece
            # What nobody foresaw is raised here.
            await asyncio.gather(*tasks)
            await self._keep()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            leave()

    async def _answer(
        self, side: str, call: ChatCall, queue: asyncio.Queue[tuple[str, str] | None]
    ) -> None:
        outcome = self.outcomes[side]
        try:
            await self._read(side, call, queue)
        except TTCLError as error:
            outcome.error = error.message
        finally:
            outcome.milliseconds = round(call.summary.milliseconds)
            queue.put_nowait(None)

    async def _read(
        self, side: str, call: ChatCall, queue: asyncio.Queue[tuple[str, str] | None]
    ) -> None:
        """Raises `TTCLError`."""
        outcome = self.outcomes[side]
        answer, cut = await self._state.service.answer(call)
        if isinstance(answer, Answer):
            _take_whole(outcome, answer)
            queue.put_nowait((side, outcome.text))
            return
        read, whole = StreamedAnswer(), False
        try:
            async for event in answer.events:
                data = data_of(event)
                if data is None or data == b"[DONE]":
                    continue
                seen = len(read.parts)
                read.read_event(data)
                if piece := "".join(read.parts[seen:]):
                    outcome.text += piece
                    queue.put_nowait((side, piece))
            whole = True
        finally:
            if not whole:
                cut(CLIENT_GONE)
            await answer.close()
        outcome.error = read.error
        outcome.prompt_tokens = read.cost.prompt_tokens or None
        outcome.completion_tokens = read.cost.completion_tokens or None

    async def _keep(self) -> None:
        inquiry = asdict(self._inquiry)
        answers = {side: asdict(outcome) for side, outcome in self.outcomes.items()}
        kept = {TRACE: {"asked": inquiry, "answers": answers}}
        await self._state.store.episodes.annotate(self.episode, kept)


def _call(
    state: AppState,
    caller: Caller,
    inquiry: Inquiry,
    model: ModelInfo,
    mode: Mode,
    request_id: str,
) -> ChatCall:
    body: dict[str, Any] = {
        "model": model.id,
        "messages": inquiry.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if inquiry.greedy:
        body["temperature"] = 0
    request, unread = parse_chat(body)
    return ChatCall(
        caller=caller,
        request=request,
        options=TTCLOptions(),
        unread=unread,
        body=body,
        reading=Reading(body),
        raw=json_text.dumps(body),
        verbatim=True,
        asked_model=model.id,
        model=model,
        mode=mode,
        namespace=inquiry.namespace,
        domain="default",
        limits=state.settings.limits(state.store.namespaces.settings_of(inquiry.namespace)),
        episode=None if mode is Mode.OFF else state.service.new_episode(),
        request_id=request_id,
        client_request_id=None,
        is_retry=False,
        playground=True,
    )


def _take_whole(outcome: Outcome, answer: Answer) -> None:
    """Of a model server that does not stream."""
    body = object_of(answer.content) or {}
    if answer.status >= 400 or "choices" not in body:
        said = body.get("error")
        told = said.get("message") if isinstance(said, dict) else said
        outcome.error = str(told or f"the model server answered {answer.status}")
        return
    read = StreamedAnswer()
    choices = [{**each, "delta": each.get("message") or {}} for each in body["choices"]]
    read.read_event(json_text.dumps({**body, "choices": choices}))
    outcome.text = read.text
    outcome.prompt_tokens = read.cost.prompt_tokens or None
    outcome.completion_tokens = read.cost.completion_tokens or None


@dataclass(frozen=True, slots=True)
class SentMessage:
    role: str
    pieces: list[Piece]
    """`changed`: put in by the service."""


def marked(sent: list[Message], own: list[Message]) -> list[SentMessage]:
    """What went to the model, told apart into what was asked and what was put in."""
    # From the end: an example may ask the very same question further up.
    left, found = own[::-1], []
    for message in reversed(sent):
        role, content = str(message.get("role")), message.get("content")
        text = content if isinstance(content, str) else json_text.dumps(content).decode()
        mine = next((m for m in left if m["role"] == role and m["content"] in text), None)
        pieces = [Piece(text, True)]
        if mine is not None:
            left.remove(mine)
            before, _, after = text.rpartition(mine["content"])
            parts = ((before, True), (mine["content"], False), (after, True))
            pieces = [Piece(part, put_in) for part, put_in in parts if part]
        found.append(SentMessage(role, pieces))
    return found[::-1]
