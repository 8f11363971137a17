"""Arms that remember examples: the nearest earlier ones are shown, or the nearest is copied.

    knn@k        right answers, told by feedback, as earlier turns
    self-icl@k   own answers that feedback called right, as earlier turns (StreamBench's
                 Self-StreamICL, arXiv 2406.08747)
    neighbour    the nearest question's right answer, copied without a model

What a step was told is remembered when the step is over, as it is with rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from app.domain.trajectory import Message, Role
from app.loop.explore.roles import teacher_params
from app.loop.reflect.answers import strip_reasoning
from app.upstream.embeddings import Vectors
from benchmarks.arms.base import ArmAnswer, PassQuestion, Repeat, Setting, observe, scope
from benchmarks.arms.direct import answer_form, framed, sample
from benchmarks.arms.examples import Example, ExampleBank, Neighbour
from benchmarks.callcache import MeteredBackend
from benchmarks.feedback import FeedbackLevel

EMPTY = "there is no labelled question yet"


class Kept(StrEnum):
    """Which answer is remembered with a question."""

    LABEL = "label"
    OWN = "own"
    """The arm's own, where it was right."""


@dataclass(frozen=True, slots=True)
class Recalling:
    """`shown` examples are put in front of a question; with 0 the nearest one's answer is copied
    and no model is asked."""

    name: str
    keeps: Kept
    shown: int
    stateful: bool = True

    @property
    def needs(self) -> FeedbackLevel:
        """The least feedback that teaches this arm anything."""
        return FeedbackLevel.LABEL if self.keeps is Kept.LABEL else FeedbackLevel.BINARY

    async def start(self, setting: Setting, repeat: Repeat) -> _Recall:
        return _Recall(self, setting, repeat)


def nearest_labelled(count: int) -> Recalling:
    return Recalling(f"knn@{count}", Kept.LABEL, count)


def own_right_answers(count: int) -> Recalling:
    return Recalling(f"self-icl@{count}", Kept.OWN, count)


NEIGHBOUR = Recalling("neighbour", Kept.LABEL, 0)


class _Recall:
    def __init__(self, arm: Recalling, setting: Setting, repeat: Repeat) -> None:
        self._arm = arm
        self._setting = setting
        self._repeat = repeat
        self._bank = ExampleBank()

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        # Questions of a step come side by side: the embedder takes them together.
        vector = (await self._setting.embedder.embed([asked.prompt]))[0]
        found = self._bank.nearest(vector, max(1, self._arm.shown))
        answered = self._copied if self._arm.shown == 0 else self._asked
        return await answered(asked, found, vector)

    async def _copied(
        self, asked: PassQuestion, found: list[Neighbour], vector: Vectors
    ) -> ArmAnswer:
        return ArmAnswer(
            asked,
            found[0].example.answer if found else "",
            self._backend(asked),
            failure=None if found else EMPTY,
            details=_details(found),
            lesson=vector,
        )

    async def _asked(
        self, asked: PassQuestion, found: list[Neighbour], vector: Vectors
    ) -> ArmAnswer:
        observation = observe(self._setting, self._repeat, asked, arm=self._arm.name)
        messages = _with_examples(framed(self._setting, observation), found)
        backend = self._backend(asked)
        params = teacher_params(observation, None)
        made = await sample(backend, observation, messages, Role.TEACHER, 0, params)
        return ArmAnswer(
            asked,
            made.text,
            backend,
            failure=made.failure,
            trajectories=(made,),
            details=_details(found),
            lesson=vector,
        )

    def _backend(self, asked: PassQuestion) -> MeteredBackend:
        return self._setting.calls.scoped(scope(self._arm.name, self._repeat, asked))

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        kept = [
            (Example(outcome.asked.id, outcome.asked.prompt, answer), outcome.lesson)
            for outcome in outcomes
            if (answer := self._remembered(outcome)) is not None
        ]
        if kept:
            self._bank.add([example for example, _ in kept], np.stack([row for _, row in kept]))
        return []

    def _remembered(self, outcome: ArmAnswer) -> str | None:
        told = outcome.feedback
        if told is None:
            return None
        if self._arm.keeps is Kept.OWN:
            return (strip_reasoning(outcome.text) or None) if told.right else None
        return None if told.answer is None else self._in_form(outcome.asked, told.answer)

    def _in_form(self, asked: PassQuestion, label: str) -> str:
        """The answer as the frame asks for it: an example must not teach another form."""
        observation = observe(self._setting, self._repeat, asked, arm=self._arm.name)
        return (
            f"\\boxed{{{label}}}"
            if "\\boxed{" in answer_form(self._setting, observation)
            else label
        )

    async def close(self) -> None:
        return None


def _with_examples(messages: list[Message], found: Sequence[Neighbour]) -> list[Message]:
    """In front of the question, the nearest last."""
    turns = [turn for neighbour in reversed(found) for turn in neighbour.example.turns()]
    return [*messages[:-1], *turns, messages[-1]]


def _details(found: Sequence[Neighbour]) -> dict[str, Any]:
    shown = [{"id": n.example.id, "similarity": n.similarity} for n in found]
    return {"examples": shown}
