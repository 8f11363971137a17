"""Which rules a question would get, which not and why, by the code that steers a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.domain.trajectory import Message
from app.loop.steer.block import render_block
from app.loop.steer.budget import TokenCounter, fit
from app.loop.steer.injector import inject
from app.loop.steer.retriever import RankedRules, Retriever
from app.prompt_library import PromptLibrary
from rules_store.models.rules import Polarity, RuleHit, RuleState, Vector
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
class Explanation:
    candidates: tuple[ExplainedRule, ...]
    """Most similar first."""
    messages: list[Message]
    """The conversation as it would go upstream."""
    floor: float
    hold_out: float
    """Share of the requests that leave out one of the injected rules, by lot."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A conversation with the vector of its last user turn, and what it may get.

    `model` and `context` as for `app.loop.steer.budget.fit`.
    """

    namespace: str
    messages: Sequence[Message]
    vector: Vector
    max_positive: int
    max_negative: int
    domain: str
    model: str
    context: int | None


class Explainer:
    def __init__(
        self,
        store: RuleStore,
        retriever: Retriever,
        counter: TokenCounter,
        prompts: PromptLibrary,
        token_budget: int,
    ) -> None:
        self._store = store
        self._retriever = retriever
        self._counter = counter
        self._prompts = prompts
        self._budget = token_budget

    async def explain(self, question: Question, limit: int = 20) -> Explanation:
        """At least `limit` of the nearest rules in any state, where there are that many, and all
        that were looked at. Raises StoreError."""
        most = {
            Polarity.POSITIVE: question.max_positive,
            Polarity.NEGATIVE: question.max_negative,
        }
        sifted = {
            polarity: self._retriever.sift(question.namespace, question.vector, polarity, count)
            for polarity, count in most.items()
        }
        kept = await fit(
            [hit for each in sifted.values() for hit in each.chosen],
            model=question.model,
            counter=self._counter,
            budget=self._budget,
            context=question.context,
            messages=question.messages,
            answer_tokens=0,
        )
        block = render_block(self._prompts, question.domain, kept)
        judged = _Judge(sifted, {hit.id for hit in kept}, self._budget)
        found = {hit.id: judged.active(hit) for each in sifted.values() for hit in each.near.hits}
        for near in await self._store.rules.nearest(
            question.vector, namespace=question.namespace, states=list(RuleState), limit=limit
        ):
            rule = near.rule
            hit = RuleHit(rule.id, rule.polarity, rule.text, rule.trigger, near.similarity)
            if rule.id not in found:
                found[rule.id] = judged.in_state(hit, rule.state)
        ranked = sorted(found.values(), key=lambda each: (-each.similarity, each.text, each.id))
        known = await self._store.evidence.standings_of([each.id for each in ranked])
        measured = {id: each.lift for id, each in known.items() if each.measured}
        return Explanation(
            tuple(replace(each, lift=measured.get(each.id)) for each in ranked),
            inject(question.messages, block),
            sifted[Polarity.POSITIVE].floor,
            self._retriever.hold_out_rate(question.namespace) if kept else 0.0,
        )


class _Judge:
    def __init__(self, sifted: dict[Polarity, RankedRules], kept: set[str], budget: int) -> None:
        self._sifted = sifted
        self._kept = kept
        self._chosen = {hit.id for each in sifted.values() for hit in each.chosen}
        self._budget = budget

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
        if hit.id in self._chosen:
            room = f"the budget of {self._budget} tokens, or the model's context, has no room"
            return InjectionVerdict.BUDGET, room
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
