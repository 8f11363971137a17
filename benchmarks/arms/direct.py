"""The bars: one greedy call, and self-consistency over K samples. Neither learns anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.trajectory import (
    Cost,
    Message,
    Observation,
    Role,
    Selection,
    Task,
    Trajectory,
)
from app.exceptions import UpstreamError
from app.loop.explore.roles import ANSWER_PROMPT, student_params, teacher_params
from app.loop.reflect.selection import needs_vectors, select_closed, select_open
from app.loop.steer.injector import add_to_system
from app.upstream.types import ChatBackend
from benchmarks.arms.base import ArmAnswer, PassQuestion, Repeat, Setting, observe, scope


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """The Teacher's call and nothing else."""

    name: str = "zero-shot"
    stateful: bool = False

    async def start(self, setting: Setting, repeat: Repeat) -> _Direct:
        return _Direct(self.name, setting, repeat, samples=None)


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """K samples with the Students' sampling, and the loop's own vote among them."""

    samples: int
    stateful: bool = False

    @property
    def name(self) -> str:
        return f"sc@{self.samples}"

    async def start(self, setting: Setting, repeat: Repeat) -> _Direct:
        return _Direct(self.name, setting, repeat, samples=self.samples)


class _Direct:
    def __init__(self, arm: str, setting: Setting, repeat: Repeat, *, samples: int | None) -> None:
        self._arm = arm
        self._setting = setting
        self._repeat = repeat
        self._samples = samples

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        observation = observe(self._setting, self._repeat, asked, arm=self._arm)
        backend = self._setting.calls.scoped(scope(self._arm, self._repeat, asked))
        plans = self._plans(observation)
        messages = framed(self._setting, observation)
        trajectories = tuple(
            await asyncio.gather(*(sample(backend, observation, messages, *plan) for plan in plans))
        )
        selection = None if self._samples is None else await self._vote(observation, trajectories)
        chosen = trajectories[0] if selection is None else selection.chosen
        return ArmAnswer(
            asked=asked,
            text=chosen.text if chosen is not None else "",
            backend=backend,
            failure=None if chosen is not None else "no answer",
            trajectories=trajectories,
            details=_details(selection),
        )

    def _plans(self, observation: Observation) -> list[tuple[Role, int, dict[str, Any]]]:
        if self._samples is None:
            return [(Role.TEACHER, 0, teacher_params(observation, None))]
        settings = self._setting.settings
        limit = self._setting.task.max_tokens
        return [
            (
                Role.STUDENT,
                index,
                student_params(
                    observation,
                    index,
                    settings.student_temperature,
                    settings.student_top_p,
                    limit,
                ),
            )
            for index in range(1, self._samples + 1)
        ]

    async def _vote(
        self, observation: Observation, trajectories: tuple[Trajectory, ...]
    ) -> Selection:
        vectors = None
        if needs_vectors(observation.task, trajectories):
            named = [t for t in trajectories if t.text.strip()]
            vectors = {}
            if named:
                rows = await self._setting.embedder.embed([t.text for t in named])
                vectors = {t.name: row for t, row in zip(named, rows, strict=True)}
        if observation.task is Task.OPEN:
            spread = self._setting.settings.experiment.open_spread
            return select_open(observation, trajectories, vectors or {}, minimum_spread=spread)
        return await select_closed(
            observation, trajectories, self._setting.equivalence, vectors=vectors
        )

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        return []

    async def close(self) -> None:
        return None


def framed(setting: Setting, observation: Observation) -> list[Message]:
    """The messages of the loop's Teacher when there are no rules."""
    return add_to_system(list(observation.messages), answer_form(setting, observation))


def answer_form(setting: Setting, observation: Observation) -> str:
    """What Teacher and Students are told about the form of the answer."""
    return setting.prompts.get(observation.domain, ANSWER_PROMPT[observation.task]).render().text


async def sample(
    backend: ChatBackend,
    observation: Observation,
    messages: list[Message],
    role: Role,
    index: int,
    params: dict[str, Any],
) -> Trajectory:
    """One call; a failed one is a trajectory with its reason."""
    try:
        completion = await backend.complete(observation.model, messages, params, logprobs=True)
    except UpstreamError as error:
        return Trajectory(
            role, index, observation.question, cost=Cost(calls=1), failure=error.message
        )
    return Trajectory(
        role,
        index,
        observation.question,
        text=completion.text,
        reasoning=completion.reasoning,
        finish_reason=completion.finish_reason,
        logprobs=completion.logprobs,
        cost=completion.cost,
    )


def _details(selection: Selection | None) -> dict[str, Any]:
    if selection is None:
        return {}
    return {"case": selection.case.value, "agreement": selection.agreement}
