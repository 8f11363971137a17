"""Examples out of a store and into another one, pruned with a preview, gone with their
namespace."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rules_store.errors import NamespaceFrozen, PreviewOutdated, UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.examples import Example, ExampleFilter, Trust
from rules_store.models.rules import RuleState
from rules_store.operations.curation import PruneOrder, PrunePolicy
from rules_store.operations.example_exchange import ExportedExample, IncomingExample
from rules_store.store import RuleStore
from tests.rules_store.example_helpers import asked, keep, recalled
from tests.rules_store.helpers import Clock, axis, between, open_store, random_vector

BY = Change("keeper", "moving house")


async def exported(store: RuleStore, **where: Any) -> list[ExportedExample]:
    batches = [batch async for batch in store.examples.export(ExampleFilter(**where), vectors=True)]
    return [item for batch in batches for item in batch]


def incoming(items: list[ExportedExample]) -> list[IncomingExample]:
    return [IncomingExample(item.example, item.vector) for item in items]


async def filled(store: RuleStore, clock: Clock) -> None:
    for number in range(8):
        clock.forward(1)
        await keep(
            store,
            f"question {'x' * number}",
            f"a{number}",
            random_vector(number),
            trust=list(Trust)[number % 4],
            expires_at=clock() + timedelta(days=30) if number % 3 == 0 else None,
            state=RuleState.QUARANTINED if number == 7 else RuleState.ACTIVE,
            reason="email: kim@example.com" if number == 7 else None,
        )


# -- export and import


async def test_what_goes_out_comes_in_again(store: RuleStore, tmp_path: Path, clock: Clock) -> None:
    await filled(store, clock)
    gone_out = await exported(store)
    (tmp_path / "other").mkdir()
    other = await open_store(tmp_path / "other", clock=clock)
    await other.namespaces.ensure("default")
    result = await other.examples.import_(incoming(gone_out), change=BY)
    assert list(result.outcomes) == [item.example.id for item in gone_out]
    come_in = await exported(other)

    def plain(each: Example) -> dict[str, Any]:
        names = ("id", "question", "answer", "label", "trust", "state", "reason", "domain")
        times = ("verified_at", "expires_at", "created_at")
        return {name: getattr(each, name) for name in (*names, *times)}

    assert [plain(each.example) for each in come_in] == [plain(each.example) for each in gone_out]
    for number in range(7):
        query = random_vector(number)
        assert recalled(other, query, k=8) == recalled(store, query, k=8)
    # A second time there is nothing new.
    again = await other.examples.import_(incoming(gone_out), change=BY)
    assert set(again.outcomes) == {None}
    known = await other.examples.known_texts([item.example for item in gone_out])
    assert known == [item.example.id for item in gone_out]
    assert (await other.parity()).ok
    await other.close()


async def test_an_import_finds_conflicts_with_what_is_there_and_within_itself(
    store: RuleStore,
) -> None:
    await keep(store, "q one", "a", axis(0))
    await keep(store, "source r", "x", axis(1))
    await store.namespaces.ensure("source")
    for question, answer, vector in (
        ("q two", "b", between(0, 2, 0.99)),
        ("r three", "c", axis(3)),
        ("r four", "d", between(3, 4, 0.99)),
    ):
        await keep(store, question, answer, vector, namespace="source")
    items = [
        IncomingExample(
            Example(
                **{
                    name: getattr(item.example, name)
                    for name in item.example.__dataclass_fields__
                    if name != "namespace"
                },
                namespace="default",
            ),
            item.vector,
        )
        for item in await exported(store, namespace="source")
    ]
    result = await store.examples.import_(items, change=BY)
    assert None not in result.outcomes
    assert recalled(store, axis(0), k=9) == ["source r"]
    # Ids that are taken are given anew.
    assert not {item.example.id for item in items} & set(result.outcomes)
    assert (await store.examples.conflicts("default")).total == 2


async def test_an_import_that_cannot_be(store: RuleStore) -> None:
    await keep(store, "q", "a", axis(0))
    (item,) = incoming(await exported(store))
    assert (await store.examples.import_([], change=BY)).outcomes == ()
    await store.namespaces.freeze("default", change=BY)
    with pytest.raises(NamespaceFrozen):
        await store.examples.import_([item], change=BY)


async def test_an_import_keeps_to_the_capacity(store: RuleStore, clock: Clock) -> None:
    await filled(store, clock)
    items = incoming(await exported(store))
    await store.namespaces.ensure("small")
    await store.namespaces.change_settings("small", {"example_capacity": 2}, change=BY)
    moved = [
        IncomingExample(
            Example(
                **{
                    name: getattr(item.example, name)
                    for name in item.example.__dataclass_fields__
                    if name != "namespace"
                },
                namespace="small",
            ),
            item.vector,
        )
        for item in items
    ]
    result = await store.examples.import_(moved, change=BY)
    assert len(result.evicted) == 5
    active = await store.examples.list(ExampleFilter(namespace="small", state=RuleState.ACTIVE))
    assert {each.trust for each in active.items} <= {Trust.LABEL, Trust.VERIFIER}
    assert active.total == 2


# -- prune


async def test_prune_does_what_its_preview_shows(store: RuleStore, clock: Clock) -> None:
    await filled(store, clock)
    order = PruneOrder("default", PrunePolicy.FIFO, keep=3)
    plan = await store.examples.plan_prune(order)
    assert [each.example.answer for each in plan.victims] == ["a0", "a1", "a2", "a3"]
    assert plan.active == 7
    done = await store.examples.prune(order, token=plan.token, change=BY)
    assert done == plan
    left = (await store.examples.list(ExampleFilter(state=RuleState.ACTIVE))).items
    assert {each.answer for each in left} == {"a4", "a5", "a6"}
    (event, *_) = (await store.examples.history(plan.victims[0].example.id)).items
    assert event.reason == "moving house; pruned (fifo): among the oldest"


async def test_an_outdated_preview_prunes_nothing(store: RuleStore, clock: Clock) -> None:
    await filled(store, clock)
    order = PruneOrder("default", PrunePolicy.FIFO, keep=3)
    plan = await store.examples.plan_prune(order)
    await store.examples.patch(plan.victims[0].example.id, answer="new", change=BY)
    with pytest.raises(PreviewOutdated):
        await store.examples.prune(order, token=plan.token, change=BY)
    assert (await store.examples.list(ExampleFilter(state=RuleState.ACTIVE))).total == 7


async def test_prune_by_age_and_by_utility(store: RuleStore, clock: Clock) -> None:
    await keep(store, "harmful", "a", axis(0))
    await asked(store, "harmful", good=0.0, times=6)
    await keep(store, "weak", "a", axis(1), trust=Trust.CONSENSUS)
    await keep(store, "fine", "a", axis(2))
    clock.forward(86_400)
    await keep(store, "new", "a", axis(3))
    await keep(store, "fine", "a", axis(2))
    utility = await store.examples.plan_prune(PruneOrder("default", PrunePolicy.UTILITY, keep=1))
    assert [each.example.question for each in utility.victims] == ["harmful", "weak", "fine"]
    assert utility.victims[0].reason == "vouched for by label, used 6 times"
    age = await store.examples.plan_prune(
        PruneOrder("default", PrunePolicy.AGE, older_than_days=0.5)
    )
    # Verified again today: not old.
    assert [each.example.question for each in age.victims] == ["harmful", "weak"]
    with pytest.raises(ValueError, match="fifo, age or utility"):
        await store.examples.plan_prune(PruneOrder("default", PrunePolicy.SIMILARITY, keep=1))
    with pytest.raises(UnknownNamespace):
        await store.examples.plan_prune(PruneOrder("none", PrunePolicy.FIFO, keep=1))


# -- namespaces


async def test_a_namespace_takes_its_examples_along(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    await keep(store, "q one", "a", axis(0))
    await keep(store, "q two", "b", axis(0))
    await asked(store, "q one", good=1.0, times=1)
    other = await open_store(tmp_path, clock=clock)
    rows = [each async for each in store.namespaces.export("default")]
    questions = [each["row"]["question"] for each in rows if each["table"] == "examples"]
    assert questions == ["q one", "q two"]
    assert {"links", "exposures", "standings"} <= {each["table"] for each in rows}
    gone = await store.namespaces.delete("default", change=BY)
    assert gone.examples == 2
    await other.catch_up()
    for each in (store, other):
        assert not each.has_examples("default")
        parity = await each.parity()
        assert (parity.examples_indexed, parity.examples_stored) == (0, 0)
    await store.namespaces.ensure("default")
    left = [each["table"] async for each in store.namespaces.export("default")]
    assert sorted(set(left)) == ["events", "namespaces"]
    await other.close()
