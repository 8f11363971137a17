"""Keeping a namespace within its capacity of active rules: the `paper` policy."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.events import Change
from rules_store.models.rules import Polarity, Pruning
from rules_store.operations import rule_writes
from rules_store.operations.context import StoreContext
from rules_store.policy import redundancy
from rules_store.repository import embeddings, events, rules, rules_bulk

_Active = tuple[int, Polarity, int]  # seq, polarity, frequency
Texts = tuple[list[int], np.ndarray]
"""Sequence numbers, and the unit vectors of their texts: shape (n, dimension)."""


async def make_room(
    context: StoreContext,
    connection: AsyncConnection,
    namespace: str,
    fresh: Sequence[str],
    *,
    spare_fresh: bool = False,
) -> list[str]:
    """Retires active rules of the namespace down to its capacity; returns their ids.

    Within `StoreContext.change`; `fresh` names the rules that this transaction has made active.
    `spare_fresh`: they stay, because a person wanted them. Rules that people wrote go only when no
    learned one is left.
    """
    options = context.namespaces.options_of(namespace)
    excess = await rules.count_active(connection, namespace) - options.capacity
    if not fresh or excess <= 0:
        return []
    active = await rules.active(connection, namespace)
    rows = await embeddings.rows_of(connection, context.embedding_model, fresh)
    wanted = {row.seq for row in rows} if spare_fresh else set()
    learned = await rules.learned(connection, namespace)
    spared = wanted | {seq for seq, _, _ in active if seq not in learned}
    victims: list[int] = []
    if options.pruning is Pruning.SIMILARITY:
        known = [context.index.active_texts(namespace, polarity) for polarity in Polarity]
        known += [
            ([row.seq], row.text_vector[None, :]) for row in rows if row.text_vector is not None
        ]
        victims = await asyncio.to_thread(redundant, known, active, excess, spared)
    # By age where that is the policy, and where there is nothing to compare.
    rest = [seq for seq, _, _ in active if seq not in spared and seq not in victims]
    victims += redundancy.oldest(rest, excess - len(victims))
    written = [seq for seq in spared if seq not in wanted]
    victims += redundancy.oldest(written, excess - len(victims))
    reason = f"capacity of {options.capacity} ({options.pruning.value})"
    return await evict(connection, victims, reason, context.clock())


async def drop_old_candidates(
    context: StoreContext, connection: AsyncConnection, namespace: str
) -> None:
    """No more candidates wait than rules can be active: the oldest give way."""
    room = context.namespaces.options_of(namespace).capacity
    victims = await rules.candidates_beyond(connection, namespace, room)
    reason = f"more than {room} candidates wait for trials"
    await evict(connection, victims, reason, context.clock())


async def evict(
    connection: AsyncConnection, seqs: Sequence[int], reason: str, at: datetime
) -> list[str]:
    """Retires rules, in this order, by the policy; their ids."""
    found = await rules_bulk.by_seqs(connection, seqs)
    change = Change(events.POLICY, reason)
    gone = [rule_writes.Retirement(found[seq], reason, change) for seq in seqs]
    return [rule.id for rule in await rule_writes.retire(connection, gone, at)]


def redundant(
    known: Sequence[Texts],
    active: Sequence[_Active],
    count: int,
    spared: Collection[int],
) -> list[int]:
    """Sequence numbers of at most `count` active rules that say most nearly what another one says
    (`redundancy.most_redundant`). Rules without a known text are not compared; those of `spared`
    stay."""
    vectors = {seq: vector for seqs, rows in known for seq, vector in zip(seqs, rows, strict=True)}
    compared = [rule for rule in active if rule[0] in vectors]
    if not compared:
        return []
    seqs = [seq for seq, _, _ in compared]
    victims = redundancy.most_redundant(
        np.stack([vectors[seq] for seq in seqs]),
        np.array([list(Polarity).index(polarity) for _, polarity, _ in compared]),
        seqs,
        [np.inf if seq in spared else frequency for seq, _, frequency in compared],
        count,
    )
    return [seq for seq in victims if seq not in spared]
