"""Credit: what an episode's outcome says about the rules and examples that it was answered with.

Everything is added up in the transaction that brings the evidence, so nothing is counted twice or
lost. What was added for a weaker signal is taken back when a stronger one comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.evidence import Findings, Outcome, Standing
from rules_store.operations import effect
from rules_store.operations.context import StoreContext
from rules_store.policy.lift import retention
from rules_store.repository import (
    evidence,
    examples,
    precedents,
    rules,
    standings,
)


async def store_findings(
    context: StoreContext,
    connection: AsyncConnection,
    namespace: str,
    episode_id: str,
    findings: Findings,
    key_id: str | None,
) -> None:
    """Stores what an exploration found out besides rules. `key_id`: whose question it was."""
    now = context.clock()
    if findings.precedent is not None:
        await precedents.add(
            connection,
            context.embedding_model,
            findings.precedent,
            now,
            context.options.precedents,
            asker=key_id,
        )
    if findings.outcome is not None:
        await credit(
            context, connection, namespace, episode_id, findings.outcome, now, key_id=key_id
        )


async def credit(
    context: StoreContext,
    connection: AsyncConnection,
    namespace: str,
    episode_id: str,
    outcome: Outcome,
    now: datetime,
    *,
    key_id: str | None = None,
    votes: Mapping[str, float] | None = None,
) -> None:
    """Adds an outcome to the standings of the rules and examples that steered the episode or were
    withheld from it; what a weaker signal had added is taken back. `key_id`: who gave it, or, of an
    exploration's agreement, who asked.

    `votes`: by example, whether its own label was the episode's right one. Of several examples that
    are shown together each is credited with its own vote, not with what became of all of them."""
    before = await evidence.strongest(connection, episode_id, lock=True)
    await evidence.put_outcome(connection, namespace, episode_id, outcome, now, key_id)
    await effect.note(connection, namespace, episode_id, outcome, now)
    after = await evidence.strongest(connection, episode_id)
    voted = await evidence.votes_of_episode(connection, episode_id)
    votes = {**voted, **(votes or {})}
    if after == before and votes == voted:
        return
    for item_id, withheld, when in await evidence.exposed(connection, episode_id):
        if item_id in votes and votes[item_id] != voted.get(item_id):
            await evidence.set_vote(connection, episode_id, item_id, votes[item_id], key_id)
        standing = await standing_now(context, connection, namespace, item_id, now)
        if standing is None:
            continue
        factor = retention(when, now, context.options.half_life_days)
        tally = standing.without_rule if withheld else standing.with_rule
        if before is not None:
            tally = tally.plus(voted.get(item_id, before.value), -before.weight * factor)
        if after is not None:
            tally = tally.plus(votes.get(item_id, after.value), after.weight * factor)
        moved = (
            replace(standing, without_rule=tally)
            if withheld
            else replace(standing, with_rule=tally)
        )
        await standings.put(connection, moved.relifted())


async def standing_now(
    context: StoreContext, connection: AsyncConnection, namespace: str, item_id: str, now: datetime
) -> Standing | None:
    """The standing of a rule or an example with its evidence aged to `now`, locked where the
    database locks rows; an empty one where there is none. None for an item that is gone or another
    namespace's."""
    known = await standings.find(connection, item_id, lock=True)
    if known is None:
        found = await rules.find(connection, item_id) or await examples.find(connection, item_id)
        if found is None or found[1].namespace != namespace:
            return None
        return Standing(item_id, found[0], namespace, now)
    if known.namespace != namespace:
        return None
    factor = retention(known.at, now, context.options.half_life_days)
    return replace(
        known,
        at=now,
        with_rule=known.with_rule.aged(min(1.0, factor)),
        without_rule=known.without_rule.aged(min(1.0, factor)),
    )
