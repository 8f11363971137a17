"""Credit: outcomes and trials become standings, and standings move rules.

Everything is added up in the transaction that brings the evidence, so nothing is counted twice or
lost. What was added for a weaker signal is taken back when a stronger one comes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import UnknownEpisode
from rules_store.models.evidence import Evidence, Findings, Neighbour, Outcome, Standing
from rules_store.models.rules import Vector
from rules_store.operations.base import StoreCore
from rules_store.operations.rules import find
from rules_store.policy.lift import retention
from rules_store.repository import (
    episodes,
    evidence,
    links,
    precedents,
    rules,
    standings,
)


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
        before = await evidence.strongest(connection, episode_id, lock=True)
        await evidence.put_outcome(connection, namespace, episode_id, outcome, now)
        after = await evidence.strongest(connection, episode_id)
        if after == before:
            return
        for rule_id, withheld, when in await evidence.exposed(connection, episode_id):
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
            await standings.put(connection, moved.relifted())

    async def _standing_now(
        self, connection: AsyncConnection, namespace: str, rule_id: str, now: datetime
    ) -> Standing | None:
        """The rule's standing with its evidence aged to `now`, locked where the database locks
        rows; an empty one where there is none. None for a rule that is gone or another
        namespace's."""
        known = await standings.find(connection, rule_id, lock=True)
        if known is None:
            found = await rules.find(connection, rule_id)
            if found is None or found[1].namespace != namespace:
                return None
            return Standing(rule_id, found[0], namespace, now)
        if known.namespace != namespace:
            return None
        factor = retention(known.at, now, self.options.half_life_days)
        return replace(
            known,
            at=now,
            with_rule=known.with_rule.aged(min(1.0, factor)),
            without_rule=known.without_rule.aged(min(1.0, factor)),
        )

    # -- reading

    def standing_of(self, rule_id: str) -> Standing | None:
        """As this process last saw it; no I/O."""
        return self._worth.standings.get(rule_id)

    def near_precedents(
        self, namespace: str, vector: Vector, *, floor: float, k: int
    ) -> list[Neighbour]:
        """Explored questions near this one, most similar first; no I/O."""
        return self._worth.precedents.near(namespace, [vector], floor=floor, k=k)

    def mean_agreement(self, namespace: str) -> float | None:
        """Of the namespace's explored questions; None while there are few; no I/O."""
        return self._worth.precedents.mean_agreement(namespace)

    async def evidence_of(self, rule_id: str, *, limit: int = 50) -> Evidence:
        """Raises UnknownRule."""
        async with self._database.read() as connection:
            await find(connection, rule_id)
            return Evidence(
                standing=await standings.find(connection, rule_id),
                trials=(await evidence.trials_of(connection, rule_id))[:limit],
                exposures=await evidence.exposures_of(connection, rule_id, limit),
                links=await links.of_rule(connection, rule_id),
            )

    async def standings_of(self, rule_ids: list[str]) -> dict[str, Standing]:
        """By rule id; those that have evidence."""
        async with self._database.read() as connection:
            return await standings.some(connection, rule_ids)
