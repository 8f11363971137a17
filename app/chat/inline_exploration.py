"""Explore mode: the whole loop in the client's path, and the selected answer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import partial
from typing import Any

from app.access.metering import Meter, estimated_cost
from app.chat import response
from app.chat.call import Answer, ChatCall, SteeredRequest, Stream, observe
from app.chat.finishing import Finisher
from app.chat.formats import ApiFormat
from app.chat.formats.base import event, last_event
from app.chat.joining import Wanted
from app.chat.steering import Steering
from app.chat.teacher import FormatTeacher
from app.domain import json_text
from app.domain.trajectory import Role, Trajectory
from app.exceptions import TTCLError, UpstreamTimeout
from app.loop.effort_planner import EffortPlanner
from app.loop.explore.exploration import AskTeacher, RunningCost
from app.loop.explore.explorer import CUT_SHORT
from app.loop.explore.forms import boxes, unboxed
from app.loop.loop import RULES_DROPPED, Exploration, Loop
from app.loop.steer.injector import prompt_of
from app.upstream.client import Upstream
from app.upstream.sse import DONE, PING, frame

PING_EVERY = 10.0
"""Seconds between pings while the loop runs."""
FIRST_PING = 0.5
"""Seconds in which a failing exploration can still become an HTTP status."""


class InlineExploration:
    def __init__(
        self,
        loop: Loop,
        planner: EffortPlanner,
        steering: Steering,
        finisher: Finisher,
        meter: Meter,
        patience: float,
        upstream: Upstream,
    ) -> None:
        """`patience`: seconds after which one that is not streamed waits for the Teacher alone.
        `upstream` answers Teachers in other formats than chat's."""
        self._upstream = upstream
        self._loop = loop
        self._planner = planner
        self._meter = meter
        self._steering = steering
        self._finisher = finisher
        self._patience = patience

    async def answer(
        self, call: ChatCall, steered: SteeredRequest, wanted: Wanted | None = None
    ) -> Answer | Stream:
        """`wanted` is waited for before an answer is made durable. Raises `TTCLError`."""
        if call.request.stream:
            return await self._stream(call, steered)
        return await self._whole(call, steered, wanted)

    async def _whole(
        self, call: ChatCall, steered: SteeredRequest, wanted: Wanted | None
    ) -> Answer:
        exploration, chosen = await self._run(call, steered, patience=self._patience)
        if wanted is not None:
            await wanted()
        await self._finisher.explored(call, steered, exploration)
        body = _whole(call, exploration, chosen)
        body["ttcl"] = steered.told(call, exploration.cost, _told(exploration))
        return Answer(json_text.dumps(body), steered.headers())

    async def _stream(self, call: ChatCall, steered: SteeredRequest) -> Stream:
        """Pings from the loop's start, then the selected answer."""
        task = asyncio.create_task(self._run(call, steered))

        async def cancel() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        try:
            await asyncio.wait({task}, timeout=FIRST_PING)
            if task.done():
                task.result()
        except BaseException:
            await cancel()
            raise
        events = self._events(call, steered, task)

        async def close() -> None:
            await events.aclose()
            await cancel()

        return Stream(events, steered.headers(), close)

    async def _events(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        task: asyncio.Task[tuple[Exploration, Trajectory]],
    ) -> AsyncGenerator[bytes]:
        while not task.done():
            yield PING
            await asyncio.wait({task}, timeout=PING_EVERY)
        try:
            exploration, chosen = task.result()
        except TTCLError as error:
            *events, last = failure_events(call.format, error)
            for each in events:
                yield each
            await self._finisher.failed(call, steered, f"upstream_error:{error.status}")
            yield last
            return
        answer, ending = _events_of(call, exploration, chosen)
        for each in answer:
            yield each
        await self._finisher.explored(call, steered, exploration)
        told = steered.told(call, exploration.cost, _told(exploration)) if call.wants_ttcl else None
        for each in ending(told):
            yield each

    async def _run(
        self, call: ChatCall, steered: SteeredRequest, *, patience: float | None = None
    ) -> tuple[Exploration, Trajectory]:
        observation = observe(call, steered)
        spending = RunningCost()
        try:
            effort = await self._planner.plan(observation)
            exploration = await self._loop.explore(
                observation,
                effort=effort,
                spending=spending,
                patience=patience,
                ask_teacher=self._teacher(call),
            )
        except asyncio.CancelledError:
            self._charge_cut(call, spending)
            raise
        except TTCLError:
            self._meter.charge(call.caller, spending.cost)
            raise
        self._planner.note(call.namespace, effort, exploration.trajectories, exploration.problems)
        self._meter.charge(call.caller, exploration.cost)
        if RULES_DROPPED in exploration.problems:
            steered.drop_experience()
        for problem in exploration.problems:
            self._steering.degrade(steered, problem)
        if CUT_SHORT in exploration.problems:
            exploration = _with_the_teachers_answer(exploration)
        # A refusal, a call or a thought that was cut is no answer to choose, but it is what came.
        chosen = exploration.selection.chosen or next(
            (each for each in exploration.trajectories if each.failure is None), None
        )
        if chosen is None:
            raise UpstreamTimeout("no answer came back in the time that an exploration may take")
        if boxes(observation.messages, observation.params, observation.task):
            chosen = dataclasses.replace(chosen, text=unboxed(chosen.text))
        return exploration, chosen

    def _teacher(self, call: ChatCall) -> AskTeacher | None:
        if call.format is None:
            return None
        return FormatTeacher(self._upstream, call, call.format).ask

    def _charge_cut(self, call: ChatCall, spending: RunningCost) -> None:
        """Of a client that left: its calls that are still out have had at least their prompt."""
        if call.caller.key is not None:
            prompt = estimated_cost(prompt_of(call.messages), 0).prompt_tokens
            self._meter.charge(call.caller, spending.total(prompt))


def failure_events(fmt: ApiFormat | None, error: TTCLError) -> tuple[bytes, ...]:
    """What ends a stream of this format (None: chat's) that failed before its first word."""
    if fmt is None:
        return (frame(error.envelope()), DONE)
    return (fmt.reader().failure(error),)


def _whole(call: ChatCall, exploration: Exploration, chosen: Trajectory) -> dict[str, Any]:
    """The answer in the client's format."""
    if call.format is None:
        return response.completion(chosen, _asked(call))
    asked = (each for each in exploration.trajectories if each.role is Role.TEACHER)
    teacher = next((each.raw.body for each in asked if each.raw is not None), None)
    return call.format.whole(chosen, model=call.asked_model, body=call.body, teacher=teacher)


def _events_of(
    call: ChatCall, exploration: Exploration, chosen: Trajectory
) -> tuple[Iterable[bytes], Callable[[Any], Iterable[bytes]]]:
    """The same as events: those that may go out at once, and, given the `ttcl` object where one is
    asked for, those that end it."""
    if call.format is None:
        asked = _asked(call)
        return response.stream(chosen, asked), partial(response.ending, chosen, asked)
    *events, last = call.format.events(_whole(call, exploration, chosen))
    return map(event, events), lambda told: (last_event(last, told),)


def _with_the_teachers_answer(exploration: Exploration) -> Exploration:
    """Whatever the others said: half an exploration chooses nothing better. Where the Teacher has
    failed, what was chosen stays."""
    teacher = (each for each in exploration.trajectories if each.role is Role.TEACHER)
    found = next((each for each in teacher if each.failure is None), None)
    if found is None:
        return exploration
    selection = dataclasses.replace(exploration.selection, chosen=found)
    return dataclasses.replace(exploration, selection=selection)


def _asked(call: ChatCall) -> response.ResponseOptions:
    request = call.request
    return response.ResponseOptions(
        model=call.asked_model,
        logprobs=bool(request.logprobs),
        top_logprobs=bool(request.top_logprobs),
        usage_chunk=call.wants_usage,
    )


def _told(exploration: Exploration) -> dict[str, Any]:
    """Answers and outcome, never a trajectory's text."""
    selection = exploration.selection
    answers = {j.name: j.answer for j in selection.judged}
    return {
        "case": selection.case.value,
        "task": selection.task.value,
        "chosen": selection.chosen.name if selection.chosen else None,
        "agreement": selection.agreement,
        "criterion": selection.criterion,
        "answers": [answers.get(t.name) for t in exploration.trajectories],
        "calls": exploration.cost.calls,
        "tokens": exploration.cost.tokens,
    }
