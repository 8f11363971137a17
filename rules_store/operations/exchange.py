"""Rules on their way out of a store and into another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.evidence import Standing
from rules_store.models.rules import (
    EVERY_RULE,
    Polarity,
    Rule,
    RuleFilter,
    RuleState,
    Vectors,
)
from rules_store.operations import capacity, rule_writes
from rules_store.operations.context import StoreContext
from rules_store.policy.lift import retention
from rules_store.repository import events, rules_bulk, standings

_AT_ONCE = 500
IMPORTED = "rule.imported"
TRUSTED = "rule.trusted"


@dataclass(frozen=True, slots=True, eq=False)
class ExportedRule:
    """A rule on its way out."""

    rule: Rule
    vectors: Vectors | None
    """Under the store's embedding model; None where they were not asked for."""
    standing: Standing | None
    """None: there is no evidence."""


@dataclass(frozen=True, slots=True, eq=False)
class IncomingRule:
    """A rule from elsewhere. `rule.id` is kept where it is free; version and exposures begin
    anew."""

    rule: Rule
    vectors: Vectors
    standing: Standing | None = None
    """What is known of its worth there; counts where the import is trusted."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """`outcomes` go with the rules that came: the id it has here, or None for one whose text the
    namespace has already. `evicted`: rules that were retired to keep within the capacity."""

    outcomes: tuple[str | None, ...]
    evicted: tuple[str, ...] = ()


class ExchangeOperations:
    """`store.exchange`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def export_rules(
        self, where: RuleFilter = EVERY_RULE, *, vectors: bool = False
    ) -> AsyncIterator[list[ExportedRule]]:
        """All rules in batches, oldest first. No transaction is open between two batches."""
        await self._context.exposures.count()
        after = 0
        while True:
            async with self._context.database.read() as connection:
                found = await rules_bulk.batch(connection, where, after, _AT_ONCE)
                given = (
                    await rules_bulk.vectors_of(
                        connection, self._context.embedding_model, [seq for seq, _ in found]
                    )
                    if vectors
                    else {}
                )
                known = await standings.some(connection, [rule.id for _, rule in found])
            if not found:
                return
            after = found[-1][0]
            yield [
                ExportedRule(
                    rule, given.get(seq, Vectors()) if vectors else None, known.get(rule.id)
                )
                for seq, rule in found
            ]

    async def known_texts(self, rules: Sequence[Rule]) -> list[str | None]:
        """For each rule, the id of the one that has its text in its namespace and polarity."""
        async with self._context.database.read() as connection:
            return await _known(connection, rules)

    async def import_rules(
        self, items: Sequence[IncomingRule], *, change: Change, trust: bool = False
    ) -> ImportResult:
        """Writes those whose text is new to their namespace and polarity, in one transaction; an
        event each. All are of one namespace. `trust`: the evidence that comes along counts here,
        and an active rule without any need not prove itself first; another event each.

        Raises UnknownNamespace, NamespaceFrozen, InvalidVector.
        """
        if not items:
            return ImportResult(())
        (namespace,) = {item.rule.namespace for item in items}
        units = [self._context.units(item.vectors) for item in items]
        async with self._context.change() as connection:
            if self._context.namespaces.get(namespace) is None:
                raise UnknownNamespace(namespace)
            self._context.namespaces.check_writable(namespace)
            new, outcomes = await _sorted_out(connection, items, self._context.clock())
            vectors = {
                id: given for id, given in zip(outcomes, units, strict=True) if id is not None
            }
            await rules_bulk.insert_all(connection, new, self._context.embedding_model, vectors)
            rows = [rule_writes.event_row(None, rule, IMPORTED, change) for _, rule in new]
            await events.append_many(connection, rows)
            if trust:
                given = dict(zip(outcomes, items, strict=True))
                await self._trust(connection, [(rule, given[rule.id]) for _, rule in new], change)
            active = [rule.id for _, rule in new if rule.state is RuleState.ACTIVE]
            evicted = await capacity.make_room(self._context, connection, namespace, active)
        return ImportResult(tuple(outcomes), tuple(evicted))

    async def _trust(
        self,
        connection: AsyncConnection,
        imported: Sequence[tuple[Rule, IncomingRule]],
        change: Change,
    ) -> None:
        """`imported`: rules as they are here, with what came."""
        numbers = await rules_bulk.numbers_of(connection, [rule.id for rule, _ in imported])
        now, half_life = self._context.clock(), self._context.options.half_life_days
        known: list[Standing] = []
        for rule, came in imported:
            fresh = Standing(rule.id, numbers[rule.id], rule.namespace, now)
            if came.standing is not None:
                known.append(_carried(fresh, came.standing, half_life))
            elif rule.state is RuleState.ACTIVE:
                known.append(replace(fresh, proven=True))
        await standings.put_all(connection, known)
        trusted = {each.item_id for each in known}
        rows = [
            rule_writes.event_row(rule, rule, TRUSTED, change)
            for rule, _ in imported
            if rule.id in trusted
        ]
        await events.append_many(connection, rows)


def _carried(fresh: Standing, there: Standing, half_life_days: float) -> Standing:
    """What is known there of the rule, here and now. Tests begin anew: their trials stay there."""
    factor = min(1.0, retention(there.at, fresh.at, half_life_days))
    carried = replace(
        fresh,
        with_rule=there.with_rule.aged(factor),
        without_rule=there.without_rule.aged(factor),
        proven=there.proven,
        verdict=there.verdict,
    )
    return carried.relifted()


async def _sorted_out(
    connection: AsyncConnection, items: Sequence[IncomingRule], at: datetime
) -> tuple[list[tuple[str, Rule]], list[str | None]]:
    """The rules to be written, each after its text's hash; and for each of the items the id of its
    rule, None where there is one with this text."""
    known = await _known(connection, [item.rule for item in items])
    taken = set(await rules_bulk.by_ids(connection, [item.rule.id for item in items]))
    new: dict[tuple[Polarity, str], Rule] = {}
    outcomes: list[str | None] = []
    for item, there in zip(items, known, strict=True):
        rule = item.rule
        key = (rule.polarity, rule_writes.text_hash(rule.text))
        if there is not None or key in new:
            outcomes.append(None)
            continue
        id = rule_writes.new_rule_id() if rule.id in taken else rule.id
        taken.add(id)
        new[key] = replace(rule, id=id, version=1, exposures=0, updated_at=at)
        outcomes.append(id)
    return [(text_hash, rule) for (_, text_hash), rule in new.items()], outcomes


async def _known(connection: AsyncConnection, rules: Sequence[Rule]) -> list[str | None]:
    found: list[str | None] = [None] * len(rules)
    hashes = [rule_writes.text_hash(rule.text) for rule in rules]
    for namespace in {rule.namespace for rule in rules}:
        there = await rules_bulk.with_texts(connection, namespace, hashes)
        for position, (rule, text_hash) in enumerate(zip(rules, hashes, strict=True)):
            if rule.namespace == namespace:
                found[position] = there.get((rule.polarity, text_hash))
    return found
