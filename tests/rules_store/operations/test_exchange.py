"""Export, import and the search by meaning: what went out comes in again and is found as before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rules_store.errors import InvalidVector, NamespaceFrozen, UnknownNamespace
from rules_store.models.events import Change
from rules_store.models.evidence import Standing
from rules_store.models.rules import Polarity, RuleFilter, RuleState, Vectors
from rules_store.operations.exchange import ExportedRule, IncomingRule
from rules_store.policy.lift import Tally
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    NEGATIVE,
    POSITIVE,
    Clock,
    all_rules,
    axis,
    begin,
    between,
    open_store,
    random_vector,
    write,
)

BY = Change("keeper", "moving house")


async def exported(store: RuleStore, **where: Any) -> list[ExportedRule]:
    batches = [
        batch async for batch in store.exchange.export_rules(RuleFilter(**where), vectors=True)
    ]
    return [item for batch in batches for item in batch]


def incoming(items: list[ExportedRule]) -> list[IncomingRule]:
    return [IncomingRule(item.rule, item.vectors or Vectors(), item.standing) for item in items]


async def filled(store: RuleStore) -> None:
    for number in range(40):
        await write(
            store,
            f"Rule {number}",
            random_vector(number),
            polarity=NEGATIVE if number % 3 else POSITIVE,
            trigger=f"when {number}" if number % 2 else "",
            trigger_vector=random_vector(1000 + number) if number % 2 else None,
            state=RuleState.QUARANTINED if number % 10 == 9 else RuleState.ACTIVE,
        )


def hits(store: RuleStore) -> list[Any]:
    return [
        (near.hits, near.cosines.tobytes())
        for query in (random_vector(seed) for seed in range(5000, 5020))
        for polarity in Polarity
        for near in [store.search("default", query, polarity, 7)]
    ]


async def test_export_wipe_import_finds_the_same(store: RuleStore, tmp_path: Path) -> None:
    await filled(store)
    items = await exported(store)
    other = await open_store(tmp_path / "other")
    try:
        await other.namespaces.ensure("default")
        done = await other.exchange.import_rules(incoming(items), change=BY)
        assert list(done.outcomes) == [item.rule.id for item in items]
        assert done.evicted == ()
        assert hits(other) == hits(store)
        assert any(hits(other))
        assert (await other.parity()).ok
        before, after = await all_rules(store), await all_rules(other)
        anew = {"updated_at": None}
        assert [replace(rule, **anew) for rule in after] == [replace(r, **anew) for r in before]
        (event,) = await other.rules.events(items[0].rule.id)
        assert (event.kind, event.actor, event.reason) == ("rule.imported", "keeper", BY.reason)
    finally:
        await other.close()


async def test_what_is_there_already_is_skipped(store: RuleStore) -> None:
    await filled(store)
    items = incoming(await exported(store))
    last = (await store.stats()).last_event
    done = await store.exchange.import_rules(items, change=BY)
    assert set(done.outcomes) == {None}
    assert (await store.stats()).last_event == last
    assert await store.exchange.known_texts([item.rule for item in items]) == [
        i.rule.id for i in items
    ]


async def test_a_text_comes_once_and_a_taken_id_is_replaced(store: RuleStore) -> None:
    rule = await write(store, "Mind the gap.", axis(0))
    await store.namespaces.ensure("other")
    twice = [
        IncomingRule(replace(rule, namespace="other", text=text), Vectors(axis(0)))
        for text in ("Mind the gap.", "mind  THE gap.")
    ]
    first, second = (await store.exchange.import_rules(twice, change=BY)).outcomes
    assert first not in (None, rule.id)
    assert second is None
    assert (await store.rules.get(rule.id)) == rule


async def test_a_source_in_another_namespace_is_none(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    await begin(store, "ep_other", "other")
    rule = await write(store, "Mind the gap.", axis(0))
    assert await store.episodes.source_of(rule) is None
    assert await store.episodes.source_of(replace(rule, source_episode="ep_none")) is None
    named = replace(rule, source_episode="ep_other")
    assert await store.episodes.source_of(named) is None
    source = await store.episodes.source_of(replace(named, namespace="other"))
    assert source == await store.episodes.get("ep_other")


async def test_an_import_keeps_to_the_capacity(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=3)
    try:
        await store.namespaces.ensure("default")
        rule = await write(store, "old", axis(0))
        items = [
            IncomingRule(replace(rule, id=f"rule_{n}", text=f"new {n}"), Vectors(axis(n)))
            for n in range(1, 4)
        ]
        done = await store.exchange.import_rules(items, change=BY)
        assert done.evicted == (rule.id,)
        assert store.rules_indexed == 3
    finally:
        await store.close()


async def test_an_import_is_refused_whole(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0))
    new = replace(rule, id="rule_new", text="two")
    with pytest.raises(UnknownNamespace):
        await store.exchange.import_rules(
            [IncomingRule(replace(new, namespace="none"), Vectors())], change=BY
        )
    with pytest.raises(InvalidVector):
        await store.exchange.import_rules(
            [IncomingRule(new, Vectors(np.zeros(32, np.float32)))], change=BY
        )
    await store.namespaces.freeze("default", change=BY)
    with pytest.raises(NamespaceFrozen):
        await store.exchange.import_rules([IncomingRule(new, Vectors(axis(1)))], change=BY)
    assert [each.id for each in await all_rules(store)] == [rule.id]


async def test_export_filters(store: RuleStore) -> None:
    await filled(store)
    items = await exported(store, polarity=NEGATIVE, state=RuleState.ACTIVE)
    assert items
    assert {(i.rule.polarity, i.rule.state) for i in items} == {(NEGATIVE, RuleState.ACTIVE)}
    plain = [item async for batch in store.exchange.export_rules() for item in batch]
    assert {item.vectors for item in plain} == {None}
    assert len(plain) == 40


async def test_nearest_in_any_state(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    active = await write(store, "active", between(0, 1, 0.9))
    candidate = await write(store, "candidate", between(0, 2, 0.8), state=RuleState.CANDIDATE)
    refused = await write(store, "refused", between(0, 3, 0.7), state=RuleState.QUARANTINED)
    gone = await write(store, "gone", between(0, 4, 0.6), polarity=NEGATIVE)
    await store.rules.retire(gone.id, change=BY)
    far = await write(store, "elsewhere", axis(0), namespace="other")

    async def found(**more: Any) -> list[tuple[str, float]]:
        return [
            (near.rule.id, round(near.similarity, 3))
            for near in await store.rules.nearest(axis(0), **more)
        ]

    indexed = [(active.id, 0.9), (candidate.id, 0.8)]
    assert await found(namespace="default") == indexed
    assert await found() == [(far.id, 1.0), *indexed]
    assert await found(namespace="default", limit=1) == indexed[:1]
    assert await found(namespace="default", states=list(RuleState)) == [
        *indexed,
        (refused.id, 0.7),
        (gone.id, 0.6),
    ]
    assert await found(states=[RuleState.RETIRED], polarity=POSITIVE) == []
    assert await found(states=[RuleState.RETIRED], polarity=NEGATIVE) == [(gone.id, 0.6)]


async def test_a_trusted_import_steers_as_it_did(store: RuleStore, tmp_path: Path) -> None:
    """Evidence comes along; what has none and was active is vouched for; else all is anew."""
    proven = await write(store, "Proven rule", axis(1))
    candidate = await write(store, "Candidate", axis(2), state=RuleState.CANDIDATE)
    items = incoming(await exported(store))
    bare = [replace(item, standing=None) for item in items]
    for number, (given, trust, expected) in enumerate(
        [(items, False, {}), (items, True, {proven.id: True}), (bare, True, {proven.id: True})]
    ):
        other = await open_store(tmp_path / str(number))
        await other.namespaces.ensure("default")
        await other.exchange.import_rules(given, change=BY, trust=trust)
        known = await other.evidence.standings_of([proven.id, candidate.id])
        assert {id: each.proven for id, each in known.items()} == expected
        for id in expected:
            assert other.evidence.standing_of(id) == known[id]
        history = [each.kind for each in await other.rules.events(proven.id)]
        assert history == ["rule.imported"] + ["rule.trusted"] * trust
        await other.close()


async def test_evidence_that_comes_along_has_aged(store: RuleStore, clock: Clock) -> None:
    rule = await write(store, "Proven rule", axis(1))
    there = Standing(rule.id, 7, "elsewhere", clock.now - timedelta(days=30), Tally(8, 2))
    fresh = replace(rule, text="Another text", id="rule_of_another_house")
    await store.exchange.import_rules(
        [IncomingRule(fresh, Vectors(), replace(there, proven=True))], change=BY, trust=True
    )
    known = store.evidence.standing_of("rule_of_another_house")
    assert known is not None
    assert (known.with_rule.hits, known.with_rule.misses) == pytest.approx((4, 1))
    assert known.lift.mean > 0
    assert (known.at, known.namespace) == (clock.now, "default")
