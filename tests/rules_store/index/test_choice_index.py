"""Outcomes of choices in memory, and how they come there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rules_store.index.choice_index import ChoiceIndex
from rules_store.models.evidence import IndexedChoice, Outcome, Signal
from rules_store.models.examples import Given
from rules_store.policy.lift import Tally
from rules_store.repository import choices
from rules_store.store import RuleStore
from tests.rules_store.helpers import MODEL, Clock, axis

NOW = datetime(2026, 5, 1, tzinfo=UTC)
HALF_LIFE = 30.0


def choice(
    episode: str,
    given: Given = Given.EXAMPLES,
    value: float = 1.0,
    *,
    near: int | None = 0,
    days: float = 0.0,
    namespace: str = "default",
) -> IndexedChoice:
    vector = None if near is None else axis(near)
    at = NOW - timedelta(days=days)
    return IndexedChoice(episode, namespace, given, value, 1.0, vector, at)


def test_outcomes_are_added_up_by_what_was_given_and_fade() -> None:
    index = ChoiceIndex(10)
    index.put(
        [
            choice("a", value=1.0),
            choice("b", value=0.0, days=30),
            choice("c", Given.NONE, 0.5),
            choice("d", Given.NONE, namespace="other"),
        ]
    )
    assert index.tallies("default", NOW, HALF_LIFE) == {
        Given.EXAMPLES: Tally(1.0, 0.5),
        Given.NONE: Tally(0.5, 0.5),
    }
    assert index.tallies("unknown", NOW, HALF_LIFE) == {}


def test_an_episode_counts_once_with_its_latest_outcome() -> None:
    index = ChoiceIndex(10)
    index.put([choice("a", value=0.0)])
    index.put([choice("a", value=1.0)])
    assert index.tallies("default", NOW, HALF_LIFE) == {Given.EXAMPLES: Tally(1.0, 0.0)}


def test_only_the_latest_are_kept() -> None:
    index = ChoiceIndex(20)
    index.put(choice(f"ep{n}", value=0.0) for n in range(20))
    index.put(choice(f"late{n}", value=1.0, near=n) for n in range(15))
    assert index.tallies("default", NOW, HALF_LIFE) == {Given.EXAMPLES: Tally(15.0, 5.0)}
    near = index.near("default", axis(3), NOW, HALF_LIFE, floor=0.5)
    assert near == {Given.EXAMPLES: Tally(1.0, 0.0)}


def test_near_ones_count_by_their_nearness() -> None:
    index = ChoiceIndex(10)
    index.put([choice("a", near=0), choice("b", near=1, value=0.0), choice("c", near=None)])
    between = (axis(0) * 0.8 + axis(1) * 0.6).astype(np.float32)
    found = index.near("default", between, NOW, HALF_LIFE, floor=0.5)[Given.EXAMPLES]
    assert (found.hits, found.misses) == pytest.approx((0.36, 0.04), abs=1e-6)
    assert index.near("default", axis(5), NOW, HALF_LIFE, floor=0.5) == {}
    # Of another embedding model.
    assert index.near("default", np.ones(3, dtype=np.float32), NOW, HALF_LIFE, floor=0.5) == {}


def test_a_deleted_namespace_is_forgotten() -> None:
    index = ChoiceIndex(10)
    index.put([choice("a")])
    index.forget("default")
    assert index.tallies("default", NOW, HALF_LIFE) == {}


async def put(store: RuleStore, episode: str, value: float, namespace: str = "default") -> None:
    async with store.context.database.write() as connection:
        await choices.put(
            connection,
            episode,
            namespace,
            Given.EXAMPLES,
            Outcome(Signal.LABEL, value),
            MODEL,
            axis(0),
            store.context.clock(),
        )


async def test_what_is_stored_is_taken_up_changes_too(store: RuleStore, clock: Clock) -> None:
    before = store.evidence.beliefs_near("default", axis(0))
    assert before.size == 0
    await put(store, "ep1", 0.0)
    await put(store, "ep2", 1.0)
    await store.catch_up()
    first = store.evidence.beliefs_near("default", axis(0))
    assert first.size == pytest.approx(2.0)
    clock.forward(60)
    await put(store, "ep1", 1.0)
    await store.catch_up()
    second = store.evidence.beliefs_near("default", axis(0))
    assert second.size == pytest.approx(2.0, abs=1e-3)
    assert second.of(Given.EXAMPLES).mean > first.of(Given.EXAMPLES).mean


async def test_at_the_start_only_the_latest_of_each_namespace_are_read(
    store: RuleStore, clock: Clock
) -> None:
    for number in range(5):
        clock.forward(1)
        await put(store, f"ep{number}", float(number >= 3))
        await put(store, f"other{number}", 0.0, "other")
    async with store.context.database.read() as connection:
        found = await choices.changed_since(connection, MODEL, None, 2)
        late = await choices.changed_since(connection, "another model", clock(), 2)
    own = [each for each in found if each.namespace == "default"]
    assert [(each.episode_id, each.value) for each in own] == [("ep3", 1.0), ("ep4", 1.0)]
    assert len(found) == 4
    assert {each.episode_id for each in late} == {"ep4", "other4"}
    assert all(each.vector is None for each in late)
