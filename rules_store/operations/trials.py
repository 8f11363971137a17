"""Trials move rules: candidates are promoted or refuted, active ones demoted for what they do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.evidence import Contender, Judgement, Precedent, Standing, Trial
from rules_store.models.rules import Rule, RuleState
from rules_store.operations import capacity, rule_writes
from rules_store.operations.credit import CreditOperations
from rules_store.operations.rules import find
from rules_store.policy.gate import Verdict, verdict
from rules_store.repository import (
    embeddings,
    events,
    evidence,
    links,
    precedents,
    rules,
    standings,
)

GATE = "gate"
"""Actor of the events below."""
PROMOTED, DEMOTED, REFUTED, SUPERSEDED = (
    "rule.promoted",
    "rule.demoted",
    "rule.refuted",
    "rule.superseded",
)
_WAITING = (RuleState.CANDIDATE, RuleState.ACTIVE)


class TrialOperations(CreditOperations):
    # -- trials

    def candidates(self, namespace: str) -> int:
        """Candidates in this process's index; no I/O."""
        return self._index.count(namespace, RuleState.CANDIDATE)

    async def contenders(self, namespace: str, limit: int = 200) -> list[Contender]:
        """Candidates, and active rules that have not proven themselves; the least tried first."""
        # What was explored a moment ago may be what they can be tried on.
        await self.catch_up()
        async with self._database.read() as connection:
            return await standings.contenders(connection, namespace, _WAITING, limit)

    async def untried_near(self, rule: Rule, *, floor: float, limit: int) -> list[Precedent]:
        """Precedents near the rule that can be replayed and on which it has not been tried, the
        nearest first. The episodes that taught the rule are left out: it fits those by making."""
        async with self._database.read() as connection:
            rows = await embeddings.rows_of(connection, self.embedding_model, [rule.id])
            both = [vector for row in rows for vector in (row.text_vector, row.trigger_vector)]
            vectors = [vector for vector in both if vector is not None]
            tried = await precedents.tried(connection, rule.id, rule_writes.text_hash(rule.text))
            taught = {link.other for link in await links.of_rule(connection, rule.id)}
            taught.add(rule.source_episode or "")
            near = self._worth.precedents.near(
                rule.namespace, vectors, floor=floor, k=limit, fit=True, without=tried | taught
            )
            found = [await precedents.find(connection, each.episode_id) for each in near]
        return [each for each in found if each is not None]

    async def record_trial(self, rule: Rule, trial: Trial) -> Judgement:
        """Adds one trial of a rule's words and does what the gate then says: promote a candidate,
        retire what harms or is of no use. A trial of words that have changed since, of a rule that
        is neither candidate nor active, of a frozen namespace, or one that is there already
        changes nothing."""
        now = self._clock()
        async with self._change() as connection:
            found = await rules.find(connection, rule.id)
            held = None if found is None else found[1]
            text_hash = rule_writes.text_hash(rule.text)
            if (
                held is None
                or held.state not in _WAITING
                or rule_writes.text_hash(held.text) != text_hash
                or self.is_frozen(held.namespace)
                or not await evidence.add_trial(
                    connection, held.namespace, held.id, text_hash, trial, now
                )
            ):
                return Judgement(rule.id, None, None)
            standing = await self._standing_now(connection, held.namespace, held.id, now)
            assert standing is not None, "the rule was found above"
            standing = standing.tried_on(trial)
            judged = verdict(standing.helped, standing.harmed, standing.tried, self.options.gate)
            if judged is None:
                await standings.put(connection, standing)
                return Judgement(held.id, None, None)
            return await self._sentence(connection, held, standing, judged)

    async def _sentence(
        self, connection: AsyncConnection, rule: Rule, standing: Standing, judged: Verdict
    ) -> Judgement:
        told = (
            f"{judged.value}: helped {standing.helped} and harmed {standing.harmed} times in "
            f"{standing.tried} replays"
        )
        if judged is Verdict.HELPFUL:
            rival = await self._stronger_opponent(connection, rule, standing)
            if rival is not None:
                told += f", but rule {rival} says the opposite and has done better"
                judged = Verdict.USELESS
        # The next test begins anew; what this one found is in the trials and in the tallies.
        standing = replace(
            standing,
            helped=0,
            harmed=0,
            tried=0,
            verdict=judged,
            proven=standing.proven or judged is Verdict.HELPFUL,
        )
        if judged is Verdict.HELPFUL:
            await standings.put(connection, standing)
            if rule.state is RuleState.ACTIVE:
                return Judgement(rule.id, judged, None, told)
            await self._move_to(connection, rule, RuleState.ACTIVE, PROMOTED, told)
            await self._supersede(connection, rule)
            await capacity.make_room(
                connection,
                self._index,
                self.embedding_model,
                rule.namespace,
                self._room(rule.namespace),
                self._clock(),
                [rule.id],
            )
            return Judgement(rule.id, judged, PROMOTED, told)
        if judged is Verdict.USELESS and standing.proven:
            # It has proven itself before, and no harm was found now.
            await standings.put(connection, replace(standing, verdict=Verdict.HELPFUL))
            return Judgement(rule.id, judged, None, told)
        await standings.put(connection, replace(standing, proven=False))
        kind = DEMOTED if rule.state is RuleState.ACTIVE else REFUTED
        await self._move_to(connection, rule, RuleState.RETIRED, kind, told)
        return Judgement(rule.id, judged, kind, told)

    async def _stronger_opponent(
        self, connection: AsyncConnection, rule: Rule, standing: Standing
    ) -> str | None:
        """An active, proven rule that says the opposite and has the larger lift."""
        for other in await links.opponents(connection, rule.id):
            known = await standings.find(connection, other)
            if known is not None and known.proven and known.lift.mean > standing.lift.mean:
                return other
        return None

    async def _supersede(self, connection: AsyncConnection, winner: Rule) -> None:
        for other in await links.opponents(connection, winner.id):
            _, loser = await find(connection, other)
            reason = f"rule {winner.id} says the opposite and has done better"
            await self._move_to(connection, loser, RuleState.RETIRED, SUPERSEDED, reason)

    async def _move_to(
        self, connection: AsyncConnection, rule: Rule, state: RuleState, kind: str, reason: str
    ) -> None:
        after = replace(
            rule,
            state=state,
            version=rule.version + 1,
            reason=reason,
            updated_at=self._clock(),
        )
        await rule_writes.change(connection, rule, after, kind, actor=GATE, reason=reason)

    # -- in use

    async def review(self, namespace: str, *, probation: int) -> list[Judgement]:
        """Demotes active rules whose lift is below zero with its whole interval, and those that
        have steered `probation` requests since they became active without proving themselves."""
        await self._count_exposures()
        if self.is_frozen(namespace):
            return []
        async with self._database.read() as connection:
            harmful = await standings.losers(connection, namespace)
            idle = await standings.unproven_since(connection, namespace, probation)
        done: list[Judgement] = []
        for rule_id in [*harmful, *(each for each in idle if each not in harmful)]:
            judgement = await self._demote(rule_id, probation)
            if judgement is not None:
                done.append(judgement)
        return done

    async def _demote(self, rule_id: str, probation: int) -> Judgement | None:
        """Within its own transaction everything is looked at again."""
        async with self._change() as connection:
            found = await rules.find(connection, rule_id)
            if found is None or found[1].state is not RuleState.ACTIVE:
                return None
            rule = found[1]
            if self.is_frozen(rule.namespace):
                return None
            standing = await standings.find(connection, rule_id)
            if standing is not None and standing.lift.high < 0:
                low, high = standing.lift.low, standing.lift.high
                judged, why = (
                    Verdict.HARMFUL,
                    f"harmful in use: lift within [{low:.2f}, {high:.2f}]",
                )
            elif standing is not None and standing.proven:
                return None
            else:
                since = await _activated(connection, rule)
                used = await evidence.injected_since(connection, rule_id, since)
                if used < probation:
                    return None
                judged = Verdict.USELESS
                why = f"steered {used} requests and has not proven itself"
            if standing is not None:
                await standings.put(
                    connection, replace(standing, proven=False, verdict=judged, at=self._clock())
                )
            await self._move_to(connection, rule, RuleState.RETIRED, DEMOTED, why)
            return Judgement(rule_id, judged, DEMOTED, why)


async def _activated(connection: AsyncConnection, rule: Rule) -> datetime:
    """When the rule last became active."""
    since = rule.created_at
    for event in await events.of_rule(connection, rule.id):
        before, after = event.before or {}, event.after or {}
        if after.get("state") == RuleState.ACTIVE and before.get("state") != RuleState.ACTIVE:
            since = event.at
    return since
