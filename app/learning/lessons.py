"""A lesson: what a wrong answer teaches whose right one somebody knows.

The job of one feedback (`app.learning.feedback`). Its example is there already, or waits for a
right answer with its steps: then a new exploration looks for one. Right against wrong goes to the
distiller as a verified contrast. Lessons cost calls, and a namespace has as many as its judged
answers have paid for; a lesson that can't be paid for is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.domain.serialization import (
    lesson_contrast,
    observation_from_json,
    selection_to_json,
    trajectories_to_json,
)
from app.domain.trajectory import Case, Cost, Observation, Role, Selection, Task, Trajectory
from app.learning.distilling import Distilling
from app.learning.evaluation.gatekeeper import worth_distilling
from app.learning.evaluation.outcomes import Judge
from app.loop.loop import Distillation, Loop
from app.loop.reflect.answers import strip_reasoning
from app.loop.reflect.scoring import exclusion
from rules_store.models.feedback import Completion
from rules_store.models.jobs import Job
from rules_store.store import RuleStore

UNPAID_SKIP = "feedback_budget_exhausted"
QUEUE_SKIP = "candidates_waiting"
"""More candidates wait for replays than will be made soon; one more would only wait too."""
WROTE_NOTHING = "distiller_wrote_nothing"
LONGEST_ANSWER = 4000
"""Characters of an example's answer: a longer one would fit no budget of a prompt."""
DISTILLING = 1
"""Calls of a lesson that explores nothing."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a job's payload says. The right answer is known as `better` (in full), as `label`, or as
    both."""

    observation: Observation
    wrong: str
    better: str | None
    label: str | None
    example: str | None
    """Id of the example that the feedback has made."""
    explore: bool
    """Whether that one waits for a right answer with its steps."""

    @classmethod
    def of(cls, payload: dict[str, Any]) -> Lesson:
        return cls(
            observation=observation_from_json(payload["observation"]),
            wrong=payload["wrong"],
            better=payload["better"],
            label=payload["label"],
            example=payload.get("example"),
            explore=payload["explore"],
        )

    def contrast(self, better: str | None) -> Selection:
        """Right against wrong. `better`: a right answer in full, where there is one."""
        right = better or self.label
        assert right is not None, "a lesson knows what is right"
        question = self.observation.question
        return Selection(
            case=Case.VERIFIED,
            task=Task.OPEN if self.label is None else Task.CLOSED,
            chosen=None,
            better=Trajectory(Role.TEACHER, 0, question, text=right),
            worse=Trajectory(Role.STUDENT, 1, question, text=self.wrong),
            right=self.label,
        )


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of a lesson. `distillation` None: nothing was distilled, and `reason` says why."""

    distillation: Distillation | None
    completion: Completion | None
    reason: str | None
    trace: dict[str, Any]


class Teacher:
    def __init__(
        self,
        store: RuleStore,
        loop: Loop,
        judge: Judge,
        distilling: Distilling,
        gated: Callable[[str], bool],
        judges: Callable[[str], bool],
        *,
        calls_per_answer: float,
        exploring: int,
    ) -> None:
        """`exploring`: calls that an exploration takes at most."""
        self._store = store
        self._loop = loop
        self._judge = judge
        self._distilling = distilling
        self._gated = gated
        self._judges = judges
        self._calls_per_answer = calls_per_answer
        self._exploring = exploring

    async def teach(self, job: Job, pay: Callable[[Cost, Cost], None]) -> Taught:
        """Calls the model, and writes nothing. `pay` is told of each cost as it arises, and of the
        part that another model than the served one took. Raises `UpstreamError`, StoreError."""
        lesson = Lesson.of(job.payload)
        left = await self._store.jobs.lessons_paid(job.namespace, self._calls_per_answer)
        trace: dict[str, Any] = {}
        better, completion = lesson.better, None
        if lesson.explore and left >= self._exploring:
            found, trace, cost = await self._search(lesson)
            pay(cost, Cost())
            left -= cost.calls
            better = found
            if found is not None and lesson.example is not None:
                completion = Completion(lesson.example, found)
        if left < DISTILLING:
            return Taught(None, completion, UNPAID_SKIP, trace)
        if self._gated(job.namespace):
            waiting = self._store.evidence.count_candidates(job.namespace)
            if not worth_distilling(waiting, seed=job.episode_id):
                return Taught(None, completion, QUEUE_SKIP, trace)
        contrast = lesson.contrast(better)
        distillation = await self._distilling.distil(
            lesson.observation,
            contrast,
            judged=self._judges(job.namespace),
            gated=self._gated(job.namespace),
            calls=left,
        )
        pay(distillation.cost, distillation.elsewhere)
        trace |= {**distillation.trace(), "contrast": lesson_contrast(contrast)}
        reason = None if distillation.rules else WROTE_NOTHING
        return Taught(distillation if distillation.rules else None, completion, reason, trace)

    async def _search(self, lesson: Lesson) -> tuple[str | None, dict[str, Any], Cost]:
        """The first right answer of a new exploration, or None; its trace and its cost."""
        explored = await self._loop.explore(lesson.observation, background=True)
        trace = {
            "trajectories": trajectories_to_json(explored.trajectories, explored.selection),
            "selection": selection_to_json(explored.selection),
        }
        assert lesson.label is not None, "only a label waits for the steps that lead to it"
        for trajectory in explored.trajectories:
            text = strip_reasoning(trajectory.text)
            if exclusion(trajectory) is not None or len(text) > LONGEST_ANSWER:
                continue
            question = lesson.observation.question
            if await self._judge.has_label(question, text, lesson.label):
                return text, trace, explored.cost
        return None, trace, explored.cost
