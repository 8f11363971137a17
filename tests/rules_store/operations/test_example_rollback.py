"""Examples go back with their namespace; whatever was done, the index says what SQL does."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rules_store.errors import DuplicateExample, InvalidTransition
from rules_store.models.events import Change, RollbackTarget
from rules_store.models.examples import Example, ExampleEmbedding, ExampleFilter
from rules_store.models.rules import RuleSort, RuleState, Vector
from rules_store.operations.examples import CLEARED_AFTER
from rules_store.policy.same_question import CONFLICT_COSINE, contradict, same_numbers
from rules_store.store import RuleStore
from tests.rules_store.example_helpers import keep, recalled
from tests.rules_store.helpers import Clock, axis, between, open_store, random_vector, write

WHO = Change("ann", "went wrong")


async def last_event(store: RuleStore) -> int:
    return (await store.stats()).last_event


async def every(store: RuleStore) -> list[Example]:
    return (await store.examples.list(sort=RuleSort.OLDEST, limit=10_000)).items


async def state_of(store: RuleStore) -> dict[str, tuple[Any, ...]]:
    """Of each example, all that a rollback brings back."""
    return {
        each.id: (
            each.state,
            each.question,
            each.answer,
            each.label,
            each.domain,
            each.trust,
            each.reason,
            each.verified_at,
            each.expires_at,
        )
        for each in await every(store)
    }


async def test_examples_go_back_with_the_rules(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    rule = await write(store, "Count twice.", axis(9))
    one = await keep(store, "one", "a", axis(0), expires_at=clock() + timedelta(days=5))
    two = await keep(store, "two", "b", axis(1))
    await store.history.snapshot("default", "good", change=WHO)
    before = await state_of(store)
    clock.forward(60)
    await store.rules.retire(rule.id, change=WHO)
    await store.examples.patch(one.id, question="uno", label="z", vector=axis(5), change=WHO)
    await store.examples.retire(two.id, change=WHO)
    late = await keep(store, "two", "c", axis(1))
    spoiled, last = await state_of(store), await last_event(store)

    plan = await store.history.plan_rollback("default", RollbackTarget(snapshot="good"))
    assert {(each.after.id, each.created_later) for each in plan.examples} == {
        (one.id, False),
        (two.id, False),
        (late.id, True),
    }
    assert [each.id for each in plan.unembedded_examples] == [one.id]
    assert await state_of(store) == spoiled
    done = await store.history.roll_back(
        "default",
        RollbackTarget(snapshot="good"),
        example_vectors={one.id: 2 * axis(0)},
        change=WHO,
    )
    assert [change.after.id for change in done.changes] == [rule.id]
    after = await state_of(store)
    assert after.pop(late.id)[0] is RuleState.RETIRED
    assert after == before
    await other.catch_up()
    for each in (store, other):
        assert recalled(each, axis(0), floor=0.5) == ["one"]
        assert recalled(each, axis(1), floor=0.5) == ["two"]
    (event, *_) = (await store.examples.history(one.id)).items
    assert (event.kind, event.reason) == ("example.rolled_back", "went wrong")

    # Undone by another one; without vectors it waits to be embedded.
    await store.history.roll_back("default", RollbackTarget(event=last), change=WHO)
    assert await state_of(store) == spoiled
    assert [each.id for each in await store.examples.without_embedding()] == [one.id]
    await other.close()


async def test_a_text_that_a_later_one_has_taken_up_goes_back_to_its_owner(
    store: RuleStore,
) -> None:
    one = await keep(store, "one", "a", axis(0))
    point = await last_event(store)
    await store.examples.patch(one.id, question="uno", vector=axis(1), change=WHO)
    taker = await keep(store, "one", "a", axis(0))
    await store.history.roll_back(
        "default",
        RollbackTarget(event=point),
        example_vectors={one.id: axis(0)},
        change=WHO,
    )
    assert recalled(store, axis(0)) == ["one"]
    # Said again it is the first one; the other can't come back beside it.
    assert (await keep(store, "one", "a", axis(0))).id == one.id
    with pytest.raises(DuplicateExample):
        await store.examples.restore(taker.id, change=WHO)


async def test_a_rollback_can_bring_a_conflict_back(store: RuleStore) -> None:
    one = await keep(store, "q one", "a", axis(0))
    await keep(store, "q two", "b", axis(0))
    point = await last_event(store)
    assert recalled(store, axis(0)) == []
    await store.examples.patch(one.id, label="b", change=WHO)
    assert recalled(store, axis(0)) == ["q two"]
    await store.history.roll_back("default", RollbackTarget(event=point), change=WHO)
    assert recalled(store, axis(0)) == []
    assert (await store.examples.conflicts()).total == 1


# -- whatever was done


class Oracle:
    """What a search must find, worked out the long way."""

    def __init__(self, store: RuleStore, examples: list[Example], vectors: dict[str, Vector]):
        now = store.context.clock()
        self.live = [
            each
            for each in examples
            if each.state is RuleState.ACTIVE
            and each.id in vectors
            and (each.expires_at is None or each.expires_at > now)
        ]
        self.vectors = vectors

    def same_question(self, one: Example, other: Example) -> bool:
        near = float(self.vectors[one.id] @ self.vectors[other.id]) >= CONFLICT_COSINE
        return near and same_numbers(one.question, other.question)

    def conflicts(self) -> set[frozenset[str]]:
        return {
            frozenset((one.id, other.id))
            for one, other in combinations(self.live, 2)
            if self.same_question(one, other) and contradict(one.label, other.label)
        }

    def recalled(self, query: Vector) -> list[str]:
        rivals = {id for pair in self.conflicts() for id in pair}
        left = [each for each in self.live if each.id not in rivals]
        seqs = {each.id: number for number, each in enumerate(self.live)}
        shown: list[Example] = []
        newest = sorted(left, key=lambda each: (each.verified_at, seqs[each.id]), reverse=True)
        for each in newest:
            if not any(self.same_question(each, other) for other in shown):
                shown.append(each)
        shown.sort(
            key=lambda each: (-round(float(self.vectors[each.id] @ query), 6), seqs[each.id])
        )
        return [each.id for each in shown]


class Script:
    """Does something to examples of few questions and labels, so that they meet."""

    def __init__(self, store: RuleStore, clock: Clock, rng: random.Random) -> None:
        self.store, self.clock, self.rng = store, clock, rng

    def vector(self) -> Vector:
        near = between(self.rng.randrange(4), 10 + self.rng.randrange(3), self.rng.choice([0.9, 1]))
        return near if self.rng.random() < 0.9 else random_vector(self.rng.randrange(9))

    def words(self) -> str:
        return self.rng.choice(["red", "blue", "red 1", "red 2"]) + " " * self.rng.randrange(2)

    async def step(self) -> None:
        actions = (
            self.create,
            self.create,
            self.patch,
            self.move,
            self.move,
            self.embed,
            self.expire,
            self.roll_back,
        )
        await self.rng.choice(actions)()

    async def create(self) -> None:
        await keep(
            self.store,
            self.words() + self.rng.choice("abcd"),
            self.rng.choice("xyz"),
            self.vector() if self.rng.random() < 0.9 else None,
            label=self.rng.choice(["x", "X ", "y", None]),
            expires_at=self.clock() + timedelta(hours=self.rng.randrange(1, 50))
            if self.rng.random() < 0.3
            else None,
        )

    async def _one(self) -> Example | None:
        known = await every(self.store)
        return self.rng.choice(known) if known else None

    async def patch(self) -> None:
        one = await self._one()
        if one is None:
            return
        change: dict[str, Any] = self.rng.choice(
            [
                {"question": self.words() + self.rng.choice("abcd"), "vector": self.vector()},
                {"label": self.rng.choice(["x", "y", None])},
                {"expires_at": self.rng.choice([None, self.clock() + timedelta(hours=9)])},
            ]
        )
        with contextlib.suppress(DuplicateExample):
            await self.store.examples.patch(one.id, **change, change=WHO)

    async def move(self) -> None:
        one = await self._one()
        if one is None:
            return
        of = self.store.examples
        move = self.rng.choice([of.retire, of.restore, of.restore, of.quarantine, of.release])
        with contextlib.suppress(InvalidTransition, DuplicateExample):
            await move(one.id, change=WHO)

    async def embed(self) -> None:
        waiting = await self.store.examples.without_embedding()
        some = [ExampleEmbedding(each.id, each.version, self.vector()) for each in waiting]
        await self.store.examples.add_embeddings(some)

    async def expire(self) -> None:
        self.clock.forward(3600 * self.rng.randrange(12))
        if self.rng.random() < 0.3:
            self.clock.forward(CLEARED_AFTER.total_seconds())
            await self.store.examples.expire()

    async def roll_back(self) -> None:
        last = await last_event(self.store)
        target = RollbackTarget(event=max(1, last - self.rng.randrange(6)))
        await self.store.history.roll_back("default", target, change=WHO)


async def vectors_of(store: RuleStore) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    async for batch in store.examples.export(ExampleFilter(), vectors=True):
        found |= {each.example.id: each.vector for each in batch if each.vector is not None}
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_after_anything_the_index_says_what_sql_does(
    store: RuleStore, tmp_path: Path, clock: Clock, seed: int
) -> None:
    rng = random.Random(seed)
    script = Script(store, clock, rng)
    other = await open_store(tmp_path, clock=clock)
    for number in range(60):
        clock.forward(1)
        await script.step()
        if number % 6:
            continue
        await other.catch_up()
        oracle = Oracle(store, await every(store), await vectors_of(store))
        pairs = (await store.examples.conflicts(limit=1000)).items
        found = {frozenset((each.one.id, each.other.id)) for each in pairs}
        assert found == oracle.conflicts()
        query = random_vector(100 + number)
        query = (query / np.linalg.norm(query)).astype(np.float32)
        fresh = await open_store(tmp_path, clock=clock)
        for each in (store, other, fresh):
            hits = each.search_examples("default", query, 1000)
            assert [hit.id for hit in hits] == oracle.recalled(query)
            parity = await each.parity()
            assert parity.examples_indexed == parity.examples_stored - parity.examples_unembedded
        await fresh.close()
    await other.close()
