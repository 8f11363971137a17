"""Examples on their way out of a store and into another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.examples import Example, ExampleFilter
from rules_store.models.rules import RuleState, Vector
from rules_store.operations import example_writes
from rules_store.operations.context import StoreContext
from rules_store.operations.exchange import ImportResult
from rules_store.repository import events, examples

_AT_ONCE = 500
IMPORTED = "example.imported"


@dataclass(frozen=True, slots=True, eq=False)
class ExportedExample:
    """An example on its way out."""

    example: Example
    vector: Vector | None
    """Of its question under the store's embedding model; None where it was not asked for, or is
    not there."""


@dataclass(frozen=True, slots=True, eq=False)
class IncomingExample:
    """An example from elsewhere. `example.id` is kept where it is free; version and exposures
    begin anew."""

    example: Example
    vector: Vector | None


async def export(
    context: StoreContext, where: ExampleFilter, *, vectors: bool
) -> AsyncIterator[list[ExportedExample]]:
    """See `ExampleOperations.export`."""
    await context.exposures.count()
    after = 0
    while True:
        async with context.database.read() as connection:
            found = await examples.batch(connection, where, after, _AT_ONCE)
            ids = [each.id for _, each in found]
            given = (
                await examples.vectors_of(connection, context.embedding_model, ids)
                if vectors
                else {}
            )
        if not found:
            return
        after = found[-1][0]
        yield [ExportedExample(each, given.get(each.id)) for _, each in found]


async def known_texts(context: StoreContext, items: Sequence[Example]) -> list[str | None]:
    """See `ExampleOperations.known_texts`."""
    async with context.database.read() as connection:
        return await _known(connection, items)


async def import_all(
    context: StoreContext, items: Sequence[IncomingExample], change: Change
) -> ImportResult:
    """See `ExampleOperations.import_`."""
    if not items:
        return ImportResult(())
    (namespace,) = {item.example.namespace for item in items}
    for item in items:
        example_writes.check_texts(item.example.question.strip(), item.example.answer.strip())
    units = [example_writes.checked_vector(context, item.vector) for item in items]
    async with context.change() as connection:
        if context.namespaces.get(namespace) is None:
            raise UnknownNamespace(namespace)
        context.namespaces.check_writable(namespace)
        new, outcomes = await _sorted_out(connection, items, context.clock())
        vectors = {
            id: vector
            for id, vector in zip(outcomes, units, strict=True)
            if id is not None and vector is not None
        }
        await examples.insert_all(connection, new, context.embedding_model, vectors)
        made = [example for _, example in new]
        rows = [example_writes.event_row(None, each, IMPORTED, change) for each in made]
        await events.append_many(connection, rows)
        await example_writes.settle(context, connection, made, vectors)
        gone = []
        if any(each.state is RuleState.ACTIVE for each in made):
            gone = await example_writes.make_room(context, connection, namespace)
    return ImportResult(tuple(outcomes), tuple(each.id for each in gone))


async def _sorted_out(
    connection: AsyncConnection, items: Sequence[IncomingExample], at: datetime
) -> tuple[list[tuple[str, Example]], list[str | None]]:
    """The examples to be written, each after its hash; and for each of the items the id of its
    example, None where there is one with this question and answer."""
    known = await _known(connection, [item.example for item in items])
    taken = set(await examples.by_ids(connection, [item.example.id for item in items]))
    new: dict[str, Example] = {}
    outcomes: list[str | None] = []
    for item, there in zip(items, known, strict=True):
        example = example_writes.tidied(item.example)
        key = example_writes.hash_of(example)
        if there is not None or key in new:
            outcomes.append(None)
            continue
        id = example_writes.new_example_id() if example.id in taken else example.id
        taken.add(id)
        new[key] = replace(example, id=id, version=1, exposures=0, updated_at=at)
        outcomes.append(id)
    return list(new.items()), outcomes


async def _known(connection: AsyncConnection, items: Sequence[Example]) -> list[str | None]:
    hashes = [example_writes.hash_of(each) for each in items]
    found = {
        namespace: await examples.with_texts(connection, namespace, hashes)
        for namespace in {each.namespace for each in items}
    }
    return [
        found[each.namespace].get(text_hash) for each, text_hash in zip(items, hashes, strict=True)
    ]
