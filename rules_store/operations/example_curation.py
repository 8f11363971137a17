"""Retiring many examples of a namespace by a policy, with a preview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import PreviewOutdated, UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.examples import STRENGTH, Example
from rules_store.models.rules import RuleState
from rules_store.operations import example_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.curation import (
    ATTEMPTS,
    PruneOrder,
    PrunePolicy,
    both_reasons,
    oldest_kept,
    preview_token,
)
from rules_store.repository import examples


@dataclass(frozen=True, slots=True)
class ExampleVictim:
    """An example that a prune retires, and why it is this one."""

    example: Example
    reason: str


@dataclass(frozen=True, slots=True)
class ExamplePrunePlan:
    """`victims` in the order in which they go. `token` stands for the order and for exactly these
    examples as they are now. `active`: active examples of the namespace before."""

    victims: tuple[ExampleVictim, ...]
    token: str
    active: int


async def plan(context: StoreContext, order: PruneOrder) -> ExamplePrunePlan:
    """See `ExampleOperations.plan_prune`."""
    if order.policy is PrunePolicy.SIMILARITY:
        raise ValueError("examples are pruned by fifo, age or utility")
    await context.exposures.count()
    async with context.database.read() as connection:
        await context.caches.follow(connection)
        if context.namespaces.get(order.namespace) is None:
            raise UnknownNamespace(order.namespace)
        limit = oldest_kept(order, context.clock())
        standing = await examples.active(connection, order.namespace, limit)
        active = await examples.count_active(connection, order.namespace)
        chosen = _choose(order, standing)
        found = await examples.by_seqs(connection, [each.seq for each in chosen])
    victims = [
        ExampleVictim(found[each.seq], _reason(order, found[each.seq]))
        for each in chosen
        if each.seq in found
    ]
    token = preview_token(order, [victim.example for victim in victims])
    return ExamplePrunePlan(tuple(victims), token, active)


async def prune(
    context: StoreContext, order: PruneOrder, token: str | None, change: Change
) -> ExamplePrunePlan:
    """See `ExampleOperations.prune`."""
    for _ in range(ATTEMPTS):
        planned = await plan(context, order)
        if token is not None and planned.token != token:
            break
        async with context.change() as connection:
            context.namespaces.check_writable(order.namespace)
            if await _holds(connection, order, planned):
                told = [f"pruned ({order.policy.value}): {each.reason}" for each in planned.victims]
                gone = [
                    example_writes.Retirement(victim.example, why, both_reasons(change, why))
                    for victim, why in zip(planned.victims, told, strict=True)
                ]
                await example_writes.retire(connection, gone, context.clock())
                return planned
    raise PreviewOutdated(order.namespace)


async def _holds(connection: AsyncConnection, order: PruneOrder, planned: ExamplePrunePlan) -> bool:
    """Whether the plan's examples are as it saw them, and enough of the others are left."""
    seen = {victim.example.id: victim.example.version for victim in planned.victims}
    now = await examples.by_ids(connection, list(seen))
    standing = {id: each.version for id, each in now.items() if each.state is RuleState.ACTIVE}
    if standing != seen:
        return False
    if order.keep is None or not seen:
        return True
    active = await examples.count_active(connection, order.namespace)
    return active - len(seen) >= order.keep


def _choose(
    order: PruneOrder, standing: Sequence[examples.PrunableExample]
) -> Sequence[examples.PrunableExample]:
    """In the order in which they go. `standing`: the examples that may go, oldest first."""
    if order.policy is PrunePolicy.AGE:
        return standing
    excess = max(0, len(standing) - (order.keep or 0))
    if order.policy is PrunePolicy.UTILITY:
        standing = sorted(
            standing,
            key=lambda each: (each.lift, STRENGTH[each.trust], each.verified_at, each.seq),
        )
    return standing[:excess]


def _reason(order: PruneOrder, example: Example) -> str:
    if order.policy is PrunePolicy.AGE:
        return f"verified more than {order.older_than_days:g} days ago"
    if order.policy is PrunePolicy.UTILITY:
        return f"vouched for by {example.trust.value}, used {example.exposures} times"
    return "among the oldest"
