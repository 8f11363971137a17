"""Explore mode: the whole loop in the client's path, and the selected answer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any

from app.access.metering import Meter, estimated_cost
from app.chat import response
from app.chat.call import Answer, ChatCall, SteeredRequest, Stream, observe
from app.chat.finishing import Finisher
from app.chat.steering import Steering
from app.domain import json_text
from app.domain.trajectory import Trajectory
from app.exceptions import TTCLError, UpstreamTimeout
from app.loop.effort_planner import EffortPlanner
from app.loop.explore.exploration import RunningCost
from app.loop.explore.forms import boxes, unboxed
from app.loop.loop import RULES_DROPPED, Exploration, Loop
from app.loop.steer.injector import prompt_of
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
    ) -> None:
        self._loop = loop
        self._planner = planner
        self._meter = meter
        self._steering = steering
        self._finisher = finisher

    async def answer(self, call: ChatCall, steered: SteeredRequest) -> Answer | Stream:
        """Raises `TTCLError`."""
        if call.request.stream:
            return await self._stream(call, steered)
        return await self._whole(call, steered)

    async def _whole(self, call: ChatCall, steered: SteeredRequest) -> Answer:
        exploration, chosen = await self._run(call, steered)
        await self._finisher.explored(call, steered, exploration)
        body = response.completion(chosen, _asked(call))
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
        yield PING
        while not task.done():
            await asyncio.wait({task}, timeout=PING_EVERY)
            if not task.done():
                yield PING
        try:
            exploration, chosen = task.result()
        except TTCLError as error:
            yield frame(error.envelope())
            await self._finisher.failed(call, steered, f"upstream_error:{error.status}")
            yield DONE
            return
        for event in response.stream(chosen, _asked(call)):
            if event == DONE:
                await self._finisher.explored(call, steered, exploration)
            yield event

    async def _run(self, call: ChatCall, steered: SteeredRequest) -> tuple[Exploration, Trajectory]:
        observation = observe(call, steered)
        spending = RunningCost()
        try:
            effort = await self._planner.plan(observation)
            exploration = await self._loop.explore(observation, effort=effort, spending=spending)
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
        # A refusal, a call or a thought that was cut is no answer to choose, but it is what came.
        chosen = exploration.selection.chosen or next(
            (each for each in exploration.trajectories if each.failure is None), None
        )
        if chosen is None:
            raise UpstreamTimeout("no answer came back in the time that an exploration may take")
        if boxes(observation.messages, observation.params, observation.task):
            chosen = dataclasses.replace(chosen, text=unboxed(chosen.text))
        return exploration, chosen

    def _charge_cut(self, call: ChatCall, spending: RunningCost) -> None:
        """Of a client that left: its calls that are still out have had at least their prompt."""
        if call.caller.key is not None:
            prompt = estimated_cost(prompt_of(call.messages), 0).prompt_tokens
            self._meter.charge(call.caller, spending.total(prompt))


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
