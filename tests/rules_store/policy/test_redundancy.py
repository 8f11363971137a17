"""Which rules give way, against a plain reading of the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rules_store.models.events import Change
from rules_store.models.rules import Pruning, RuleState
from rules_store.policy import redundancy
from tests.rules_store.helpers import (
    NEGATIVE,
    all_rules,
    axis,
    between,
    draft,
    learn,
    open_store,
    random_vector,
    write,
)


def test_oldest() -> None:
    assert redundancy.oldest([5, 3, 9, 1], 2) == [1, 3]
    assert redundancy.oldest([5], 0) == []


def test_the_less_frequent_of_the_most_similar_pair_goes() -> None:
    vectors = np.stack([axis(0), between(0, 1, 0.9), axis(2), between(2, 3, 0.8)])
    one_group = np.zeros(4, dtype=np.int64)
    victims = redundancy.most_redundant(vectors, one_group, [1, 2, 3, 4], [1, 5, 2, 2], 2)
    assert victims == [1, 3]  # 1 is rarer than 2; 3 and 4 are equals and 3 is older


def test_rules_of_different_groups_are_never_a_pair() -> None:
    vectors = np.stack([axis(0), axis(0), axis(1)])
    assert redundancy.most_redundant(vectors, np.array([0, 1, 1]), [1, 2, 3], [1, 1, 1], 5) == [2]
    assert redundancy.most_redundant(vectors[:0], np.array([]), [], [], 5) == []


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_most_redundant_equals_its_definition(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    seed = data.draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = rng.integers(0, 2, count)
    frequencies = rng.integers(1, 4, count).tolist()
    seqs = (rng.permutation(count) + 1).tolist()
    wanted = data.draw(st.integers(0, count))

    alive, expected = set(range(count)), []
    cosines = vectors @ vectors.T
    while len(expected) < wanted:
        pairs = [(a, b) for a in alive for b in alive if a < b and groups[a] == groups[b]]
        if not pairs:
            break
        pair = max(pairs, key=lambda ab: cosines[ab])
        victim = min(pair, key=lambda r: (frequencies[r], seqs[r]))
        alive.remove(victim)
        expected.append(seqs[victim])
    assert redundancy.most_redundant(vectors, groups, seqs, frequencies, wanted) == expected


async def test_fifo_retires_the_oldest_and_says_so(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=3)
    await store.namespaces.ensure("default")
    for number in range(5):
        applied = await learn(store, f"ep_{number}", draft(f"rule {number}", axis(number)))
    assert [rule.text for rule in await all_rules(store, state=RuleState.ACTIVE)] == [
        "rule 4",
        "rule 3",
        "rule 2",
    ]
    (second,) = [rule for rule in await all_rules(store) if rule.text == "rule 1"]
    assert applied.evicted == (second.id,)
    last = (await store.rules.events(second.id))[-1]
    assert (last.kind, last.actor) == ("rule.retired", "policy")
    assert last.reason == "capacity of 3 (fifo)"
    assert (last.before or {})["state"] == "active"
    assert (last.after or {})["state"] == "retired"
    assert (await store.parity()).ok
    await store.close()


async def test_similarity_retires_the_redundant_one(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=3, pruning=Pruning.SIMILARITY)
    await store.namespaces.ensure("default")
    await write(store, "far", axis(5))
    await learn(store, "ep_0", draft("near", axis(0)))
    await write(store, "opposite", axis(1), polarity=NEGATIVE)
    applied = await learn(store, "ep_1", draft("nearer", between(0, 1, 0.9)))
    assert len(applied.evicted) == 1
    assert {rule.text for rule in await all_rules(store, state=RuleState.ACTIVE)} == {
        "far",
        "nearer",  # as often learned as `near`, and younger
        "opposite",
    }
    await store.close()


async def test_similarity_keeps_what_was_learned_often(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=2, pruning=Pruning.SIMILARITY)
    await store.namespaces.ensure("default")
    await learn(store, "ep_0", draft("often", axis(0)))
    await learn(store, "ep_1", draft("often", axis(0)))
    await write(store, "far", axis(5))
    applied = await learn(store, "ep_2", draft("nearly often", between(0, 1, 0.9)))
    assert applied.evicted == (applied.learned[0].rule_id,)
    assert {rule.text for rule in await all_rules(store, state=RuleState.ACTIVE)} == {
        "often",
        "far",
    }
    await store.close()


async def test_what_a_person_activates_is_spared(tmp_path: Path) -> None:
    for policy in Pruning:
        store = await open_store(tmp_path / policy, capacity=2, pruning=policy)
        await store.namespaces.ensure("default")
        oldest = await write(store, "a", random_vector(0))
        await store.rules.retire(oldest.id, change=Change("me", "try"))
        await write(store, "b", random_vector(1))
        await write(store, "c", random_vector(2))
        await store.rules.restore(oldest.id, change=Change("me", "back"))
        active = {rule.text for rule in await all_rules(store, state=RuleState.ACTIVE)}
        assert "a" in active
        assert len(active) == 2
        assert (await store.parity()).ok
        await store.close()


async def test_capacity_is_per_namespace_and_a_lower_one_takes_hold(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=5)
    for namespace in ("a", "b"):
        await store.namespaces.ensure(namespace)
        for number in range(5):
            await write(store, f"rule {number}", axis(number), namespace=namespace)
    await store.close()
    store = await open_store(tmp_path, capacity=2)
    applied = await learn(store, "ep", draft("new", axis(9), namespace="a"))
    assert len(applied.evicted) == 4
    assert len(await all_rules(store, namespace="a", state=RuleState.ACTIVE)) == 2
    assert len(await all_rules(store, namespace="b", state=RuleState.ACTIVE)) == 5
    await store.close()


async def test_rules_without_vectors_give_way_by_age(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=2, pruning=Pruning.SIMILARITY)
    await store.namespaces.ensure("default")
    for place, text in enumerate(("a", "b")):
        await learn(store, f"ep_{text}", draft(text, axis(place)))
    await store.close()
    # Under another model, for which they have not been embedded yet.
    store = await open_store(tmp_path, model="another", capacity=2, pruning=Pruning.SIMILARITY)
    await learn(store, "ep", draft("c", axis(0)))
    assert {r.text for r in await all_rules(store, state=RuleState.ACTIVE)} == {"b", "c"}
    await store.close()
