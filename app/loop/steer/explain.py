"""Which rules and examples a question would get, which not and why, by the code that steers a
request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from app.domain.trajectory import Message
from app.loop.steer.budget import TokenCounter, fit
from app.loop.steer.experience import Experience
from app.loop.steer.injector import has_images, instructions_of
from app.loop.steer.retriever import RankedExamples, RankedRules, Retriever
from app.loop.steer.writer import ExperienceWriter
from app.settings import ExperienceLimits
from rules_store.models.examples import Example, ExampleHit, Given, Trust
from rules_store.models.rules import Polarity, RuleHit, RuleState, Vector
from rules_store.policy.choice import Belief, Beliefs, on_offer
from rules_store.policy.lift import Lift
from rules_store.store import RuleStore


class InjectionVerdict(StrEnum):
    INJECTED = "injected"
    BELOW_FLOOR = "below_floor"
    MMR = "mmr"
    """Others were chosen: nearer ones, or as near and less alike."""
    UNLIKELY = "unlikely"
    """Its lift speaks against it (gated policy)."""
    UNPROVEN = "unproven"
    """It has still to prove itself (gated policy)."""
    BUDGET = "budget"
    STATE = "state"
    DECISION = "decision"
    """Its kind is not given: what came of it so far speaks for another choice (gated policy)."""
    FARTHER = "farther"
    """Nearer, more trusted or newer examples were chosen."""
    UNTRUSTED = "untrusted"
    """A consensus stands behind it, and the namespace recalls verified ones only."""
    CONFLICT = "conflict"
    """Another one of nearly the same question says something else, or is newer."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """One rule near the question. `similarity` is in [-1, 1], `reason` a sentence."""

    id: str
    polarity: Polarity
    state: RuleState
    text: str
    trigger: str
    similarity: float
    verdict: InjectionVerdict
    reason: str
    lift: Lift | None = None
    """None while nothing has been measured."""


@dataclass(frozen=True, slots=True)
class ExplainedExample:
    """One example near the question. `similarity` is in [-1, 1], `reason` a sentence."""

    id: str
    state: RuleState
    question: str
    answer: str
    trust: Trust
    similarity: float
    verdict: InjectionVerdict
    reason: str
    lift: Lift | None = None
    """None while nothing has been measured."""


@dataclass(frozen=True, slots=True)
class ExplainedChoice:
    """One kind of experience on offer, and what is thought of it near the question."""

    given: Given
    belief: Belief


@dataclass(frozen=True, slots=True)
class ExplainedDecision:
    """`given`: what most requests like this get. Under the gated policy a share of `exploring` is
    drawn for instead; under `paper` everything is given, and `choices` is empty."""

    given: Given
    exploring: float
    choices: tuple[ExplainedChoice, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    candidates: tuple[ExplainedRule, ...]
    """Most similar first."""
    examples: tuple[ExplainedExample, ...]
    """Most similar first."""
    decision: ExplainedDecision
    messages: list[Message]
    """The conversation as it would go upstream."""
    floor: float
    example_floor: float
    hold_out: float
    """Share of the requests that leave out one of the injected, by lot."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A conversation with the vector of its last user turn, and what it may get.

    `model` and `context` as for `app.loop.steer.budget.fit`.
    """

    namespace: str
    messages: Sequence[Message]
    vector: Vector
    limits: ExperienceLimits
    domain: str
    model: str
    context: int | None


class Explainer:
    def __init__(
        self,
        store: RuleStore,
        retriever: Retriever,
        counter: TokenCounter,
        writer: ExperienceWriter,
        token_budget: int,
    ) -> None:
        self._store = store
        self._retriever = retriever
        self._counter = counter
        self._writer = writer
        self._budget = token_budget

    async def explain(self, question: Question, limit: int = 20) -> Explanation:
        """At least `limit` of the nearest rules, and as many examples, in any state, where there
        are that many, and all that were looked at. Raises StoreError."""
        limits, namespace = question.limits, question.namespace
        most = {Polarity.POSITIVE: limits.positive, Polarity.NEGATIVE: limits.negative}
        sifted = {
            polarity: self._retriever.sift(namespace, question.vector, polarity, count)
            for polarity, count in most.items()
        }
        wanted = 0 if has_images(question.messages) else limits.examples
        instructions = instructions_of(question.messages)
        recalled = self._retriever.recall(namespace, question.vector, wanted, instructions)
        fitting = Experience(
            tuple(hit for each in sifted.values() for hit in each.chosen), recalled.chosen
        )
        decision = self._decision(question, fitting)
        kept = await fit(
            _given(fitting, decision.given),
            model=question.model,
            counter=self._counter,
            budget=self._budget,
            context=question.context,
            messages=question.messages,
            answer_tokens=0,
        )
        written = self._writer.write(
            kept.rules,
            kept.examples,
            domain=question.domain,
            messages=question.messages,
            fields={},
            namespace=namespace,
        )
        rule_judge = _Judge(sifted, kept, decision, self._budget)
        example_judge = _ExampleJudge(recalled, kept, decision, self._budget)
        return Explanation(
            await self._rules(question, limit, rule_judge),
            await self._examples(question, limit, example_judge),
            decision,
            written.into(question.messages),
            sifted[Polarity.POSITIVE].floor,
            recalled.floor,
            self._retriever.hold_out_rate(namespace) if kept else 0.0,
        )

    def _decision(self, question: Question, fitting: Experience) -> ExplainedDecision:
        offered = on_offer(rules=bool(fitting.rules), examples=bool(fitting.examples))
        if not self._retriever.gated(question.namespace):
            return ExplainedDecision(fitting.given, 0.0, ())
        beliefs: Beliefs = self._store.evidence.beliefs_near(question.namespace, question.vector)
        choices = tuple(ExplainedChoice(each, beliefs.of(each)) for each in offered)
        exploring = beliefs.exploring if len(offered) > 1 else 0.0
        return ExplainedDecision(beliefs.best(offered), exploring, choices)

    async def _rules(
        self, question: Question, limit: int, judge: _Judge
    ) -> tuple[ExplainedRule, ...]:
        found = {hit.id: judge.active(hit) for hit in judge.looked_at}
        for near in await self._store.rules.nearest(
            question.vector, namespace=question.namespace, states=list(RuleState), limit=limit
        ):
            rule = near.rule
            hit = RuleHit(rule.id, rule.polarity, rule.text, rule.trigger, near.similarity)
            if rule.id not in found:
                found[rule.id] = judge.in_state(hit, rule.state)
        ranked = sorted(found.values(), key=lambda each: (-each.similarity, each.text, each.id))
        lifts = await self._lifts([each.id for each in ranked])
        return tuple(replace(each, lift=lifts.get(each.id)) for each in ranked)

    async def _examples(
        self, question: Question, limit: int, judge: _ExampleJudge
    ) -> tuple[ExplainedExample, ...]:
        found = {hit.id: judge.recalled(hit) for hit in judge.looked_at}
        for near in await self._store.examples.nearest(
            question.vector, namespace=question.namespace, states=list(RuleState), limit=limit
        ):
            if near.example.id not in found:
                found[near.example.id] = judge.passed_over(near.example, near.similarity)
        ranked = sorted(found.values(), key=lambda each: (-each.similarity, each.question, each.id))
        lifts = await self._lifts([each.id for each in ranked])
        return tuple(replace(each, lift=lifts.get(each.id)) for each in ranked)

    async def _lifts(self, ids: list[str]) -> Mapping[str, Lift]:
        known = await self._store.evidence.standings_of(ids)
        return {id: each.lift for id, each in known.items() if each.measured}


def _given(fitting: Experience, given: Given) -> Experience:
    return replace(
        fitting,
        rules=fitting.rules if given.has_rules else (),
        examples=fitting.examples if given.has_examples else (),
    )


_NOT_GIVEN = "what came of earlier requests speaks for giving %s"


class _Judge:
    def __init__(
        self,
        sifted: dict[Polarity, RankedRules],
        kept: Experience,
        decision: ExplainedDecision,
        budget: int,
    ) -> None:
        self._sifted = sifted
        self._kept = kept.ids
        self._decision = decision
        self._chosen = {hit.id for each in sifted.values() for hit in each.chosen}
        self._budget = budget

    @property
    def looked_at(self) -> Iterable[RuleHit]:
        return (hit for each in self._sifted.values() for hit in each.near.hits)

    def in_state(self, hit: RuleHit, state: RuleState) -> ExplainedRule:
        if state is RuleState.ACTIVE:
            return self.active(hit)
        return _explained(hit, state, InjectionVerdict.STATE, f"it is {state.value}")

    def active(self, hit: RuleHit) -> ExplainedRule:
        verdict, reason = self._verdict(hit)
        return _explained(hit, RuleState.ACTIVE, verdict, reason)

    def _verdict(self, hit: RuleHit) -> tuple[InjectionVerdict, str]:
        floor = self._sifted[hit.polarity].floor
        if hit.id in self._kept:
            return InjectionVerdict.INJECTED, "it is near enough, chosen, and fits"
        if hit.id in self._chosen and not self._decision.given.has_rules:
            return InjectionVerdict.DECISION, _NOT_GIVEN % self._decision.given.value
        if hit.id in self._chosen:
            return InjectionVerdict.BUDGET, _no_room(self._budget)
        if hit.similarity < floor:
            return (
                InjectionVerdict.BELOW_FLOOR,
                f"{hit.similarity:.3f} is below the floor of {floor:g}",
            )
        if hit.id in self._sifted[hit.polarity].unlikely:
            return InjectionVerdict.UNLIKELY, "what is known of its lift speaks against it"
        if hit.id in self._sifted[hit.polarity].unproven:
            return (
                InjectionVerdict.UNPROVEN,
                "it has not proven itself: a share of the requests try it",
            )
        count = len(self._sifted[hit.polarity].chosen)
        return (
            InjectionVerdict.MMR,
            f"{count} others were chosen: nearer, or as near and less alike",
        )


def _explained(
    hit: RuleHit, state: RuleState, verdict: InjectionVerdict, reason: str
) -> ExplainedRule:
    return ExplainedRule(
        hit.id, hit.polarity, state, hit.text, hit.trigger, hit.similarity, verdict, reason
    )


class _ExampleJudge:
    def __init__(
        self, recalled: RankedExamples, kept: Experience, decision: ExplainedDecision, budget: int
    ) -> None:
        self._recalled = recalled
        self._kept = kept.ids
        self._decision = decision
        self._chosen = {hit.id for hit in recalled.chosen}
        self._budget = budget

    @property
    def looked_at(self) -> Iterable[ExampleHit]:
        return self._recalled.near

    def recalled(self, hit: ExampleHit) -> ExplainedExample:
        verdict, reason = self._verdict(hit)
        return ExplainedExample(
            hit.id,
            RuleState.ACTIVE,
            hit.question,
            hit.answer,
            hit.trust,
            hit.similarity,
            verdict,
            reason,
        )

    def _verdict(self, hit: ExampleHit) -> tuple[InjectionVerdict, str]:
        if hit.id in self._kept:
            return InjectionVerdict.INJECTED, "it is near enough, chosen, and fits"
        if hit.id in self._chosen and not self._decision.given.has_examples:
            return InjectionVerdict.DECISION, _NOT_GIVEN % self._decision.given.value
        if hit.id in self._chosen:
            return InjectionVerdict.BUDGET, _no_room(self._budget)
        if hit.id in self._recalled.untrusted:
            return InjectionVerdict.UNTRUSTED, "only a consensus vouches for its answer"
        if hit.id in self._recalled.unlikely:
            return InjectionVerdict.UNLIKELY, "what is known of its lift speaks against it"
        count = len(self._chosen)
        return (
            InjectionVerdict.FARTHER,
            f"{count} others were chosen: nearer, or as near and more trusted or newer",
        )

    def passed_over(self, example: Example, similarity: float) -> ExplainedExample:
        """One that recall did not find."""
        verdict, reason = self._why_not_found(example, similarity)
        return ExplainedExample(
            example.id,
            example.state,
            example.question,
            example.answer,
            example.trust,
            similarity,
            verdict,
            reason,
        )

    def _why_not_found(self, example: Example, similarity: float) -> tuple[InjectionVerdict, str]:
        floor, expires = self._recalled.floor, example.expires_at
        if example.state is not RuleState.ACTIVE:
            return InjectionVerdict.STATE, f"it is {example.state.value}"
        if expires is not None and expires <= datetime.now(UTC):
            return InjectionVerdict.EXPIRED, f"it expired at {expires:%Y-%m-%d %H:%M} UTC"
        if similarity < floor:
            return InjectionVerdict.BELOW_FLOOR, f"{similarity:.3f} is below the floor of {floor:g}"
        farthest = min((hit.similarity for hit in self._recalled.near), default=None)
        if farthest is None:
            return InjectionVerdict.FARTHER, "no examples are recalled for this question"
        if similarity < farthest:
            return InjectionVerdict.FARTHER, "nearer ones were looked at"
        return (
            InjectionVerdict.CONFLICT,
            "another one of nearly the same question says something else, or is newer",
        )


def _no_room(budget: int) -> str:
    return f"the budget of {budget} tokens, or the model's context, has no room"
