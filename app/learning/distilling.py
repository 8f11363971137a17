"""How a contrast becomes rules: the variants of the distiller behind one small interface.

    contrast   one call that sees one contrast
    named      one call that sees one contrast and, where its answers are names that the task
               lists, the task; its rules say when to give which
    cluster    one call that sees it beside contrasts of near questions
    revised    as `contrast`; then the rules are tried on near stored questions, and written once
               more by a call that sees what they helped and what they spoiled

Each asks the model that is set to write rules (`app.upstream.distiller_model`), and each falls
back on `contrast` where the namespace has nothing near. Which is the best is to be measured
(`python -m benchmarks.rule_lift`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import structlog

from app.domain.serialization import contrast_of, observation_from_json
from app.domain.trajectory import Contrast, Cost, DistilledRule, Observation, Selection
from app.exceptions import TTCLError, UpstreamError
from app.learning.evaluation.gatekeeper import with_rules
from app.learning.evaluation.outcomes import Judge
from app.loop.loop import Distillation, Loop
from app.loop.reflect.distiller import TriedOn, is_two_sided, names_in
from app.upstream.embeddings import Embedder, vector_of_question
from rules_store.errors import UnknownEpisode
from rules_store.models.rules import RuleHit, Vector
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

NEAR = 0.5
"""Least cosine of two questions of one kind."""
OTHERS = 3
"""Further contrasts that one call sees at most."""
LOOKED_AT = 12
"""Near questions that are looked at for them."""
REPLAYS = 3
"""Stored questions on which rules are tried before they are written once more."""


class Distilling(Protocol):
    """Turns a contrast into rules."""

    async def distil(
        self,
        observation: Observation,
        selection: Selection,
        *,
        judged: bool,
        gated: bool,
        calls: float = math.inf,
    ) -> Distillation:
        """`judged`, `gated`: see `Loop.distil`. `calls`: how many it may make; with fewer than it
        wants it does what it can. Raises `UpstreamError`."""
        ...


class OneContrast:
    """As the paper has it. `named`: where somebody has said which of the task's answers is right,
    when to give that one, and not the other."""

    def __init__(self, loop: Loop, *, named: bool = False) -> None:
        self._loop = loop
        self._named = named

    async def distil(
        self,
        observation: Observation,
        selection: Selection,
        *,
        judged: bool,
        gated: bool,
        calls: float = math.inf,
    ) -> Distillation:
        names = names_in(observation, selection) if self._named else None
        return await self._loop.distil(
            observation, selection, names=names, judged=judged, gated=gated
        )


class Cluster:
    """Beside up to `OTHERS` contrasts of the nearest questions that episodes have kept."""

    def __init__(self, store: RuleStore, loop: Loop, embedder: Embedder) -> None:
        self._store = store
        self._loop = loop
        self._embedder = embedder

    async def distil(
        self,
        observation: Observation,
        selection: Selection,
        *,
        judged: bool,
        gated: bool,
        calls: float = math.inf,
    ) -> Distillation:
        others = await self._near(observation) if is_two_sided(selection) else []
        return await self._loop.distil(
            observation, selection, others=others, judged=judged, gated=gated
        )

    async def _near(self, observation: Observation) -> list[Contrast]:
        vector = await vector_of_question(self._embedder, observation.question)
        if vector is None:
            return []
        found: list[Contrast] = []
        for episode_id in await self._episodes(observation.namespace, vector):
            if len(found) == OTHERS:
                break
            if episode_id == observation.episode_id:
                continue
            try:
                episode = await self._store.episodes.get(episode_id)
            except UnknownEpisode:  # retention has taken it
                continue
            contrast = contrast_of(episode)
            # An imported example may name any episode, another namespace's too.
            if contrast is not None and episode.namespace == observation.namespace:
                found.append(contrast)
        return found

    async def _episodes(self, namespace: str, vector: Vector) -> list[str]:
        """Ids of those that asked something near, the nearest first: explored ones, and those that
        feedback made an example of."""
        explored = self._store.evidence.near_precedents(namespace, vector, floor=NEAR, k=LOOKED_AT)
        examples = await self._store.examples.nearest(vector, namespace=namespace, limit=LOOKED_AT)
        near = {each.episode_id: each.similarity for each in explored}
        for each in examples:
            source = each.example.source_episode
            if source is not None and each.similarity >= NEAR:
                near.setdefault(source, each.similarity)
        return sorted(near, key=lambda episode: (-near[episode], episode))


class Revised:
    """Written once, tried on `REPLAYS` stored questions, and written once more."""

    def __init__(self, store: RuleStore, loop: Loop, embedder: Embedder, judge: Judge) -> None:
        self._store = store
        self._loop = loop
        self._embedder = embedder
        self._judge = judge

    async def distil(
        self,
        observation: Observation,
        selection: Selection,
        *,
        judged: bool,
        gated: bool,
        calls: float = math.inf,
    ) -> Distillation:
        first = await self._loop.distil(observation, selection, judged=judged, gated=gated)
        rules = [rule for rule in first.rules if rule.refusal is None]
        if not rules or calls - first.cost.calls < REPLAYS + 1:
            return first
        tried, cost = await self._tried(observation, rules)
        first = dataclasses.replace(first, cost=first.cost + cost, tried=tuple(tried))
        if not tried or all(each.gained for each in tried):
            return first
        try:
            again = await self._loop.revise(
                observation, selection, rules, tried, judged=judged, gated=gated
            )
        except UpstreamError as error:
            log.warning("rules not revised", episode=observation.episode_id, error=error)
            return dataclasses.replace(first, cost=first.cost + Cost(calls=1))
        cost, elsewhere = first.cost + again.cost, first.elsewhere + again.elsewhere
        kept = again if any(rule.refusal is None for rule in again.rules) else first
        return dataclasses.replace(kept, cost=cost, elsewhere=elsewhere, tried=first.tried)

    async def _tried(
        self, observation: Observation, rules: Sequence[DistilledRule]
    ) -> tuple[list[TriedOn], Cost]:
        """What all of them together did to near stored questions, and what it took to find out. A
        replay that fails or can't be compared says nothing."""
        vector = await vector_of_question(self._embedder, observation.question)
        if vector is None:
            return [], Cost()
        near = await self._store.evidence.replayable(
            observation.namespace,
            vector,
            floor=NEAR,
            limit=REPLAYS,
            without={observation.episode_id},
        )
        found: list[TriedOn] = []
        cost = Cost()
        for precedent in near:
            stored = observation_from_json(precedent.observation)
            answer = await self._loop.replay(with_rules(stored, *map(_hit, rules)))
            cost += answer.cost
            if answer.failure is not None:
                continue
            try:
                trial = await self._judge.trial(stored, precedent, answer)
            except TTCLError as error:
                log.warning("replay not judged", episode=observation.episode_id, error=error)
                continue
            if trial is not None and precedent.answer is not None:
                found.append(
                    TriedOn(
                        stored.question,
                        precedent.answer,
                        answer.text,
                        trial.without_rule,
                        trial.with_rule,
                    )
                )
        return found, cost


def _hit(rule: DistilledRule) -> RuleHit:
    return RuleHit(f"draft-{rule.polarity.value}", rule.polarity, rule.text, rule.trigger, 1.0)
