"""Rules on their way out of a store and into another one, and rules near a text in any state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import clean
from rules_store.errors import UnknownNamespace
from rules_store.index.rule_index import unit
from rules_store.models.rules import (
    EVERY_RULE,
    INDEXED_STATES,
    Polarity,
    Rule,
    RuleFilter,
    RuleState,
    Vector,
    Vectors,
)
from rules_store.operations import capacity, rule_writes
from rules_store.operations.base import StoreCore
from rules_store.repository import events, rules_bulk

_AT_ONCE = 500
_MOST_RESTING = 20_000
"""Vectors of retired and quarantined rules that one search reads from SQL."""
IMPORTED = "rule.imported"


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    rule: Rule
    vectors: Vectors | None
    """Under the store's embedding model; None where they were not asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Incoming:
    """A rule from elsewhere. `rule.id` is kept where it is free; version and exposures begin
    anew."""

    rule: Rule
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Imported:
    """`outcomes` go with the rules that came: the id it has here, or None for one whose text the
    namespace has already. `evicted`: rules that were retired to keep within the capacity."""

    outcomes: tuple[str | None, ...]
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Near:
    rule: Rule
    similarity: float
    """The larger cosine of text and trigger, in [-1, 1]."""


class ExchangeOperations(StoreCore):
    @property
    def dimension(self) -> int | None:
        """Of the embedding model's vectors; None while none has been seen."""
        return self._index.dimension

    async def export_rules(
        self, where: RuleFilter = EVERY_RULE, *, vectors: bool = False
    ) -> AsyncIterator[list[Exported]]:
        """All rules in batches, oldest first. No transaction is open between two batches."""
        await self._count_exposures()
        after = 0
        while True:
            async with self._database.read() as connection:
                found = await rules_bulk.batch(connection, where, after, _AT_ONCE)
                given = (
                    await rules_bulk.vectors_of(
                        connection, self.embedding_model, [seq for seq, _ in found]
                    )
                    if vectors
                    else {}
                )
            if not found:
                return
            after = found[-1][0]
            yield [
                Exported(rule, given.get(seq, Vectors()) if vectors else None)
                for seq, rule in found
            ]

    async def known_texts(self, rules: Sequence[Rule]) -> list[str | None]:
        """For each rule, the id of the one that has its text in its namespace and polarity."""
        async with self._database.read() as connection:
            return await _known(connection, rules)

    async def import_rules(self, items: Sequence[Incoming], *, actor: str, reason: str) -> Imported:
        """Writes those whose text is new to their namespace and polarity, in one transaction; an
        event each. All are of one namespace.

        Raises UnknownNamespace, NamespaceFrozen, InvalidVector.
        """
        if not items:
            return Imported(())
        (namespace,) = {item.rule.namespace for item in items}
        units = [self._units(item.vectors) for item in items]
        async with self._change() as connection:
            if self.namespace(namespace) is None:
                raise UnknownNamespace(namespace)
            self._check_writable(namespace)
            known = await _known(connection, [item.rule for item in items])
            taken = await rules_bulk.by_ids(connection, [item.rule.id for item in items])
            now = self._clock()
            new: dict[tuple[Polarity, str], Rule] = {}
            vectors: dict[str, Vectors] = {}
            outcomes: list[str | None] = []
            for item, given, there in zip(items, units, known, strict=True):
                rule = item.rule
                key = (rule.polarity, rule_writes.text_hash(rule.text))
                if there is not None or key in new:
                    outcomes.append(None)
                    continue
                free = rule.id not in taken and rule.id not in vectors
                new[key] = replace(
                    rule,
                    id=rule.id if free else rule_writes.new_rule_id(),
                    version=1,
                    exposures=0,
                    updated_at=now,
                )
                vectors[new[key].id] = given
                outcomes.append(new[key].id)
            written = [(text_hash, rule) for (_, text_hash), rule in new.items()]
            await rules_bulk.insert_all(connection, written, self.embedding_model, vectors)
            await events.append_many(
                connection,
                [
                    {
                        "at": now,
                        "namespace": namespace,
                        "kind": IMPORTED,
                        "rule_id": rule.id,
                        "actor": clean(actor),
                        "reason": clean(reason),
                        "before": None,
                        "after": rule_writes.described(rule),
                    }
                    for rule in new.values()
                ],
            )
            evicted = await capacity.make_room(
                connection,
                self._index,
                self.embedding_model,
                namespace,
                self._room(namespace),
                now,
                [rule.id for rule in new.values() if rule.state is RuleState.ACTIVE],
            )
        return Imported(tuple(outcomes), tuple(evicted))

    async def nearest(
        self,
        vector: Vector,
        *,
        namespace: str | None = None,
        polarity: Polarity | None = None,
        states: Sequence[RuleState] = INDEXED_STATES,
        limit: int = 50,
    ) -> list[Near]:
        """The rules nearest to a vector, most similar first. Active and candidate ones come from
        the index; of the others the newest 20,000 vectors are looked through.

        Raises InvalidVector.
        """
        await self._count_exposures()
        query = unit(vector, self._index.dimension)
        best = self._index.nearest(
            query,
            namespace,
            [polarity] if polarity else list(Polarity),
            [state for state in INDEXED_STATES if state in states],
            limit,
        )
        resting = [state for state in states if state not in INDEXED_STATES]
        async with self._database.read() as connection:
            if resting:
                stored = await rules_bulk.resting(
                    connection,
                    self.embedding_model,
                    namespace,
                    resting,
                    len(query),
                    _MOST_RESTING,
                )
                best += await asyncio.to_thread(_cosines, stored, query)
            best.sort(key=lambda pair: (-pair[1], pair[0]))
            # A rule may have changed its state since the index looked, and its polarity is in SQL.
            rules = await rules_bulk.by_seqs(connection, [seq for seq, _ in best[: 4 * limit]])
        found = [
            Near(rules[seq], cosine)
            for seq, cosine in best
            if seq in rules
            and rules[seq].state in states
            and (polarity is None or rules[seq].polarity is polarity)
        ]
        return found[:limit]


async def _known(connection: AsyncConnection, rules: Sequence[Rule]) -> list[str | None]:
    found: list[str | None] = [None] * len(rules)
    hashes = [rule_writes.text_hash(rule.text) for rule in rules]
    for namespace in {rule.namespace for rule in rules}:
        there = await rules_bulk.with_texts(connection, namespace, hashes)
        for position, (rule, text_hash) in enumerate(zip(rules, hashes, strict=True)):
            if rule.namespace == namespace:
                found[position] = there.get((rule.polarity, text_hash))
    return found


def _cosines(stored: Sequence[tuple[int, Vector]], query: Vector) -> list[tuple[int, float]]:
    """(seq, the larger cosine of a rule's vectors)."""
    if not stored:
        return []
    cosines = np.stack([vector for _, vector in stored]) @ query
    best: dict[int, float] = {}
    for (seq, _), cosine in zip(stored, cosines.tolist(), strict=True):
        best[seq] = max(best.get(seq, -1.0), round(cosine, 6))
    return list(best.items())
