"""Which rules and examples fit a question, and which of them it is given. No SQL, and no network
but the question's embedding, which serves both; nothing at all is a normal outcome.

Rules: similarity floor, worth, then diversity. Examples: the nearest above their floor; of those
that are as near (within a thousandth) the more trusted and then the newer verified first. Diversity
was tried for them and left out: of four it brought the right label among them no more often, and
fewer of the four had it.

Under the gated policy a rule's lift counts beside its similarity. For a request it is drawn from
its posterior (Thompson sampling: Thompson, "On the likelihood that one unknown probability exceeds
another", Biometrika 1933), so that rules of which little is known get their share of requests. A
rule that is expected to do harm is left out unless its draw is above zero; and in a share of the
requests one rule or example is left out by lot (hold-out). Examples are not ranked by their lift:
there are thousands, and of most nothing is known; one whose lift is below zero with its whole
interval is left out. And whether a request gets rules, examples, both or none is decided by what
came of such choices in the namespace, and near the question (`rules_store.policy.choice`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from app.loop.steer.experience import NO_EXPERIENCE, Experience, Hit
from app.loop.steer.mmr import mmr
from app.observability.tracing import span
from app.settings import DEFAULT_EXPERIMENT, ExperienceLimits, Experiment, Policy
from app.upstream.embeddings import Embedder
from rules_store.errors import StoreError
from rules_store.models.examples import ExampleHit, ExampleUse, Trust
from rules_store.models.rules import Polarity, RuleHit, SearchResult, Vector
from rules_store.policy.choice import choose, on_offer
from rules_store.policy.lift import UNKNOWN_LIFT
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

POOL = 5
"""What is chosen is chosen among this many times the rules, or examples, asked for."""
_TRUST = tuple(Trust)


@dataclass(frozen=True, slots=True)
class Retrieval:
    experience: Experience = NO_EXPERIENCE
    degraded: str | None = None
    """Why nothing could be looked up; None when the look-up worked, with or without hits."""
    incomplete: bool = False
    """Whether there is more that no look-up finds, as it has no vector yet."""


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


@dataclass(frozen=True, slots=True, eq=False)
class RankedExamples:
    """What became of the examples: `near` was looked at, nearest first and, but for those of the
    same task, none below the floor; those not `trusted` enough for the namespace and those
    `unlikely` to help fell away, and `chosen` are the first of the rest."""

    floor: float
    near: tuple[ExampleHit, ...] = ()
    chosen: tuple[ExampleHit, ...] = ()
    unlikely: frozenset[str] = frozenset()
    untrusted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RetrieverOptions:
    """Of the service; a namespace's own policy, floor and use of examples go before."""

    floor: float
    example_floor: float
    timeout: float
    """Seconds for the question's embedding."""
    examples: ExampleUse = ExampleUse.VERIFIED
    policy: Policy = Policy.PAPER
    experiment: Experiment = DEFAULT_EXPERIMENT


class Retriever:
    def __init__(self, store: RuleStore, embedder: Embedder, options: RetrieverOptions) -> None:
        self._store = store
        self._embedder = embedder
        self._options = options
        self._experiment = options.experiment

    def gated(self, namespace: str) -> bool:
        own = self._store.namespaces.settings_of(namespace).policy
        return (self._options.policy if own is None else Policy(own)) is Policy.GATED

    def hold_out_rate(self, namespace: str) -> float:
        return self._experiment.hold_out_rate if self.gated(namespace) else 0.0

    def example_use(self, namespace: str) -> ExampleUse:
        own = self._store.namespaces.settings_of(namespace).examples
        return self._options.examples if own is None else own

    def _has_any(self, namespace: str, limits: ExperienceLimits) -> bool:
        return (limits.rules > 0 and self._store.has_rules(namespace)) or (
            limits.examples > 0
            and self._store.has_examples(namespace)
            and self.example_use(namespace) is not ExampleUse.OFF
        )

    def still_there(self, namespace: str, given: Experience) -> Experience:
        """Less what has been retired, reworded or has expired since it was chosen; no I/O."""
        rules = self._store.unchanged_rules(namespace, given.rules)
        examples = self._store.unchanged_examples(namespace, given.examples)
        return given.only({hit.id for hit in rules} | {hit.id for hit in examples})

    async def retrieve(
        self,
        namespace: str,
        question: str,
        limits: ExperienceLimits,
        *,
        instructions: str | None = None,
        seed: str | None = "",
    ) -> Retrieval:
        """Rules and examples of the namespace for a question. `instructions`: as
        `injector.instructions_of` has them. `seed` decides what is drawn: the same one, with the
        same experience and evidence, gives the same; None draws for nothing and gives what most
        questions like this get. Never raises for a broken embedder or index."""
        incomplete = bool(question.strip()) and self._store.is_incomplete(namespace)
        if not question.strip() or not self._has_any(namespace, limits):
            return Retrieval(incomplete=incomplete)
        if not self._embedder.ready:
            return Retrieval(degraded="embedder_not_ready")
        try:
            async with asyncio.timeout(self._options.timeout):
                with span("embed"):
                    vector = (await self._embedder.embed([question]))[0]
        except TimeoutError:
            return Retrieval(degraded="embedder_timeout")
        except Exception as error:
            # Whatever is wrong with an embedder is no reason to refuse an answer.
            log.warning("question not embedded", error=error)
            return Retrieval(degraded="embedder_failed")
        try:
            with span("retrieve"):
                found = self._chosen(namespace, vector, limits, instructions, seed)
                return Retrieval(found, incomplete=incomplete)
        except StoreError as error:
            log.warning("experience not searched", error=error)
            return Retrieval(degraded="index_failed")

    def _chosen(
        self,
        namespace: str,
        vector: Vector,
        limits: ExperienceLimits,
        instructions: str | None,
        seed: str | None,
    ) -> Experience:
        """Raises StoreError."""
        gated = self.gated(namespace)
        rng = random.Random(seed) if gated and seed is not None else None
        sifted = self._sift_all(namespace, vector, limits, rng)
        rules = [hit for each in sifted for hit in each.chosen]
        scores = {id: score for each in sifted for id, score in each.scores.items()}
        recalled = self.recall(namespace, vector, limits.examples, instructions)
        examples = list(recalled.chosen)
        offered = on_offer(rules=bool(rules), examples=bool(examples))
        if gated and len(offered) > 1:
            beliefs = self._store.evidence.beliefs_near(namespace, vector)
            given = beliefs.best(offered)
            if rng is not None:
                given = choose(beliefs, offered, random.Random(f"{seed}/choice"))
            rules = rules if given.has_rules else []
            examples = examples if given.has_examples else []
        withheld: Hit | None = None
        if rng is not None and (rules or examples):
            withheld = _held_out(rules, examples, rng, self._experiment.hold_out_rate)
        return Experience(tuple(rules), tuple(examples), withheld, scores, offered)

    def _sift_all(
        self,
        namespace: str,
        vector: Vector,
        limits: ExperienceLimits,
        rng: random.Random | None,
    ) -> list[RankedRules]:
        on_trial = rng is not None and rng.random() < self._experiment.unproven_share
        sifted = []
        most = {Polarity.POSITIVE: limits.positive, Polarity.NEGATIVE: limits.negative}
        for polarity, count in most.items():
            found = self.sift(namespace, vector, polarity, count, rng, on_trial=on_trial)
            # One unproven rule in a request: what comes of it is then its own doing.
            on_trial &= not any(hit.id in found.unproven for hit in found.chosen)
            sifted.append(found)
        return sifted

    def recall(
        self, namespace: str, vector: Vector, most: int, instructions: str | None
    ) -> RankedExamples:
        """At most `most` examples for a question's vector. Below the floor are only those with a
        label whose requests had the same instructions: even on other subjects they show what an
        answer to them looks like. Raises StoreError."""
        floor, use = self._options.example_floor, self.example_use(namespace)
        if most < 1 or use is ExampleUse.OFF:
            return RankedExamples(floor)
        near = self._store.search_examples(
            namespace, vector, most * POOL, floor=floor, instructions=instructions
        )
        untrusted: frozenset[str] = frozenset()
        unlikely: frozenset[str] = frozenset()
        if use is not ExampleUse.CONSENSUS:
            untrusted = frozenset(hit.id for hit in near if hit.trust is Trust.CONSENSUS)
        if self.gated(namespace) and self._experiment.abstention:
            unlikely = frozenset(hit.id for hit in near if self._harms(hit.id))
        left = [hit for hit in near if hit.id not in untrusted | unlikely]
        return RankedExamples(
            floor, near, tuple(sorted(left, key=_nearest)[:most]), unlikely, untrusted
        )

    def _harms(self, item_id: str) -> bool:
        known = self._store.evidence.standing_of(item_id)
        return known is not None and known.lift.high < 0

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
        floor = self._options.floor if own is None else own
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


def _nearest(hit: ExampleHit) -> tuple[float, int, float, str]:
    trust = _TRUST.index(hit.trust)
    return (-round(hit.similarity, 3), -trust, -hit.verified_at.timestamp(), hit.id)


def _held_out(
    rules: list[RuleHit], examples: list[ExampleHit], rng: random.Random, rate: float
) -> Hit | None:
    """One of them, taken out by lot in a share of the requests."""
    if rng.random() >= rate:
        return None
    at = rng.randrange(len(rules) + len(examples))
    return rules.pop(at) if at < len(rules) else examples.pop(at - len(rules))
