"""Rules as they are: reading and counting."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import UnknownRule, VersionConflict
from rules_store.models import paging
from rules_store.models.events import Event
from rules_store.models.paging import Page
from rules_store.models.rules import EVERY_RULE, Rule, RuleFilter, RuleSort, RuleState
from rules_store.models.stats import Stats
from rules_store.operations.base import StoreCore
from rules_store.repository import episodes, events, jobs, namespaces, rules


class RuleQueries(StoreCore):
    async def list_rules(
        self,
        where: RuleFilter = EVERY_RULE,
        *,
        sort: RuleSort = RuleSort.NEWEST,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Rules in this order. A cursor goes with the order it was given out for.
        Raises InvalidCursor."""
        await self._count_exposures()
        kind = f"rules-{sort.value}"
        after = paging.decode_place(kind, cursor, rules.place_length(sort))
        async with self._database.read() as connection:
            found, total = await rules.page(connection, where, limit + 1, after, sort)
        return paging.page_of_places(kind, found, total, limit)

    async def get_rule(self, rule_id: str) -> Rule:
        """Raises UnknownRule."""
        await self._count_exposures()
        async with self._database.read() as connection:
            return (await find(connection, rule_id))[1]

    async def rule_events(self, rule_id: str) -> list[Event]:
        """The rule's history, oldest first. Raises UnknownRule."""
        async with self._database.read() as connection:
            await find(connection, rule_id)
            return await events.of_rule(connection, rule_id)

    async def rule_history(
        self, rule_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Events of the rule, newest first. Raises UnknownRule, InvalidCursor."""
        before = paging.decode("history", cursor)
        async with self._database.read() as connection:
            await find(connection, rule_id)
            found, total = await events.page_of_rule(connection, rule_id, limit + 1, before)
        return paging.page("history", found, total, limit)

    async def rule_at_version(self, rule_id: str, version: int) -> Rule:
        """The rule with the text, trigger and domain it had at `version`. Raises UnknownRule."""
        async with self._database.read() as connection:
            rule = (await find(connection, rule_id))[1]
            return await at_version(connection, rule, version)

    async def stats(self) -> Stats:
        async with self._database.read() as connection:
            counts = await rules.counts(connection)
            names = await namespaces.names(connection)
            by_status = await episodes.counts(connection)
            by_job_state = await jobs.counts(connection)
            last = await events.last_id(connection)
        states: Counter[str] = Counter({state.value: 0 for state in RuleState})
        polarities: Counter[str] = Counter()
        spaces: dict[str, dict[str, int]] = {}
        for namespace, polarity, state, count in counts:
            states[state] += count
            if state == RuleState.ACTIVE:
                polarities[polarity] += count
            space = spaces.setdefault(namespace, {})
            space[state] = space.get(state, 0) + count
        return Stats(
            namespaces=len(names),
            rules=dict(states),
            rules_by_polarity=dict(polarities),
            rules_by_namespace=spaces,
            episodes=by_status,
            jobs=by_job_state,
            last_event=last,
        )


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
