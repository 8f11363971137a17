"""Examples on their way through the store: kept, changed, in conflict, expired, retired."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules_store.models.events import Change
from rules_store.models.examples import Example, NewExample, Trust
from rules_store.models.rules import Vector
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, axis, between, open_store

CHANGE = Change("kim", "because")


def example(question: str = "Where is my card?", answer: str = "card_arrival", **more: object):
    return NewExample(
        **{"namespace": "default", "question": question, "answer": answer, "trust": Trust.LABEL}
        | more
    )


async def keep(
    store: RuleStore, question: str, answer: str, vector: Vector | None, **more: object
) -> Example:
    new = example(question, answer, **{"label": answer} | more)
    return await store.examples.create(new, vector, change=CHANGE)


def found(store: RuleStore, vector: Vector, k: int = 4, floor: float = -1.0) -> list[str]:
    return [hit.question for hit in store.search_examples("default", vector, k, floor=floor).hits]


async def test_what_is_created_is_found_nearest_first(store: RuleStore) -> None:
    assert not store.has_examples("default")
    await keep(store, "far", "a", between(0, 2, 0.5))
    near = await keep(store, "near", "b", between(0, 1, 0.9))
    search = store.search_examples("default", axis(0), 4)
    assert [hit.question for hit in search.hits] == ["near", "far"]
    assert search.hits[0].id == near.id
    assert search.hits[0].similarity == pytest.approx(0.9, abs=1e-5)
    assert search.cosines.shape == (2, 2)
    assert search.cosines[0, 1] == pytest.approx(0.45, abs=1e-5)
    assert found(store, axis(0), k=1) == ["near"]
    assert found(store, axis(0), floor=0.6) == ["near"]
    assert store.has_examples("default")
    assert not store.has_examples("other")
    assert store.search_examples("other", axis(0), 4).hits == ()
    assert await store.examples.get(near.id) == near


async def test_a_retired_one_vanishes_in_another_process(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    kept = await keep(store, "q", "a", axis(0))
    assert found(other, axis(0)) == []
    await other.catch_up()
    assert found(other, axis(0)) == ["q"]
    await store.examples.retire(kept.id, change=CHANGE)
    assert found(store, axis(0)) == []
    await other.catch_up()
    assert found(other, axis(0)) == []
    await other.close()
    assert (await store.parity()).ok


async def test_it_outlives_a_restart(store: RuleStore, tmp_path: Path, clock: Clock) -> None:
    await keep(store, "q", "a", axis(0))
    await store.save_snapshot()
    await keep(store, "later", "a", axis(1))
    again = await open_store(tmp_path, clock=clock)
    assert found(again, axis(0)) == ["q", "later"]
    await again.rebuild()
    assert found(again, axis(0)) == ["q", "later"]
    await again.close()


async def test_two_right_answers_to_one_question_are_a_conflict(store: RuleStore) -> None:
    one = await keep(store, "Is my card lost?", "lost_card", axis(0))
    assert found(store, axis(0)) == ["Is my card lost?"]
    other = await keep(store, "is my card lost", "stolen_card", between(0, 1, 0.99))
    assert found(store, axis(0)) == []
    (conflict,) = (await store.examples.conflicts()).items
    assert (conflict.one.id, conflict.other.id) == (other.id, one.id)
    assert conflict.similarity == pytest.approx(0.99, abs=1e-5)
    await store.examples.retire(one.id, change=CHANGE)
    assert found(store, axis(0)) == ["is my card lost"]
    assert (await store.examples.conflicts()).total == 0
    await store.examples.restore(one.id, change=CHANGE)
    assert found(store, axis(0)) == []
