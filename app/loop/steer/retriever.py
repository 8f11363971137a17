"""Which rules fit a question: similarity floor, worth, then diversity. No SQL, and no network but
the question's embedding; zero rules is a normal outcome.

Under the gated policy a rule's lift counts beside its similarity. For a request it is drawn from
its posterior (Thompson sampling: Thompson, "On the likelihood that one unknown probability exceeds
another", Biometrika 1933), so that rules of which little is known get their share of requests. A
rule that is expected to do harm is left out unless its draw is above zero; and in a share of the
requests one rule is left out by lot (hold-out).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from app.loop.steer.mmr import mmr
from app.observability.tracing import span
from app.settings import DEFAULT_EXPERIMENT, Experiment, Policy
from app.upstream.embeddings import Embedder
from rules_store.errors import StoreError
from rules_store.models.evidence import Exposure
from rules_store.models.rules import Polarity, RuleHit, SearchResult, Vector
from rules_store.policy.lift import UNKNOWN_LIFT
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

POOL = 5
"""MMR chooses among this many times the rules asked for."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`hits` in stable order (polarity, then text): the same rules always make the same block."""

    hits: tuple[RuleHit, ...] = ()
    degraded: str | None = None
    """Why nothing could be looked up; None when the look-up worked, with or without hits."""
    withheld: RuleHit | None = None
    """The rule that was held out at random."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What hits and the withheld rule were ranked by, by rule id."""


def exposures(
    hits: Sequence[RuleHit], withheld: RuleHit | None, scores: Mapping[str, float]
) -> list[Exposure]:
    """What the ledger keeps of the rules that were injected, in this order, and withheld."""

    def one(hit: RuleHit, position: int | None) -> Exposure:
        return Exposure(hit.id, position, hit.similarity, scores.get(hit.id, hit.similarity))

    shown = [one(hit, position) for position, hit in enumerate(hits)]
    return shown if withheld is None else [*shown, one(withheld, None)]


@dataclass(frozen=True, slots=True, eq=False)
class RankedRules:
    """What became of one polarity: `near` was looked at, most similar first, what is below `floor`
    fell away, so did what is `unlikely` to help or `unproven`, and `chosen` is what diversity kept
    of the rest, in stable order."""

    floor: float
    near: SearchResult
    chosen: tuple[RuleHit, ...] = ()
    unlikely: frozenset[str] = frozenset()
    unproven: frozenset[str] = frozenset()
    """Active rules that have not proven themselves: one of them at most was let through."""
    scores: Mapping[str, float] = field(default_factory=dict)


class Retriever:
    def __init__(
        self,
        store: RuleStore,
        embedder: Embedder,
        *,
        floor: float,
        timeout: float,
        policy: Policy = Policy.PAPER,
        experiment: Experiment = DEFAULT_EXPERIMENT,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._floor = floor
        self._timeout = timeout
        self._policy = policy
        self._experiment = experiment

    def gated(self, namespace: str) -> bool:
        own = self._store.namespaces.settings_of(namespace).policy
        return (self._policy if own is None else Policy(own)) is Policy.GATED

    def hold_out_rate(self, namespace: str) -> float:
        return self._experiment.hold_out_rate if self.gated(namespace) else 0.0

    def waits(self, namespace: str, question: str) -> bool:
        """Whether `retrieve` must wait for an embedding."""
        return self._store.has_rules(namespace) and not self._embedder.knows(question)

    async def retrieve(
        self, namespace: str, question: str, max_positive: int, max_negative: int, *, seed: str = ""
    ) -> Retrieval:
        """Rules of the namespace for a question. `seed` decides what is drawn: the same one, with
        the same rules and evidence, gives the same rules. Never raises for a broken embedder or
        index."""
        wanted = {Polarity.POSITIVE: max_positive, Polarity.NEGATIVE: max_negative}
        if not question.strip() or not any(wanted.values()):
            return Retrieval()
        if not self._store.has_rules(namespace):
            return Retrieval()
        if not self._embedder.ready:
            return Retrieval(degraded="embedder_not_ready")
        try:
            async with asyncio.timeout(self._timeout):
                with span("embed"):
                    vector = (await self._embedder.embed([question]))[0]
        except TimeoutError:
            return Retrieval(degraded="embedder_timeout")
        except Exception as error:
            # Whatever is wrong with an embedder is no reason to refuse an answer.
            log.warning("question not embedded", error=error)
            return Retrieval(degraded="embedder_failed")
        rng = random.Random(seed) if self.gated(namespace) else None
        on_trial = rng is not None and rng.random() < self._experiment.unproven_share
        try:
            sifted = []
            with span("retrieve"):
                for polarity, most in wanted.items():
                    found = self.sift(namespace, vector, polarity, most, rng, on_trial=on_trial)
                    # One unproven rule in a request: what comes of it is then its own doing.
                    on_trial &= not any(hit.id in found.unproven for hit in found.chosen)
                    sifted.append(found)
        except StoreError as error:
            log.warning("rules not searched", error=error)
            return Retrieval(degraded="index_failed")
        hits = [hit for each in sifted for hit in each.chosen]
        scores = {id: score for each in sifted for id, score in each.scores.items()}
        withheld = None
        if rng is not None and hits and rng.random() < self._experiment.hold_out_rate:
            withheld = hits.pop(rng.randrange(len(hits)))
        return Retrieval(tuple(hits), withheld=withheld, scores=scores)

    def sift(
        self,
        namespace: str,
        vector: Vector,
        polarity: Polarity,
        most: int,
        rng: random.Random | None = None,
        *,
        on_trial: bool = False,
    ) -> RankedRules:
        """At most `most` rules for a question's vector, with `on_trial` the best unproven one
        among them. Without `rng` a rule has the lift that is expected of it. Raises
        StoreError."""
        own = self._store.namespaces.settings_of(namespace).similarity_floor
        floor = self._floor if own is None else own
        triggers = self._experiment.trigger_retrieval
        near = self._store.search(namespace, vector, polarity, most * POOL, triggers=triggers)
        near_enough = ((at, hit) for at, hit in enumerate(near.hits) if hit.similarity >= floor)
        relevance = {at: hit.similarity for at, hit in near_enough}
        unlikely: set[int] = set()
        unproven: set[int] = set()
        if self.gated(namespace):
            for at in relevance:
                known = self._store.evidence.standing_of(near.hits[at].id)
                lift = UNKNOWN_LIFT if known is None else known.lift
                gain = lift.mean if rng is None else rng.gauss(lift.mean, lift.deviation)
                relevance[at] += self._experiment.utility_weight * gain
                if self._experiment.abstention and gain <= 0 > lift.mean:
                    unlikely.add(at)
                if known is None or not known.proven:
                    unproven.add(at)
            out = unlikely | unproven
            if on_trial and (waiting := unproven - unlikely):
                out.remove(max(sorted(waiting), key=relevance.__getitem__))
            relevance = {at: value for at, value in relevance.items() if at not in out}
        chosen = mmr(relevance, near.cosines, most, self._experiment.mmr_lambda)
        # By text before id: ids are random, and a benchmark's replay must build the same prompt.
        kept = sorted((near.hits[at] for at in chosen), key=lambda hit: (hit.text, hit.id))

        def ids(places: Iterable[int]) -> frozenset[str]:
            return frozenset(near.hits[at].id for at in places)

        scores = {near.hits[at].id: relevance[at] for at in chosen}
        return RankedRules(floor, near, tuple(kept), ids(unlikely), ids(unproven), scores)
