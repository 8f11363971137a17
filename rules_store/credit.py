"""Credit: outcomes and trials become standings, and standings move rules.

Everything is added up in the transaction that brings the evidence, so nothing is counted twice or
lost. What was added for a weaker signal is taken back when a stronger one comes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store import capacity, changes
from rules_store.core import StoreCore
from rules_store.errors import UnknownEpisode
from rules_store.evidence import (
    Contender,
    Evidence,
    Findings,
    Judgement,
    Neighbour,
    Outcome,
    Precedent,
    Standing,
    Trial,
)
from rules_store.gate import Verdict, verdict
from rules_store.queries import find
from rules_store.repository import embeddings, episodes, events, links, precedents, rules, worth
from rules_store.types import Rule, RuleState, Vector
from rules_store.worth import retention

GATE = "gate"
"""Actor of the events below."""
PROMOTED, DEMOTED, REFUTED, SUPERSEDED = (
    "rule.promoted",
    "rule.demoted",
    "rule.refuted",
    "rule.superseded",
)
_WAITING = (RuleState.CANDIDATE, RuleState.ACTIVE)


class CreditOperations(StoreCore):
    # -- outcomes

    async def record_outcome(self, episode_id: str, outcome: Outcome) -> None:
        """One signal about an episode, credited to the rules that steered it and to those that
        were withheld. The same signal again takes the place of the first. Raises UnknownEpisode."""
        now = self._clock()

        async def record(connection: AsyncConnection) -> None:
            episode = await episodes.find(connection, episode_id)
            if episode is None:
                raise UnknownEpisode(episode_id)
            await self._credit(connection, episode.namespace, episode_id, outcome, now)

        await self._database.transact(record)

    async def _find_out(
        self, connection: AsyncConnection, namespace: str, episode_id: str, findings: Findings
    ) -> None:
        """Stores what an exploration found out besides rules."""
        now = self._clock()
        if findings.precedent is not None:
            await precedents.add(
                connection, self.embedding_model, findings.precedent, now, self.options.precedents
            )
        if findings.outcome is not None:
            await self._credit(connection, namespace, episode_id, findings.outcome, now)

    async def _credit(
        self,
        connection: AsyncConnection,
        namespace: str,
        episode_id: str,
        outcome: Outcome,
        now: datetime,
    ) -> None:
        before = await worth.strongest(connection, episode_id, lock=True)
        await worth.put_outcome(connection, namespace, episode_id, outcome, now)
        after = await worth.strongest(connection, episode_id)
        if after == before:
            return
        for rule_id, withheld, when in await worth.exposed(connection, episode_id):
            standing = await self._standing_now(connection, namespace, rule_id, now)
            if standing is None:
                continue
            factor = retention(when, now, self.options.half_life_days)
            tally = standing.without_rule if withheld else standing.with_rule
            if before is not None:
                tally = tally.plus(before.value, -before.weight * factor)
            if after is not None:
                tally = tally.plus(after.value, after.weight * factor)
            moved = (
                replace(standing, without_rule=tally)
                if withheld
                else replace(standing, with_rule=tally)
            )
            await worth.put_standing(connection, _relifted(moved))

    async def _standing_now(
        self, connection: AsyncConnection, namespace: str, rule_id: str, now: datetime
    ) -> Standing | None:
        """The rule's standing with its evidence aged to `now`, locked where the database locks
        rows; an empty one where there is none. None for a rule that is gone or another
        namespace's."""
        known = await worth.standing(connection, rule_id, lock=True)
        if known is None:
            found = await rules.find(connection, rule_id)
            if found is None or found[1].namespace != namespace:
                return None
            return Standing(rule_id, namespace, now)
        if known.namespace != namespace:
            return None
        factor = retention(known.at, now, self.options.half_life_days)
        return replace(
            known,
            at=now,
            with_rule=known.with_rule.aged(min(1.0, factor)),
            without_rule=known.without_rule.aged(min(1.0, factor)),
        )

    # -- trials

    async def contenders(self, namespace: str, limit: int = 200) -> list[Contender]:
        """Candidates, and active rules that have not proven themselves; the least tried first."""
        async with self._database.read() as connection:
            return await worth.contenders(connection, namespace, _WAITING, limit)

    async def untried_near(self, rule: Rule, *, floor: float, limit: int) -> list[Precedent]:
        """Precedents near the rule that can be replayed and on which it has not been tried, the
        nearest first. The episodes that taught the rule are left out: it fits those by making."""
        async with self._database.read() as connection:
            rows = await embeddings.rows_of(connection, self.embedding_model, [rule.id])
            both = [vector for row in rows for vector in (row.text_vector, row.trigger_vector)]
            vectors = [vector for vector in both if vector is not None]
            tried = await precedents.tried(connection, rule.id, changes.text_hash(rule.text))
            taught = {link.other for link in await links.of_rule(connection, rule.id)}
            taught.add(rule.source_episode or "")
            near = self._precedents.near(
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
            text_hash = changes.text_hash(rule.text)
            if (
                held is None
                or held.state not in _WAITING
                or changes.text_hash(held.text) != text_hash
                or self.is_frozen(held.namespace)
                or not await worth.add_trial(
                    connection, held.namespace, held.id, text_hash, trial, now
                )
            ):
                return Judgement(rule.id, None, None)
            standing = await self._standing_now(connection, held.namespace, held.id, now)
            assert standing is not None, "the rule was found above"
            standing = _tried(standing, trial)
            judged = verdict(standing.helped, standing.harmed, standing.tried, self.options.gate)
            if judged is None:
                await worth.put_standing(connection, standing)
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
            await worth.put_standing(connection, standing)
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
            await worth.put_standing(connection, replace(standing, verdict=Verdict.HELPFUL))
            return Judgement(rule.id, judged, None, told)
        await worth.put_standing(connection, replace(standing, proven=False))
        kind = DEMOTED if rule.state is RuleState.ACTIVE else REFUTED
        await self._move_to(connection, rule, RuleState.RETIRED, kind, told)
        return Judgement(rule.id, judged, kind, told)

    async def _stronger_opponent(
        self, connection: AsyncConnection, rule: Rule, standing: Standing
    ) -> str | None:
        """An active, proven rule that says the opposite and has the larger lift."""
        for other in await links.opponents(connection, rule.id):
            known = await worth.standing(connection, other)
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
        await changes.change(connection, rule, after, kind, actor=GATE, reason=reason)

    # -- in use

    async def review(self, namespace: str, *, probation: int) -> list[Judgement]:
        """Demotes active rules whose lift is below zero with its whole interval, and those that
        have steered `probation` requests since they became active without proving themselves."""
        if self.is_frozen(namespace):
            return []
        async with self._database.read() as connection:
            harmful = await worth.losers(connection, namespace)
            idle = await worth.unproven_since(connection, namespace, probation)
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
            standing = await worth.standing(connection, rule_id)
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
                used = await worth.injected_since(connection, rule_id, since)
                if used < probation:
                    return None
                judged = Verdict.USELESS
                why = f"steered {used} requests and has not proven itself"
            if standing is not None:
                await worth.put_standing(
                    connection, replace(standing, proven=False, verdict=judged, at=self._clock())
                )
            await self._move_to(connection, rule, RuleState.RETIRED, DEMOTED, why)
            return Judgement(rule_id, judged, DEMOTED, why)

    # -- reading

    def standing_of(self, rule_id: str) -> Standing | None:
        """As this process last saw it; no I/O."""
        return self._standings.get(rule_id)

    def near_precedents(
        self, namespace: str, vector: Vector, *, floor: float, k: int
    ) -> list[Neighbour]:
        """Explored questions near this one, most similar first; no I/O."""
        return self._precedents.near(namespace, [vector], floor=floor, k=k)

    def mean_agreement(self, namespace: str) -> float | None:
        """Of the namespace's explored questions; None while there are few; no I/O."""
        return self._precedents.mean_agreement(namespace)

    async def evidence_of(self, rule_id: str, *, limit: int = 50) -> Evidence:
        """Raises UnknownRule."""
        async with self._database.read() as connection:
            await find(connection, rule_id)
            return Evidence(
                standing=await worth.standing(connection, rule_id),
                trials=(await worth.trials_of(connection, rule_id))[:limit],
                exposures=await worth.exposures_of(connection, rule_id, limit),
                links=await links.of_rule(connection, rule_id),
            )

    async def standings_of(self, rule_ids: list[str]) -> dict[str, Standing]:
        """By rule id; those that have evidence."""
        async with self._database.read() as connection:
            return await worth.standings_of(connection, rule_ids)


def _relifted(standing: Standing) -> Standing:
    return replace(standing, lift=Standing.lift_of(standing.with_rule, standing.without_rule))


def _tried(standing: Standing, trial: Trial) -> Standing:
    return _relifted(
        replace(
            standing,
            with_rule=standing.with_rule.plus(trial.with_rule, trial.weight),
            without_rule=standing.without_rule.plus(trial.without_rule, trial.weight),
            helped=standing.helped + (trial.effect > 0),
            harmed=standing.harmed + (trial.effect < 0),
            tried=standing.tried + 1,
        )
    )


async def _activated(connection: AsyncConnection, rule: Rule) -> datetime:
    """When the rule last became active."""
    since = rule.created_at
    for event in await events.of_rule(connection, rule.id):
        before, after = event.before or {}, event.after or {}
        if after.get("state") == RuleState.ACTIVE and before.get("state") != RuleState.ACTIVE:
            since = event.at
    return since
