"""Tidying a namespace up: retiring many rules by a policy, and joining rules that say the same."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import InvalidTransition, PreviewOutdated, UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.evidence import LinkKind
from rules_store.models.examples import Example
from rules_store.models.rules import Polarity, Rule, RuleState
from rules_store.operations import capacity, rule_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.rules import find
from rules_store.policy import redundancy
from rules_store.repository import (
    links,
    rules,
    rules_bulk,
)

ATTEMPTS = 3  # plans of a prune that others' changes overtake


class PrunePolicy(StrEnum):
    """Which active rules go."""

    FIFO = "fifo"
    """The oldest go."""
    AGE = "age"
    """What was written (an example: verified) longer ago than a limit goes, however many."""
    SIMILARITY = "similarity"
    """Rules only: of the most similar pair the less learned goes, and again
    (`redundancy.most_redundant`)."""
    UTILITY = "utility"
    """Those of the least lift go (nothing measured is a lift of zero). Of equal rules the least
    used, of those the least often learned, of those the oldest; of equal examples the least
    trusted, of those the longest unverified."""


@dataclass(frozen=True, slots=True)
class PruneOrder:
    """What to prune. `keep`: active rules that stay, for every policy but age; `older_than_days`:
    for age. Raises ValueError for anything else."""

    namespace: str
    policy: PrunePolicy
    keep: int | None = None
    older_than_days: float | None = None

    def __post_init__(self) -> None:
        by_age = self.policy is PrunePolicy.AGE
        if by_age != (self.older_than_days is not None) or by_age != (self.keep is None):
            raise ValueError("age takes older_than_days, every other policy keep")
        if (self.keep or 0) < 0 or (self.older_than_days or 0) < 0:
            raise ValueError("keep and older_than_days can't be negative")


@dataclass(frozen=True, slots=True)
class Victim:
    """A rule that a prune retires, and why it is this one."""

    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """`victims` in the order in which they go. `token` stands for the order and for exactly these
    rules as they are now. `active`: active rules of the namespace before."""

    victims: tuple[Victim, ...]
    token: str
    active: int


class CurationOperations:
    """`store.curation`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def plan_prune(self, order: PruneOrder) -> PrunePlan:
        """What `prune` would retire now; changes nothing. Raises UnknownNamespace."""
        await self._context.exposures.count()
        async with self._context.database.read() as connection:
            await self._context.caches.follow(connection)
            if self._context.namespaces.get(order.namespace) is None:
                raise UnknownNamespace(order.namespace)
            limit = oldest_kept(order, self._context.clock())
            standing = await rules_bulk.active(connection, order.namespace, limit)
            active = await rules.count_active(connection, order.namespace)
            texts = (
                [
                    self._context.index.active_texts(order.namespace, polarity)
                    for polarity in Polarity
                ]
                if order.policy is PrunePolicy.SIMILARITY
                else []
            )
        # Comparing 10,000 rules with each other takes seconds: no transaction is open meanwhile.
        chosen = await asyncio.to_thread(_choose, order, standing, texts)
        async with self._context.database.read() as connection:
            found = await rules_bulk.by_seqs(connection, list(chosen))
        victims = [
            Victim(found[seq], why or _standing(found[seq]))
            for seq, why in chosen.items()
            if seq in found
        ]
        return PrunePlan(
            tuple(victims), preview_token(order, [victim.rule for victim in victims]), active
        )

    async def prune(
        self, order: PruneOrder, *, token: str | None = None, change: Change
    ) -> PrunePlan:
        """Retires rules, an event each. With the `token` of a plan: the rules of that plan, or
        none.

        Raises PreviewOutdated where the rules have changed since, UnknownNamespace,
        NamespaceFrozen.
        """
        for _ in range(ATTEMPTS):
            plan = await self.plan_prune(order)
            if token is not None and plan.token != token:
                break
            async with self._context.change() as connection:
                self._context.namespaces.check_writable(order.namespace)
                if await _holds(connection, order, plan):
                    why = [f"pruned ({order.policy.value}): {each.reason}" for each in plan.victims]
                    pairs = zip(plan.victims, why, strict=True)
                    gone = [_retirement(victim.rule, told, change) for victim, told in pairs]
                    await rule_writes.retire(connection, gone, self._context.clock())
                    return plan
        raise PreviewOutdated(order.namespace)

    async def merge(
        self,
        into: str,
        others: Sequence[str],
        *,
        expected: Mapping[str, int] | None = None,
        change: Change,
    ) -> Rule:
        """Adds the others' frequency to the rule `into` and retires them, in one transaction.

        All are of one namespace and polarity, and none is retired already. `expected`: versions
        by rule id. Raises UnknownRule, VersionConflict, InvalidTransition, NamespaceFrozen;
        ValueError where `others` is empty or names a rule twice or `into`.
        """
        if not others or len({into, *others}) != len(others) + 1:
            raise ValueError("name each rule once, and one at least beside the survivor")
        versions, now = expected or {}, self._context.clock()
        async with self._context.change() as connection:
            _, survivor = await find(connection, into, versions.get(into))
            self._context.namespaces.check_writable(survivor.namespace)
            merged = [(await find(connection, id, versions.get(id)))[1] for id in others]
            for rule in (survivor, *merged):
                _check_mergeable(rule, survivor)
            after = replace(
                survivor,
                frequency=rule_writes.together(*(rule.frequency for rule in (survivor, *merged))),
                version=survivor.version + 1,
                updated_at=now,
            )
            await rule_writes.update(connection, survivor, after, rule_writes.MERGED, change)
            for rule in merged:
                await _inherit(connection, survivor, rule, now)
            why = f"merged into {into}"
            gone = [_retirement(rule, why, change) for rule in merged]
            await rule_writes.retire(connection, gone, now)
        return after


def _check_mergeable(rule: Rule, survivor: Rule) -> None:
    """Raises InvalidTransition."""
    if rule.state is RuleState.RETIRED:
        raise InvalidTransition(f"Rule {rule.id!r} is retired; restore it to merge it.")
    if (rule.namespace, rule.polarity) != (survivor.namespace, survivor.polarity):
        raise InvalidTransition(
            f"Rule {rule.id!r} is not of the namespace and polarity of {survivor.id!r}."
        )


async def _inherit(
    connection: AsyncConnection, survivor: Rule, merged: Rule, now: datetime
) -> None:
    """Links the survivor to the rule that it takes up, and to the episodes that taught this."""
    namespace, id = survivor.namespace, survivor.id
    await links.add(connection, namespace, id, LinkKind.PARENT, merged.id, now)
    for link in await links.of_item(connection, merged.id):
        if link.kind is LinkKind.SOURCE:
            await links.add(connection, namespace, id, link.kind, link.other, now)


def _retirement(rule: Rule, why: str, change: Change) -> rule_writes.Retirement:
    return rule_writes.Retirement(rule, why, both_reasons(change, why))


async def _holds(connection: AsyncConnection, order: PruneOrder, plan: PrunePlan) -> bool:
    """Whether the plan's rules are as it saw them, and enough of the others are left."""
    seen = {victim.rule.id: (victim.rule.version, RuleState.ACTIVE) for victim in plan.victims}
    if await rules_bulk.versions(connection, list(seen)) != seen:
        return False
    if order.keep is None or not seen:
        return True
    # Somebody may have retired others since.
    active = await rules.count_active(connection, order.namespace)
    return active - len(seen) >= order.keep


def oldest_kept(order: PruneOrder, now: datetime) -> datetime | None:
    """What is older may go by age; None by every other policy."""
    if order.older_than_days is None:
        return None
    return now - timedelta(days=min(order.older_than_days, _LONGEST_DAYS))


def _choose(
    order: PruneOrder,
    standing: Sequence[rules_bulk.PrunableRule],
    texts: Sequence[capacity.Texts],
) -> dict[int, str]:
    """Sequence number -> reason ("": what `_standing` says), in the order in which they go.

    `standing`: the rules that may go, oldest first.
    """
    if order.policy is PrunePolicy.AGE:
        return {rule.seq: f"older than {order.older_than_days:g} days" for rule in standing}
    excess = max(0, len(standing) - (order.keep or 0))
    if order.policy is PrunePolicy.SIMILARITY:
        active = [(rule.seq, rule.polarity, rule.frequency) for rule in standing]
        near = dict.fromkeys(
            capacity.redundant(texts, active, excess, ()), "most like another rule"
        )
        # By age where there is nothing to compare: a rule without a vector, the last of a side.
        left = [rule.seq for rule in standing if rule.seq not in near]
        alone = "the oldest, with nothing to compare it with"
        return near | dict.fromkeys(redundancy.oldest(left, excess - len(near)), alone)
    if order.policy is PrunePolicy.UTILITY:
        ranked = sorted(
            standing, key=lambda rule: (rule.lift, rule.exposures, rule.frequency, rule.seq)
        )
        return {rule.seq: "" for rule in ranked[:excess]}
    return {rule.seq: "among the oldest" for rule in standing[:excess]}


def _standing(rule: Rule) -> str:
    return f"used {rule.exposures} times, learned {rule.frequency} times"


_LONGEST_DAYS = 36_500.0


def preview_token(order: PruneOrder, gone: Sequence[Rule | Example]) -> str:
    """Stands for the order and for exactly these as they are now."""
    parts = [repr((order.namespace, order.policy.value, order.keep, order.older_than_days))]
    parts += sorted(f"{each.id}:{each.version}" for each in gone)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def both_reasons(change: Change, why: str) -> Change:
    """For the event of one that goes: the operator's reason, and why it is this one."""
    return replace(change, reason=f"{change.reason}; {why}" if change.reason else why)
