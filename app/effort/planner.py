"""Asks the store what is known near a question, and plans the effort of its exploration."""

from __future__ import annotations

import random

import structlog

from app.effort.stopping import NEAR, NEIGHBOURS, Effort, effort
from app.trajectory import Observation
from app.upstream.embeddings import Embedder
from rules_store.store import RuleStore
from rules_store.types import Vector

log = structlog.get_logger(__name__)


class EffortPlanner:
    def __init__(
        self, store: RuleStore, embedder: Embedder, *, enabled: bool, confidence: float
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._enabled = enabled
        self._confidence = confidence

    async def plan(self, observation: Observation, vector: Vector | None = None) -> Effort | None:
        """None: explore in full. The question's vector is made where none is given; without an
        embedder nothing is known of the neighbourhood, and all of it is explored."""
        if not self._enabled:
            return None
        if vector is None:
            vector = await self.vector(observation)
        if vector is None:
            return None
        namespace = observation.namespace
        near = self._store.near_precedents(namespace, vector, floor=NEAR, k=NEIGHBOURS)
        return effort(
            near,
            self._store.mean_agreement(namespace),
            confidence=self._confidence,
            lot=random.Random(f"{observation.episode_id}/explore").random(),
        )

    async def vector(self, observation: Observation) -> Vector | None:
        """Of the question, shape (d,); None where it can't be made now."""
        if not self._embedder.ready or not observation.question.strip():
            return None
        try:
            row: Vector = (await self._embedder.embed([observation.question]))[0]
        except Exception as error:
            log.warning("question not embedded", error=repr(error))
            return None
        return row
