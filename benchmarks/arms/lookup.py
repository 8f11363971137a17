"""Which rules an arm injects: none, those retrieved, or any."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from app.domain.trajectory import Observation
from app.exceptions import UpstreamError
from app.loop.steer.budget import TokenCounter, fit
from app.loop.steer.experience import NO_EXPERIENCE, Experience
from app.settings import ExperienceLimits
from app.wiring.factories import build_retriever
from benchmarks.arms.base import NAMESPACE, Setting
from rules_store.models.evidence import Exposure
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleHit, RuleState
from rules_store.store import RuleStore


@dataclass(frozen=True, slots=True)
class Found:
    """What one question is given."""

    given: Experience = NO_EXPERIENCE

    @property
    def hits(self) -> tuple[RuleHit, ...]:
        return self.given.rules

    def exposures(self) -> list[Exposure]:
        return self.given.exposures()


class Lookup(Protocol):
    """Which rules an arm injects."""

    async def find(self, store: RuleStore, observation: Observation) -> Found: ...


class NoRules:
    async def find(self, store: RuleStore, observation: Observation) -> Found:
        return Found()


class Retrieved:
    """What the gateway would inject: similarity floor, worth, diversity, token budget."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._counter = TokenCounter(NO_TOKENIZER)

    async def find(self, store: RuleStore, observation: Observation) -> Found:
        settings = self._setting.settings
        # A run waits for its embeddings; only a client must not.
        retriever = build_retriever(settings, store, self._setting.embedder, timeout=3600.0)
        limits = ExperienceLimits(settings.max_positive, settings.max_negative, 0)
        retrieval = await retriever.retrieve(
            NAMESPACE, observation.question, limits, seed=observation.episode_id
        )
        if retrieval.degraded is not None:
            raise UpstreamError(f"rules could not be looked up: {retrieval.degraded}")
        given = await fit(
            retrieval.experience,
            model=observation.model,
            counter=self._counter,
            budget=settings.experience_token_budget,
            context=None,
            messages=observation.messages,
            answer_tokens=0,
        )
        return Found(given)


class RandomRules:
    """As many active rules as would be retrieved at most, drawn by the question's seed."""

    def __init__(self, setting: Setting) -> None:
        self._settings = setting.settings

    async def find(self, store: RuleStore, observation: Observation) -> Found:
        rng = random.Random(observation.seed)
        hits: list[RuleHit] = []
        for polarity, most in (
            (Polarity.POSITIVE, self._settings.max_positive),
            (Polarity.NEGATIVE, self._settings.max_negative),
        ):
            rules = await _all_active(store, polarity)
            # Drawn by place, not by id: ids are made anew when a pass is replayed.
            for place in sorted(rng.sample(range(len(rules)), min(most, len(rules)))):
                rule = rules[place]
                hits.append(RuleHit(rule.id, rule.polarity, rule.text, rule.trigger, 0.0))
        return Found(Experience(tuple(hits)))


async def _all_active(store: RuleStore, polarity: Polarity) -> list[Rule]:
    """Oldest first."""
    where = RuleFilter(namespace=NAMESPACE, polarity=polarity, state=RuleState.ACTIVE)
    rules: list[Rule] = []
    cursor: str | None = None
    while True:
        page = await store.rules.list(where, limit=500, cursor=cursor)
        rules += page.items
        cursor = page.next_cursor
        if cursor is None:
            return rules[::-1]


class _NoTokenizer:
    """Rules are measured by the estimate: asking the server could come out differently twice."""

    async def count_tokens(self, model: str, text: str, *, seconds: float = 0) -> int | None:
        return None


NO_TOKENIZER = _NoTokenizer()
