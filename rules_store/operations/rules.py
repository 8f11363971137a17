"""Rules: read, counted, and changed by an operator. Each change writes one event, in its
transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import (
    DuplicateRule,
    InvalidTransition,
    UnknownNamespace,
    UnknownRule,
    VersionConflict,
)
from rules_store.index.rule_index import unit
from rules_store.models import paging
from rules_store.models.events import Change, Event, EventFilter
from rules_store.models.paging import Page
from rules_store.models.rules import (
    EVERY_RULE,
    INDEXED_STATES,
    NO_VECTORS,
    NewRule,
    Polarity,
    Rule,
    RuleEmbedding,
    RuleFilter,
    RuleSort,
    RuleState,
    Vector,
    Vectors,
)
from rules_store.operations import capacity, rule_writes
from rules_store.operations.context import StoreContext
from rules_store.repository import embeddings, events, rules, rules_bulk, standings
from rules_store.repository.orders import place_length

_MOST_RESTING = 20_000
"""Vectors of retired and quarantined rules that one search reads from SQL."""


@dataclass(frozen=True, slots=True)
class SimilarRule:
    """A rule near a text."""

    rule: Rule
    similarity: float
    """The larger cosine of text and trigger, in [-1, 1]."""


class RuleOperations:
    """`store.rules`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def get(self, rule_id: str) -> Rule:
        """Raises UnknownRule."""
        await self._context.exposures.count()
        async with self._context.database.read() as connection:
            return (await find(connection, rule_id))[1]

    async def events(self, rule_id: str) -> list[Event]:
        """The rule's history, oldest first. Raises UnknownRule."""
        async with self._context.database.read() as connection:
            await find(connection, rule_id)
            return await events.of_rule(connection, rule_id)

    async def history(self, rule_id: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """Events of the rule, newest first. Raises UnknownRule, InvalidCursor."""
        before = paging.decode("history", cursor)
        async with self._context.database.read() as connection:
            await find(connection, rule_id)
            where = EventFilter(rule_id=rule_id)
            found, total = await events.page(connection, where, limit + 1, before)
        return paging.page("history", [(event.id, event) for event in found], total, limit)

    async def at_version(self, rule_id: str, version: int) -> Rule:
        """The rule with the text, trigger and domain it had at `version`. Raises UnknownRule."""
        async with self._context.database.read() as connection:
            rule = (await find(connection, rule_id))[1]
            return await at_version(connection, rule, version)

    async def nearest(
        self,
        vector: Vector,
        *,
        namespace: str | None = None,
        polarity: Polarity | None = None,
        states: Sequence[RuleState] = INDEXED_STATES,
        limit: int = 50,
    ) -> list[SimilarRule]:
        """The rules nearest to a vector, most similar first. Active and candidate ones come from
        the index; of the others the newest 20,000 vectors are looked through.

        Raises InvalidVector.
        """
        await self._context.exposures.count()
        index = self._context.index
        query = unit(vector, index.dimension)
        best = index.nearest(
            query,
            namespace,
            [polarity] if polarity else list(Polarity),
            [state for state in INDEXED_STATES if state in states],
            limit,
        )
        resting = [state for state in states if state not in INDEXED_STATES]
        async with self._context.database.read() as connection:
            if resting:
                stored = await rules_bulk.resting(
                    connection,
                    self._context.embedding_model,
                    namespace,
                    resting,
                    len(query),
                    _MOST_RESTING,
                )
                best += await asyncio.to_thread(_cosines, stored, query)
            best.sort(key=lambda pair: (-pair[1], pair[0]))
            # A rule may have changed its state since the index looked, and its polarity is in SQL.
            found = await rules_bulk.by_seqs(connection, [seq for seq, _ in best[: 4 * limit]])
        similar = [
            SimilarRule(found[seq], cosine)
            for seq, cosine in best
            if seq in found
            and found[seq].state in states
            and (polarity is None or found[seq].polarity is polarity)
        ]
        return similar[:limit]

    # -- changing

    async def create(self, new: NewRule, vectors: Vectors, *, change: Change) -> Rule:
        """Raises UnknownNamespace, DuplicateRule, InvalidVector; ValueError for an empty text."""
        if not rule_writes.tidy(new.text):
            raise ValueError("a rule needs a text")
        now, units = self._context.clock(), self._context.units(vectors)
        async with self._context.change() as connection:
            if self._context.namespaces.get(new.namespace) is None:
                raise UnknownNamespace(new.namespace)
            self._context.namespaces.check_writable(new.namespace)
            await _check_unique(connection, new, None)
            _, rule = await rule_writes.create(
                connection, new, units, self._context.embedding_model, now, change
            )
            if rule.state is RuleState.ACTIVE:
                await standings.vouch(connection, rule, now)
            await self._make_room(connection, rule)
        return rule

    async def patch(
        self,
        rule_id: str,
        *,
        text: str | None = None,
        trigger: str | None = None,
        domain: str | None = None,
        vectors: Vectors = NO_VECTORS,
        expected_version: int | None = None,
        change: Change,
    ) -> Rule:
        """Changes what is not None. `vectors` are those of the changed texts; a changed text that
        has none leaves retrieval until `add_embeddings` brings it.

        Raises UnknownRule, VersionConflict, DuplicateRule, InvalidVector; ValueError for an empty
        text.
        """
        if text is not None and not rule_writes.tidy(text):
            raise ValueError("a rule needs a text")
        units = self._context.units(vectors)
        async with self._context.change() as connection:
            seq, before = await find(connection, rule_id, expected_version)
            after = replace(
                before,
                text=before.text if text is None else rule_writes.tidy(text),
                trigger=before.trigger if trigger is None else rule_writes.tidy(trigger),
                domain=before.domain if domain is None else storable(domain),
            )
            return await self._reword(connection, seq, before, after, units, "rule.patched", change)

    async def restore(
        self,
        rule_id: str,
        *,
        version: int | None = None,
        vectors: Vectors = NO_VECTORS,
        change: Change,
        expected_version: int | None = None,
    ) -> Rule:
        """Without `version`: makes a retired or quarantined rule active again. With it: gives the
        rule back the text, trigger and domain of that version, state unchanged; `vectors` are
        those of the texts that change by it (see `at_version`).

        Raises UnknownRule, VersionConflict, DuplicateRule, InvalidTransition, InvalidVector.
        """
        units = self._context.units(vectors)
        async with self._context.change() as connection:
            seq, before = await find(connection, rule_id, expected_version)
            if version is not None:
                after = await at_version(connection, before, version)
                return await self._reword(
                    connection, seq, before, after, units, "rule.restored", change
                )
            if before.state not in (RuleState.RETIRED, RuleState.QUARANTINED):
                raise InvalidTransition(f"Rule {rule_id!r} is {before.state}; nothing to restore.")
            return await self._activate(connection, before, "rule.restored", change)

    async def quarantine(
        self, rule_id: str, *, change: Change, expected_version: int | None = None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition, NamespaceFrozen."""
        async with self._context.change() as connection:
            _, before = await find(connection, rule_id, expected_version)
            await self._check_movable(connection, before, RuleState.QUARANTINED)
            after = rule_writes.moved(
                before, RuleState.QUARANTINED, change.reason, self._context.clock()
            )
            await rule_writes.update(connection, before, after, "rule.quarantined", change)
            return after

    async def release(
        self, rule_id: str, *, change: Change, expected_version: int | None = None
    ) -> Rule:
        """Makes a quarantined rule active. Raises UnknownRule, VersionConflict,
        InvalidTransition, NamespaceFrozen."""
        async with self._context.change() as connection:
            before = await _quarantined(connection, rule_id, expected_version)
            return await self._activate(connection, before, "rule.released", change)

    async def retire(
        self, rule_id: str, *, change: Change, expected_version: int | None = None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition, NamespaceFrozen."""
        async with self._context.change() as connection:
            _, before = await find(connection, rule_id, expected_version)
            return await self._retire(connection, before, rule_writes.RETIRED, change)

    async def reject(
        self, rule_id: str, *, change: Change, expected_version: int | None = None
    ) -> Rule:
        """Retires a quarantined rule. Raises UnknownRule, VersionConflict, InvalidTransition,
        NamespaceFrozen."""
        async with self._context.change() as connection:
            before = await _quarantined(connection, rule_id, expected_version)
            return await self._retire(connection, before, "rule.rejected", change)

    async def _retire(
        self, connection: AsyncConnection, rule: Rule, kind: str, change: Change
    ) -> Rule:
        """Raises InvalidTransition, NamespaceFrozen, DuplicateRule."""
        await self._check_movable(connection, rule, RuleState.RETIRED)
        gone = rule_writes.Retirement(rule, change.reason, change)
        (retired,) = await rule_writes.retire(connection, [gone], self._context.clock(), kind)
        return retired

    async def _activate(
        self, connection: AsyncConnection, before: Rule, kind: str, change: Change
    ) -> Rule:
        """Raises InvalidTransition, NamespaceFrozen, DuplicateRule."""
        await self._check_movable(connection, before, RuleState.ACTIVE)
        now = self._context.clock()
        after = rule_writes.moved(before, RuleState.ACTIVE, change.reason, now)
        await rule_writes.update(connection, before, after, kind, change)
        await standings.vouch(connection, after, now)
        await self._make_room(connection, after)
        return after

    async def _check_movable(
        self, connection: AsyncConnection, rule: Rule, state: RuleState
    ) -> None:
        """Raises InvalidTransition, NamespaceFrozen, DuplicateRule."""
        self._context.namespaces.check_writable(rule.namespace)
        if rule.state is state:
            raise InvalidTransition(f"Rule {rule.id!r} is {state} already.")
        # A rollback can leave a retired rule with the text of another one.
        await _check_unique(connection, rule, rule.id)

    async def _reword(
        self,
        connection: AsyncConnection,
        seq: int,
        before: Rule,
        wanted: Rule,
        vectors: Vectors,
        kind: str,
        change: Change,
    ) -> Rule:
        """Writes a rule whose texts may have changed. Vectors of unchanged texts stay."""
        self._context.namespaces.check_writable(before.namespace)
        after = replace(wanted, version=before.version + 1, updated_at=self._context.clock())
        await _check_unique(connection, after, after.id)
        await rule_writes.update(connection, before, after, kind, change)
        if after.state is RuleState.ACTIVE and after.text != before.text:
            await standings.vouch(connection, after, after.updated_at)
        for changed, name in (
            (after.text != before.text, embeddings.TEXT),
            (after.trigger != before.trigger, embeddings.TRIGGER),
        ):
            if changed:
                await embeddings.forget(connection, seq, name)
        fitting = Vectors(
            text=vectors.text if after.text != before.text else None,
            trigger=vectors.trigger if after.trigger not in (before.trigger, "") else None,
        )
        await embeddings.insert_vectors(connection, seq, self._context.embedding_model, fitting)
        return after

    async def _make_room(self, connection: AsyncConnection, rule: Rule) -> None:
        if rule.state is RuleState.ACTIVE:
            await capacity.make_room(
                self._context, connection, rule.namespace, [rule.id], spare_fresh=True
            )

    # -- a new embedding model

    async def without_embedding(self, limit: int = 256) -> list[Rule]:
        """Active and candidate rules that lack a vector of the current embedding model."""
        async with self._context.database.read() as connection:
            return await embeddings.lacking(
                connection, self._context.embedding_model, self._context.index.dimension, limit
            )

    async def add_embeddings(self, items: Sequence[RuleEmbedding]) -> int:
        """Adds vectors of the current model; returns for how many rules. One event for all.
        Raises InvalidVector."""
        units = [(item, self._context.units(item.vectors)) for item in items]
        done: list[Rule] = []
        async with self._context.change() as connection:
            for item, vectors in units:
                found = await rules.find(connection, item.rule_id)
                if found is not None and found[1].version == item.version:
                    await embeddings.replace_vectors(
                        connection, found[0], self._context.embedding_model, vectors
                    )
                    done.append(found[1])
            for namespace in sorted({rule.namespace for rule in done}):
                await events.append(
                    connection,
                    self._context.clock(),
                    namespace,
                    "rules.embedded",
                    Change(events.SYSTEM, f"vectors of {self._context.embedding_model}"),
                    after={"rules": [rule.id for rule in done if rule.namespace == namespace]},
                )
        return len(done)

    # Last: below it the name of the builtin would mean this method.

    async def list(
        self,
        where: RuleFilter = EVERY_RULE,
        *,
        sort: RuleSort = RuleSort.NEWEST,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Rules in this order. A cursor goes with the order it was given out for.
        Raises InvalidCursor."""
        await self._context.exposures.count()
        kind = f"rules-{sort.value}"
        after = paging.decode_place(kind, cursor, place_length(sort))
        async with self._context.database.read() as connection:
            found, total = await rules.page(connection, where, limit + 1, after, sort)
        return paging.page_of_places(kind, found, total, limit)


async def find(
    connection: AsyncConnection, rule_id: str, expected_version: int | None = None
) -> tuple[int, Rule]:
    """Sequence number and rule. Raises UnknownRule, VersionConflict."""
    found = await rules.find(connection, rule_id)
    if found is None:
        raise UnknownRule(rule_id)
    if expected_version is not None and found[1].version != expected_version:
        raise VersionConflict(rule_id, expected_version, found[1].version)
    return found


async def at_version(connection: AsyncConnection, rule: Rule, version: int) -> Rule:
    """`rule` with the text, trigger and domain of that version. Raises UnknownRule."""
    for event in await events.of_rule(connection, rule.id):
        after = event.after or {}
        if after.get("version") == version:
            return replace(
                rule, text=after["text"], trigger=after["trigger"], domain=after["domain"]
            )
    raise UnknownRule(rule.id, version)


async def _quarantined(
    connection: AsyncConnection, rule_id: str, expected_version: int | None
) -> Rule:
    """Raises UnknownRule, VersionConflict, InvalidTransition."""
    _, rule = await find(connection, rule_id, expected_version)
    if rule.state is not RuleState.QUARANTINED:
        raise InvalidTransition(f"Rule {rule_id!r} is {rule.state}, not quarantined.")
    return rule


async def _check_unique(
    connection: AsyncConnection, rule: Rule | NewRule, own_id: str | None
) -> None:
    """Raises DuplicateRule."""
    same = await rules.find_by_text(
        connection, rule.namespace, rule.polarity, rule_writes.text_hash(rule.text)
    )
    if same is not None and same[1].id != own_id:
        raise DuplicateRule(same[1].id)


def _cosines(stored: Sequence[tuple[int, Vector]], query: Vector) -> list[tuple[int, float]]:
    """(seq, the larger cosine of a rule's vectors)."""
    if not stored:
        return []
    cosines = np.stack([vector for _, vector in stored]) @ query
    best: dict[int, float] = {}
    for (seq, _), cosine in zip(stored, cosines.tolist(), strict=True):
        best[seq] = max(best.get(seq, -1.0), round(cosine, 6))
    return list(best.items())
