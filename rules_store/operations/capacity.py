"""Keeping a namespace within its capacity of active rules: the `paper` policy."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.index.rule_index import RuleIndex
from rules_store.models.rules import Polarity, Pruning, RuleState
from rules_store.operations import rule_writes
from rules_store.options import StoreOptions
from rules_store.policy import redundancy
from rules_store.repository import embeddings, events, rules

_Active = tuple[int, Polarity, int]  # seq, polarity, frequency
Texts = tuple[list[int], np.ndarray]
"""Sequence numbers, and the unit vectors of their texts: shape (n, dimension)."""


async def make_room(
    connection: AsyncConnection,
    index: RuleIndex,
    model: str,
    namespace: str,
    options: StoreOptions,
    at: datetime,
    fresh: Sequence[str],
    *,
    spare_fresh: bool = False,
) -> list[str]:
    """Retires active rules of the namespace down to its capacity; returns their ids.

    `index` is as it was before this transaction, `fresh` names the rules that this transaction
    has made active. `spare_fresh`: they stay, because a person wanted them.
    """
    excess = await rules.count_active(connection, namespace) - options.capacity
    if not fresh or excess <= 0:
        return []
    active = await rules.active(connection, namespace)
    rows = await embeddings.rows_of(connection, model, fresh)
    spared = {row.seq for row in rows} if spare_fresh else set()
    victims: list[int] = []
    if options.pruning is Pruning.SIMILARITY:
        known = [index.active_texts(namespace, polarity) for polarity in Polarity]
        known += [
            ([row.seq], row.text_vector[None, :]) for row in rows if row.text_vector is not None
        ]
        victims = await asyncio.to_thread(redundant, known, active, excess, spared)
    # By age where that is the policy, and where there is nothing to compare.
    rest = [seq for seq, _, _ in active if seq not in spared and seq not in victims]
    victims += redundancy.oldest(rest, excess - len(victims))
    reason = f"capacity of {options.capacity} ({options.pruning.value})"
    return [await retire(connection, seq, at, reason) for seq in victims]


async def retire(connection: AsyncConnection, seq: int, at: datetime, reason: str) -> str:
    """By the policy; the rule's id."""
    before = await rules.find_by_seq(connection, seq)
    assert before is not None
    after = replace(
        before,
        state=RuleState.RETIRED,
        version=before.version + 1,
        reason=reason,
        updated_at=at,
    )
    await rule_writes.change(
        connection, before, after, "rule.retired", actor=events.POLICY, reason=reason
    )
    return before.id


def redundant(
    known: Sequence[Texts],
    active: Sequence[_Active],
    count: int,
    spared: Collection[int],
) -> list[int]:
    """Sequence numbers of at most `count` active rules that say most nearly what another one says
    (see `pruning.most_redundant`). Rules without a known text are not compared; those of `spared`
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
