"""The loop itself, with the code that serves: without rules, with rules, with random rules.

Every pass has a rule store of its own. Rules of a step are stored when the step is over, in the
order of the stream, so that question t sees rules of earlier steps only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.serialization import (
    hits_to_json,
    selection_to_json,
    trajectories_to_json,
)
from app.domain.trajectory import Observation, Selection
from app.exceptions import UpstreamError
from app.learning.distilling import Distilling
from app.learning.drafts import drafts_of
from app.learning.evaluation.outcomes import Judge
from app.loop.effort import Effort
from app.loop.loop import Distillation, Exploration, Loop
from app.settings import Policy
from app.wiring.factories import build_distilling, build_loop
from benchmarks import poison
from benchmarks.arms.base import NAMESPACE, ArmAnswer, PassQuestion, Repeat, Setting, observe, scope
from benchmarks.arms.lookup import Found, Lookup, NoRules, RandomRules, Retrieved
from benchmarks.arms.stores import PassStore, opened_store
from benchmarks.callcache import MeteredBackend
from rules_store.models.evidence import NO_FINDINGS, Findings
from rules_store.models.rules import RuleHit

_OWNER = "benchmark"


@dataclass(frozen=True, slots=True)
class Looped:
    """An arm that runs the whole loop; `lookup` makes its way of choosing rules, None for none."""

    name: str
    lookup: type[Retrieved] | type[RandomRules] | None
    stateful: bool
    poisoned: bool = False

    async def start(self, setting: Setting, repeat: Repeat) -> Pass:
        settings = setting.settings.changed(policy=Policy.PAPER)
        return Pass(await self.opened(replace(setting, settings=settings), repeat))

    async def opened(self, setting: Setting, repeat: Repeat) -> PassResources:
        """A store of its own, with wrong rules in it where the arm is poisoned."""
        opened = await opened_store(setting, self.name, repeat)
        store = opened.store
        if self.poisoned:
            await poison.inject(store, NAMESPACE, setting.task.domain, setting.embedder)
        lookup = NoRules() if self.lookup is None else self.lookup(setting)
        return PassResources(self, setting, repeat, opened, lookup)


EMPTY_BANK = Looped("empty-bank", None, stateful=False)
PAPER = Looped("paper", Retrieved, stateful=True)
PAPER_POISONED = Looped("paper+poison", Retrieved, stateful=True, poisoned=True)
RANDOM_RULES = Looped("random-rules", RandomRules, stateful=True)


@dataclass(frozen=True, slots=True)
class PassResources:
    """What a pass works with."""

    arm: Looped
    setting: Setting
    repeat: Repeat
    files: PassStore
    lookup: Lookup


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a question taught, until its step is over."""

    observation: Observation
    found: Found
    distillation: Distillation | None = None
    explored: tuple[Effort | None, Exploration] | None = None
    """Of an arm that lets past explorations decide on the next."""
    findings: Findings = NO_FINDINGS
    case: str = ""
    agreement: float | None = None
    """Of the selection that taught."""


class Pass:
    def __init__(self, opened: PassResources) -> None:
        self.arm = opened.arm
        self.setting = opened.setting
        self.repeat = opened.repeat
        self.store = opened.files.store
        self._files = opened.files
        self._lookup = opened.lookup

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        observation, found, backend = await self.prepared(asked)
        loop = self.loop(backend)
        try:
            effort = await self.effort(observation)
            exploration = await loop.explore(observation, effort=effort)
        except UpstreamError as error:
            return ArmAnswer(asked, "", backend, failure=error.message, hits=found.hits)
        problems = list(exploration.problems)
        distillation = None
        if self.teaches(observation, exploration.selection):
            try:
                distillation = await self._distilling(loop).distil(
                    observation, exploration.selection, judged=False, gated=True
                )
            except UpstreamError as error:
                problems.append(f"distiller: {error.message}")
        chosen = exploration.selection.chosen
        return ArmAnswer(
            asked=asked,
            text=chosen.text if chosen is not None else "",
            backend=backend,
            failure=None if chosen is not None else "no answer",
            trajectories=exploration.trajectories,
            hits=found.hits,
            details=_details(exploration, problems, found.hits),
            lesson=await self.lesson(observation, found, exploration, distillation, effort),
        )

    async def prepared(self, asked: PassQuestion) -> tuple[Observation, Found, MeteredBackend]:
        observation = observe(self.setting, self.repeat, asked, arm=self.arm.name)
        found = await self._lookup.find(self.store, observation)
        observation = replace(observation, hits=found.hits)
        return observation, found, self.setting.calls.scoped(observation.episode_id)

    def loop(self, backend: MeteredBackend) -> Loop:
        setting = self.setting
        return build_loop(
            setting.settings,
            backend,
            setting.embedder,
            setting.equivalence,
            setting.prompts,
            distiller_model=setting.distiller_model(backend),
        )

    def _distilling(self, loop: Loop) -> Distilling:
        setting = self.setting
        judge = Judge(setting.equivalence, setting.embedder)
        return build_distilling(setting.settings, self.store, loop, setting.embedder, judge)

    async def effort(self, observation: Observation) -> Effort | None:
        return None

    def teaches(self, observation: Observation, selection: Selection) -> bool:
        return self.arm.stateful and selection.better is not None

    async def lesson(
        self,
        observation: Observation,
        found: Found,
        exploration: Exploration,
        distillation: Distillation | None,
        effort: Effort | None,
    ) -> Lesson | None:
        if distillation is None or not distillation.rules:
            return None
        selection = exploration.selection
        return Lesson(
            observation,
            found,
            distillation,
            case=selection.case.value,
            agreement=selection.agreement,
        )

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for outcome in outcomes:
            if isinstance(outcome.lesson, Lesson):
                rows += await self.store_lesson(outcome.asked, outcome.lesson)
        return rows

    async def store_lesson(self, asked: PassQuestion, lesson: Lesson) -> list[dict[str, Any]]:
        """Through a learning job, as the gateway does it."""
        observation, store = lesson.observation, self.store
        await store.episodes.begin(
            observation.episode_id,
            namespace=NAMESPACE,
            mode="explore",
            question=observation.question,
            model=observation.model,
        )
        await store.episodes.finish(
            observation.episode_id,
            answer=None,
            trace=_trace(lesson),
            job_payload={},
            exposures=lesson.found.exposures(),
        )
        job = await store.jobs.claim(_OWNER, key=observation.episode_id)
        assert job is not None, "the job was written the line before"
        distillation = lesson.distillation
        written = list(distillation.rules) if distillation is not None else []
        if distillation is None or not written:
            await store.jobs.skip(job, "nothing_distilled", findings=lesson.findings)
            return []
        rules, turned = written, False
        if self.arm.poisoned:
            rng = random.Random(f"{scope(self.arm.name, self.repeat, asked)}/corrupted")
            rules = poison.corrupted(written, rng)
            turned = rules != written
        drafts = await drafts_of(
            observation,
            rules,
            self.setting.embedder,
            gated=self.stores_candidates,
            written_by=distillation.model,
        )
        applied = await store.jobs.apply(job, drafts, findings=lesson.findings)
        triggers = {rule.text: rule.trigger for rule in rules}
        return [
            {
                "id": asked.id,
                "polarity": learned.polarity.value,
                "text": learned.text,
                "trigger": triggers.get(learned.text, ""),
                "outcome": learned.outcome,
                "reason": poison.CORRUPTED if turned else learned.reason,
                "case": lesson.case,
                "agreement": lesson.agreement,
                "written_by": distillation.model,
            }
            for learned in applied.learned
        ]

    @property
    def stores_candidates(self) -> bool:
        return False

    async def close(self) -> None:
        await self._files.close()


def _trace(lesson: Lesson) -> dict[str, Any]:
    """What the gateway keeps of an exploration, for a distiller that looks at earlier contrasts."""
    if lesson.explored is None:
        return {}
    exploration = lesson.explored[1]
    return {
        "trajectories": trajectories_to_json(exploration.trajectories, None),
        "selection": selection_to_json(exploration.selection),
    }


def _details(
    exploration: Exploration, problems: list[str], hits: tuple[RuleHit, ...]
) -> dict[str, Any]:
    selection = exploration.selection
    injected = [
        {key: row[key] for key in ("polarity", "text", "similarity")} for row in hits_to_json(hits)
    ]
    return {
        "case": selection.case.value,
        "agreement": selection.agreement,
        "criterion": selection.criterion,
        "problems": problems,
        "rules_injected": injected,
    }
