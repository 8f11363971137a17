"""The loop itself, with the code that serves: without rules, with rules, with random rules.

Every pass has a rule store of its own. Rules of a step are stored when the step is over, in the
order of the stream, so that question t sees rules of earlier steps only.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.exceptions import UpstreamError
from app.loop import Distillation, Exploration
from app.main import build_loop
from app.steer.budget import TokenCounter, fit
from app.steer.retriever import Retriever
from app.trace import hits_to_json
from app.trajectory import Observation
from app.worker import drafts_of
from benchmarks.arms.base import NAMESPACE, Asked, Outcome, Repeat, Setting, observe, scope
from rules_store.store import RuleStore
from rules_store.types import Polarity, Rule, RuleFilter, RuleHit, RuleState, StoreOptions

_OWNER = "benchmark"


class Lookup(Protocol):
    """Which rules an arm injects."""

    async def hits(self, store: RuleStore, observation: Observation) -> tuple[RuleHit, ...]: ...


class NoRules:
    async def hits(self, store: RuleStore, observation: Observation) -> tuple[RuleHit, ...]:
        return ()


class Retrieved:
    """What the gateway would inject: similarity floor, diversity, token budget."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._counter = TokenCounter(_NoTokenizer())

    async def hits(self, store: RuleStore, observation: Observation) -> tuple[RuleHit, ...]:
        settings = self._setting.settings
        retriever = Retriever(
            store,
            self._setting.embedder,
            floor=settings.similarity_floor,
            mmr_lambda=settings.mmr_lambda,
            # A run waits for its embeddings; only a client must not.
            timeout=3600.0,
        )
        retrieval = await retriever.retrieve(
            NAMESPACE, observation.question, settings.max_positive, settings.max_negative
        )
        if retrieval.degraded is not None:
            raise UpstreamError(f"rules could not be looked up: {retrieval.degraded}")
        return await fit(
            retrieval.hits,
            model=observation.model,
            counter=self._counter,
            budget=settings.rules_token_budget,
            context=None,
            messages=observation.messages,
            answer_tokens=0,
        )


class RandomRules:
    """As many active rules as would be retrieved at most, drawn by the question's seed."""

    def __init__(self, setting: Setting) -> None:
        self._settings = setting.settings

    async def hits(self, store: RuleStore, observation: Observation) -> tuple[RuleHit, ...]:
        dice = random.Random(observation.seed)
        hits: list[RuleHit] = []
        for polarity, most in (
            (Polarity.POSITIVE, self._settings.max_positive),
            (Polarity.NEGATIVE, self._settings.max_negative),
        ):
            rules = await _all_active(store, polarity)
            # Drawn by place, not by id: ids are made anew when a pass is replayed.
            for place in sorted(dice.sample(range(len(rules)), min(most, len(rules)))):
                rule = rules[place]
                hits.append(RuleHit(rule.id, rule.polarity, rule.text, rule.trigger, 0.0))
        return tuple(hits)


async def _all_active(store: RuleStore, polarity: Polarity) -> list[Rule]:
    """Oldest first."""
    where = RuleFilter(namespace=NAMESPACE, polarity=polarity, state=RuleState.ACTIVE)
    rules: list[Rule] = []
    cursor: str | None = None
    while True:
        page = await store.list_rules(where, limit=500, cursor=cursor)
        rules += page.items
        cursor = page.next_cursor
        if cursor is None:
            return rules[::-1]


class _NoTokenizer:
    """Rules are measured by the estimate: asking the server could come out differently twice."""

    async def count_tokens(self, model: str, text: str, *, seconds: float = 0) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class Looped:
    """An arm that runs the whole loop; `lookup` makes its way of choosing rules, None for none."""

    name: str
    lookup: type[Retrieved] | type[RandomRules] | None
    stateful: bool

    async def start(self, setting: Setting, repeat: Repeat) -> _Pass:
        folder = setting.scratch / f"{self.name}-{repeat.seed}-{repeat.order}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        settings = setting.settings
        store = await RuleStore.open(
            f"sqlite:///{folder / 'rules.db'}",
            embedding_model=setting.embedder.name,
            dimension=setting.embedder.dimension,
            options=StoreOptions(
                capacity=settings.capacity,
                pruning=settings.pruning,
                merge_threshold=settings.merge_threshold,
            ),
        )
        await store.ensure_namespace(NAMESPACE)
        lookup = NoRules() if self.lookup is None else self.lookup(setting)
        return _Pass(self, setting, repeat, store, lookup, folder)


EMPTY_BANK = Looped("empty-bank", None, stateful=False)
PAPER = Looped("paper", Retrieved, stateful=True)
RANDOM_RULES = Looped("random-rules", RandomRules, stateful=True)


@dataclass(frozen=True, slots=True)
class _Lesson:
    observation: Observation
    distillation: Distillation


class _Pass:
    def __init__(
        self,
        arm: Looped,
        setting: Setting,
        repeat: Repeat,
        store: RuleStore,
        lookup: Lookup,
        folder: Path,
    ) -> None:
        self._arm = arm
        self._setting = setting
        self._repeat = repeat
        self._store = store
        self._lookup = lookup
        self._folder = folder

    async def answer(self, asked: Asked) -> Outcome:
        observation = observe(self._setting, self._repeat, asked, arm=self._arm.name)
        hits = await self._lookup.hits(self._store, observation)
        observation = observe(self._setting, self._repeat, asked, arm=self._arm.name, hits=hits)
        backend = self._setting.calls.scoped(scope(self._arm.name, self._repeat, asked))
        setting = self._setting
        loop = build_loop(
            setting.settings, backend, setting.embedder, setting.equivalence, setting.prompts
        )
        try:
            exploration = await loop.explore(observation)
        except UpstreamError as error:
            return Outcome(asked, "", backend, failure=error.message, hits=hits)
        problems = list(exploration.problems)
        distillation = None
        if self._arm.stateful and exploration.selection.better is not None:
            try:
                distillation = await loop.distil(observation, exploration.selection)
            except UpstreamError as error:
                problems.append(f"distiller: {error.message}")
        chosen = exploration.selection.chosen
        return Outcome(
            asked=asked,
            text=chosen.text if chosen is not None else "",
            backend=backend,
            failure=None if chosen is not None else "no answer",
            trajectories=exploration.trajectories,
            hits=hits,
            details=_details(exploration, problems, hits),
            lesson=None if distillation is None else _Lesson(observation, distillation),
        )

    async def learn(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for outcome in outcomes:
            if isinstance(outcome.lesson, _Lesson) and outcome.lesson.distillation.rules:
                rows += await self._store_rules(outcome.asked, outcome.lesson)
        return rows

    async def _store_rules(self, asked: Asked, lesson: _Lesson) -> list[dict[str, Any]]:
        """Through a learning job, as the gateway does it."""
        observation, store = lesson.observation, self._store
        await store.begin_episode(
            observation.episode_id,
            namespace=NAMESPACE,
            mode="explore",
            question=observation.question,
            model=observation.model,
        )
        await store.finish_episode(
            observation.episode_id,
            answer=None,
            trace={},
            job_payload={},
            exposures=[hit.id for hit in observation.hits],
        )
        job = await store.claim_job(_OWNER, episode_id=observation.episode_id)
        assert job is not None, "the job was written the line before"
        rules = lesson.distillation.rules
        applied = await store.apply_learning(
            job, await drafts_of(observation, rules, self._setting.embedder)
        )
        triggers = {rule.text: rule.trigger for rule in rules}
        return [
            {
                "id": asked.id,
                "polarity": learned.polarity.value,
                "text": learned.text,
                "trigger": triggers.get(learned.text, ""),
                "outcome": learned.outcome,
                "reason": learned.reason,
            }
            for learned in applied.learned
        ]

    async def close(self) -> None:
        await self._store.close()
        shutil.rmtree(self._folder, ignore_errors=True)


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
