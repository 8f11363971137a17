"""Asks the store what is known near a question, and plans the effort of its exploration."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

from app.domain.trajectory import Observation, Role, Trajectory
from app.loop.effort import (
    NEAR,
    NEIGHBOURS,
    TOO_FEW_WORDINGS,
    TUTOR_FAILED,
    Effort,
    effort,
)
from app.upstream.embeddings import Embedder, vector_of_question
from rules_store.models.examples import LEAST_AGREED, ExampleUse
from rules_store.models.rules import Vector
from rules_store.store import RuleStore

TUTOR_MEMORY = 8
"""Explorations after which a Tutor that was of use in fewer than half of them is spared."""
STILL_ASKED = 0.1
"""Share of explorations that ask such a Tutor all the same."""


class EffortPlanner:
    def __init__(
        self,
        store: RuleStore,
        embedder: Embedder,
        *,
        enabled: bool,
        confidence: float,
        examples: ExampleUse = ExampleUse.VERIFIED,
    ) -> None:
        """`examples`: which ones are kept, where the namespace says nothing."""
        self._store = store
        self._embedder = embedder
        self._enabled = enabled
        self._confidence = confidence
        self._examples = examples
        self._wordings: dict[str, deque[bool]] = {}
        """By namespace, whether the Tutor's latest wordings could be used."""

    async def plan(
        self, observation: Observation, vector: Vector | None = None, *, patient: bool = False
    ) -> Effort | None:
        """None: explore in full. `patient`: nobody waits for the answer. The question's vector is
        made where none is given; without an embedder nothing is known of the neighbourhood, and
        all of it is explored."""
        if not self._enabled:
            return None
        if vector is None:
            vector = await self.vector(observation)
        if vector is None:
            return None
        namespace = observation.namespace
        rng = random.Random(f"{observation.episode_id}/explore")
        near = self._store.evidence.near_precedents(namespace, vector, floor=NEAR, k=NEIGHBOURS)
        planned = effort(
            near,
            self._store.evidence.mean_agreement(namespace),
            confidence=self._confidence,
            lot=rng.random(),
        )
        tutor = self._tutor_helps(namespace) or rng.random() < STILL_ASKED
        agreed = LEAST_AGREED if self.consensus_counts(namespace) else 0
        return replace(planned, patient=patient, agreed=agreed, tutor=tutor)

    def consensus_counts(self, namespace: str) -> bool:
        """Whether what an exploration agrees on becomes an example."""
        own = self._store.namespaces.settings_of(namespace).examples
        return (self._examples if own is None else own) is ExampleUse.CONSENSUS

    def note(
        self,
        namespace: str,
        effort: Effort | None,
        trajectories: Sequence[Trajectory],
        problems: Collection[str],
    ) -> None:
        """What came of an exploration, for the next ones."""
        others = any(t.role is Role.STUDENT and t.index > 1 for t in trajectories)
        if effort is not None and effort.tutor and others:
            known = self._wordings.setdefault(namespace, deque(maxlen=TUTOR_MEMORY))
            known.append(not {TOO_FEW_WORDINGS, TUTOR_FAILED} & set(problems))

    def _tutor_helps(self, namespace: str) -> bool:
        known = self._wordings.get(namespace, ())
        return len(known) < TUTOR_MEMORY or 2 * sum(known) >= TUTOR_MEMORY

    async def vector(self, observation: Observation) -> Vector | None:
        """Of the question, shape (d,); None where it can't be made now."""
        return await vector_of_question(self._embedder, observation.question)
