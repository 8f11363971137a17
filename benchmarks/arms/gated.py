"""The gated policy, and what is left of it when one of its parts is taken out.

As the service does it: candidates are replayed on earlier questions, a share of the requests leaves
one rule out, lift counts in retrieval, and exploring takes no more calls than agreement asks for.
No label is ever seen: replays are compared with the consensus of the exploration.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from app.domain.trajectory import Case, Observation, Selection
from app.learning.evaluation.gatekeeper import Gatekeeper, Replay, worth_distilling
from app.learning.evaluation.outcomes import (
    Judge,
    agreement_outcome,
    precedent_of,
    teacher_text,
)
from app.loop.effort import Effort
from app.loop.loop import Distillation, Exploration
from app.settings import DistillerVariant, Policy
from app.wiring.factories import build_gatekeeper, build_planner
from benchmarks.arms.base import NAMESPACE, ArmAnswer, PassQuestion, Repeat, Setting
from benchmarks.arms.changes import BY_EVIDENCE, StoreChanges, rule_row
from benchmarks.arms.lookup import Found, Retrieved
from benchmarks.arms.looped import Lesson, Looped, Pass, PassResources
from rules_store.models.evidence import Findings


@dataclass(frozen=True, slots=True)
class Gated(Looped):
    """`overrides`: settings of this arm; `gate` False: what is admitted is active at once."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    gate: bool = True

    async def start(self, setting: Setting, repeat: Repeat) -> Pass:
        settings = setting.settings.changed(**{"policy": Policy.GATED, **self.overrides})
        return GatedPass(
            await self.opened(replace(setting, settings=settings), repeat), gate=self.gate
        )


def _gated(name: str, *, gate: bool = True, poisoned: bool = False, **overrides: Any) -> Gated:
    return Gated(name, Retrieved, True, poisoned, overrides, gate)


GATED_ARMS = {
    arm.name: arm
    for arm in (
        _gated("gated"),
        _gated("gated-no-gate", gate=False),
        _gated("gated-no-hold-out", hold_out_rate=0.0),
        _gated("gated-no-utility", utility_weight=0.0),
        _gated("gated-no-trigger", trigger_retrieval=False),
        _gated("gated-no-abstention", abstention=False),
        _gated("gated-cluster", distiller_variant=DistillerVariant.CLUSTER),
        _gated("gated-revised", distiller_variant=DistillerVariant.REVISED),
        _gated("gated+poison", poisoned=True),
    )
}


@dataclass(frozen=True, slots=True)
class GatedLesson(Lesson):
    replays: tuple[Replay, ...] = ()


class GatedPass(Pass):
    def __init__(self, opened: PassResources, *, gate: bool) -> None:
        super().__init__(opened)
        self._gate = gate
        self._planner = build_planner(self.setting.settings, self.store, self.setting.embedder)
        self._judge = Judge(self.setting.equivalence, self.setting.embedder)
        self._changes = StoreChanges(self.store)

    @property
    def stores_candidates(self) -> bool:
        return self._gate

    async def effort(self, observation: Observation) -> Effort | None:
        return await self._planner.plan(observation, patient=True)

    def teaches(self, observation: Observation, selection: Selection) -> bool:
        """As the worker: what all agree on teaches nothing worth a call, nor what could not be
        tried soon."""
        idle = selection.case in (Case.UNANIMOUS, Case.HOMOGENEOUS)
        if selection.better is None or idle:
            return False
        waiting = self.store.evidence.count_candidates(NAMESPACE)
        return worth_distilling(waiting, seed=observation.episode_id)

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        outcome = await super().answer(asked)
        if not isinstance(outcome.lesson, Lesson):
            return outcome
        replays = await self._replays(outcome)
        lesson = outcome.lesson
        return replace(
            outcome,
            details={**outcome.details, "replays": len(replays)},
            lesson=GatedLesson(
                **{each.name: getattr(lesson, each.name) for each in fields(lesson)},
                replays=replays,
            ),
        )

    async def _replays(self, outcome: ArmAnswer) -> tuple[Replay, ...]:
        """The replays that this question pays for, by what earlier steps have left."""
        if not self._gate:
            return ()
        rng = random.Random(f"{outcome.lesson.observation.episode_id}/replay")
        rate = self.setting.settings.gate_calls_per_answer
        count = int(rate) + (rng.random() < rate % 1)
        keeper = self._keeper(outcome)
        made: list[Replay] = []
        for _ in range(count):
            choice = await keeper.choose(NAMESPACE, rng)
            if choice is None:
                break
            made.append(await keeper.replay(choice))
        return tuple(made)

    def _keeper(self, outcome: ArmAnswer) -> Gatekeeper:
        loop = self.loop(outcome.backend)
        return build_gatekeeper(self.setting.settings, self.store, loop, self._judge)

    async def lesson(
        self,
        observation: Observation,
        found: Found,
        exploration: Exploration,
        distillation: Distillation | None,
        effort: Effort | None,
    ) -> Lesson | None:
        selection = exploration.selection
        vector = await self._planner.vector(observation)
        precedent = None
        if vector is not None and len(exploration.trajectories) > 1:
            teacher = teacher_text(exploration.trajectories)
            precedent = precedent_of(observation, selection, teacher, vector)
        findings = Findings(agreement_outcome(selection), precedent)
        return Lesson(
            observation,
            found,
            distillation,
            (effort, exploration),
            findings,
            case=selection.case.value,
            agreement=selection.agreement,
        )

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        rows = await super().learn(outcomes)
        for outcome in outcomes:
            if isinstance(outcome.lesson, GatedLesson):
                self._note(outcome.lesson)
                keeper = self._keeper(outcome)
                for replay in outcome.lesson.replays:
                    await keeper.record(replay)
                await keeper.review(NAMESPACE)
                rows += await self._moved(outcome.asked)
        await self.store.catch_up()
        return rows

    def _note(self, lesson: Lesson) -> None:
        if lesson.explored is not None:
            effort, exploration = lesson.explored
            self._planner.note(NAMESPACE, effort, exploration.trajectories, exploration.problems)

    async def _moved(self, asked: PassQuestion) -> list[dict[str, Any]]:
        """A row for each rule that evidence has moved since the last look."""
        rows = [rule_row(event, BY_EVIDENCE) for event in await self._changes.new()]
        return [{"id": asked.id, **row} for row in rows if row is not None]
