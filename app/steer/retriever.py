"""Which rules fit a question: similarity floor, then diversity. No SQL and no network but the
question's embedding; zero rules is a normal outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import structlog

from app.steer.mmr import mmr
from app.upstream.embeddings import Embedder
from rules_store.errors import StoreError
from rules_store.store import RuleStore
from rules_store.types import Candidate, Polarity, RuleHit, Vector

log = structlog.get_logger(__name__)

POOL = 5
"""MMR chooses among this many times the rules asked for."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`hits` in stable order (polarity, then text): the same rules always make the same block."""

    hits: tuple[RuleHit, ...] = ()
    degraded: str | None = None
    """Why nothing could be looked up; None when the look-up worked, with or without hits."""


@dataclass(frozen=True, slots=True, eq=False)
class Sifted:
    """What became of one polarity: `near` was looked at, most similar first, what is below `floor`
    fell away, and `chosen` is what diversity kept of the rest, in stable order."""

    floor: float
    near: list[Candidate]
    chosen: tuple[RuleHit, ...] = ()


class Retriever:
    def __init__(
        self,
        store: RuleStore,
        embedder: Embedder,
        *,
        floor: float,
        mmr_lambda: float,
        timeout: float,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._floor = floor
        self._lambda = mmr_lambda
        self._timeout = timeout

    async def retrieve(
        self, namespace: str, question: str, max_positive: int, max_negative: int
    ) -> Retrieval:
        """Rules of the namespace for a question. Never raises for a broken embedder or index."""
        wanted = {Polarity.POSITIVE: max_positive, Polarity.NEGATIVE: max_negative}
        if not question.strip() or not any(wanted.values()):
            return Retrieval()
        if not self._store.has_rules(namespace):
            return Retrieval()
        if not self._embedder.ready:
            return Retrieval(degraded="embedder_not_ready")
        try:
            async with asyncio.timeout(self._timeout):
                vector = (await self._embedder.embed([question]))[0]
        except TimeoutError:
            return Retrieval(degraded="embedder_timeout")
        except Exception as error:
            # Whatever is wrong with an embedder is no reason to refuse an answer.
            log.warning("question not embedded", error=repr(error))
            return Retrieval(degraded="embedder_failed")
        try:
            hits: list[RuleHit] = []
            for polarity, most in wanted.items():
                hits.extend(self.sift(namespace, vector, polarity, most).chosen)
        except StoreError as error:
            log.warning("rules not searched", error=repr(error))
            return Retrieval(degraded="index_failed")
        return Retrieval(tuple(hits))

    def sift(self, namespace: str, vector: Vector, polarity: Polarity, most: int) -> Sifted:
        """At most `most` rules for a question's vector. Raises StoreError."""
        own = self._store.settings_of(namespace).similarity_floor
        floor = self._floor if own is None else own
        near = self._store.search(namespace, vector, polarity, most * POOL)
        passed = [candidate for candidate in near if candidate.hit.similarity >= floor]
        if not passed:
            return Sifted(floor, near)
        chosen = mmr(
            [candidate.hit.similarity for candidate in passed],
            np.stack([candidate.vector for candidate in passed]),
            most,
            self._lambda,
        )
        kept = [passed[position].hit for position in chosen]
        # By text before id: ids are random, and a benchmark's replay must build the same prompt.
        return Sifted(floor, near, tuple(sorted(kept, key=lambda hit: (hit.text, hit.id))))
