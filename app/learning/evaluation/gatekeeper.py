"""Replays candidates on stored questions until the gate knows, and demotes what fails in use.

A replay is one call: the stored question is answered by the Teacher as before, with the rule added;
the answer without it is the one that is stored. Which rule is tried next: every other time the one
with the fewest trials, so that none is starved, else the one whose lift, drawn from its posterior,
is the largest (Thompson sampling), so that what may help is known soon.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from app.domain.serialization import observation_from_json
from app.domain.trajectory import Cost, Observation
from app.exceptions import TTCLError
from app.learning.evaluation.outcomes import Judge
from app.loop.loop import Loop
from app.observability.tracing import NO_TRACES, Tracer, set_attributes, set_cost, span
from rules_store.models.evidence import Contender, Judgement, Precedent, Trial
from rules_store.models.rules import Rule, RuleHit
from rules_store.policy.lift import UNKNOWN_LIFT
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

LOOKED_AT = 8
"""Precedents that are looked at for one replay; the first that fits is taken."""


QUEUE = 3
"""Candidates that wait at the gate before new rules are written down less often."""


def worth_distilling(waiting: int, *, seed: str) -> bool:
    """Whether one more candidate is worth a call, where so many `waiting` ones can't all be tried
    soon: the more there are, the fewer are added, but never none. `seed` decides."""
    return waiting <= QUEUE or random.Random(f"{seed}/distil").random() < QUEUE / waiting


@dataclass(frozen=True, slots=True)
class GateSettings:
    floor: float
    """Least cosine of a precedent to the rule's trigger or text."""
    probation: int


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What is tried next: a rule on a stored question."""

    rule: Rule
    precedent: Precedent
    observation: Observation


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """One replay that was made. `trial` None: the two answers could not be compared."""

    choice: Choice
    cost: Cost
    trial: Trial | None


class Gatekeeper:
    def __init__(self, store: RuleStore, loop: Loop, judge: Judge, settings: GateSettings) -> None:
        self._store = store
        self._loop = loop
        self._judge = judge
        self._settings = settings
        self._barren: set[tuple[str, str]] = set()
        """Rule and episode pairs whose replay could not be compared, in this process."""

    async def step(
        self, namespace: str, rng: random.Random, tracer: Tracer = NO_TRACES
    ) -> Cost | None:
        """One replay of one contender and what follows from it; None where there is nothing to
        try. Raises `StoreError`."""
        choice = await self.choose(namespace, rng)
        if choice is None:
            return None
        rule, episode = choice.rule.id, choice.precedent.episode_id
        with tracer.work("trial", {}, namespace=namespace, rule=rule, episode=episode) as trial:
            with span("replay") as step:
                replay = await self.replay(choice)
                set_cost(step, replay.cost)
            judgement = await self.record(replay)
            verdict = None if judgement is None else judgement.kind
            set_attributes(trial, compared=replay.trial is not None, verdict=verdict)
        return replay.cost

    async def choose(self, namespace: str, rng: random.Random) -> Choice | None:
        if self._store.namespaces.is_frozen(namespace):
            return None
        for contender in _in_turn(await self._store.evidence.contenders(namespace), rng):
            found = await self._precedent(contender.rule)
            if found is not None:
                return found
        return None

    async def replay(self, choice: Choice) -> Replay:
        """Calls the model; changes nothing. A failed call or judge is no evidence."""
        rule, observation = choice.rule, choice.observation
        hit = RuleHit(rule.id, rule.polarity, rule.text, rule.trigger, 1.0)
        answer = await self._loop.replay(with_rules(observation, hit))
        if answer.failure is not None:
            # Of the model server, not of the rule: the pair may be tried again.
            return Replay(choice, answer.cost, None)
        try:
            trial = await self._judge.trial(observation, choice.precedent, answer)
        except TTCLError as error:
            log.warning("replay not judged", rule=rule.id, error=error)
            trial = None
        if trial is None:
            self._barren.add((rule.id, choice.precedent.episode_id))
        return Replay(choice, answer.cost, trial)

    async def record(self, replay: Replay) -> Judgement | None:
        """Stores the trial; the gate's judgement. Raises `StoreError`."""
        if replay.trial is None:
            return None
        judgement = await self._store.evidence.record_trial(replay.choice.rule, replay.trial)
        if judgement.kind is not None:
            log.info("gate", rule=judgement.rule_id, kind=judgement.kind, reason=judgement.reason)
        return judgement

    async def review(self, namespace: str) -> list[Judgement]:
        """Demotes active rules that fail in use. Raises `StoreError`."""
        done = await self._store.evidence.review(namespace, probation=self._settings.probation)
        for each in done:
            log.info("rule demoted", rule=each.rule_id, namespace=namespace, reason=each.reason)
        return done

    async def _precedent(self, rule: Rule) -> Choice | None:
        """The nearest stored question on which the rule can be tried: not one that it steered."""
        near = await self._store.evidence.untried_precedents(
            rule, floor=self._settings.floor, limit=LOOKED_AT
        )
        for precedent in near:
            observation = observation_from_json(precedent.observation)
            steered = any(hit.id == rule.id for hit in observation.hits)
            if not steered and (rule.id, precedent.episode_id) not in self._barren:
                return Choice(rule, precedent, observation)
        return None


def with_rules(observation: Observation, *hits: RuleHit) -> Observation:
    """A stored question with further rules, as retrieval would put them into its block."""
    every = tuple(sorted((*observation.hits, *hits), key=_in_block))
    return dataclasses.replace(observation, hits=every)


def _in_block(hit: RuleHit) -> tuple[int, str, str]:
    """The order in which retrieval puts rules into the block."""
    return (0 if hit.polarity.value == "positive" else 1, hit.text, hit.id)


def _in_turn(waiting: Sequence[Contender], rng: random.Random) -> list[Contender]:
    """Whom to try first, second, ...: `waiting` has the least tried first."""
    if rng.random() < 0.5:
        return list(waiting)

    def drawn(contender: Contender) -> float:
        standing = contender.standing
        lift = UNKNOWN_LIFT if standing is None else standing.lift
        return rng.gauss(lift.mean, lift.deviation)

    draws = [(drawn(each), place) for place, each in enumerate(waiting)]
    return [waiting[place] for _, place in sorted(draws, key=lambda pair: (-pair[0], pair[1]))]
