"""How often a rule was used, day by day."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from rules_store.operations.base import StoreCore
from rules_store.queries import find
from rules_store.repository import usage

DAYS = 30


@dataclass(frozen=True, slots=True)
class DayOfUse:
    day: date
    """In UTC."""
    episodes: int
    uses: int
    """Of these episodes, those that the rule was injected into."""


@dataclass(frozen=True, slots=True)
class RuleUse:
    days: tuple[DayOfUse, ...]
    """Every day of the period, oldest first, also those without an episode."""
    looked_at: int
    """Episodes of the period that were looked at."""
    uses: int


class UsageQueries(StoreCore):
    async def rule_use(self, rule_id: str, *, among: int = 2000) -> RuleUse:
        """The last days, as far as the namespace's `among` latest episodes go back.
        Raises UnknownRule."""
        now = self._clock()
        first = now.date() - timedelta(days=DAYS - 1)
        since = datetime.combine(first, time(), UTC)
        async with self._database.read() as connection:
            rule = (await find(connection, rule_id))[1]
            rows = await usage.of_rule(connection, rule.namespace, rule_id, among, since)
        recent = [(at.date(), used) for at, used in rows]
        episodes = Counter(day for day, _ in recent)
        uses = Counter(day for day, used in recent if used)
        days = [first + timedelta(days=number) for number in range(DAYS)]
        return RuleUse(
            days=tuple(DayOfUse(day, episodes[day], uses[day]) for day in days),
            looked_at=len(recent),
            uses=uses.total(),
        )
