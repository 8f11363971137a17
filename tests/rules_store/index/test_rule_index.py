"""Search and duplicates against a brute-force reference, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules_store.errors import InvalidVector
from rules_store.index.rule_index import RuleIndex, unit
from rules_store.models.rules import IndexRow, Polarity, RuleState, Vector
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    DIMENSION,
    NEGATIVE,
    POSITIVE,
    axis,
    between,
    random_vector,
    write,
)

SMALL = 3


def row(
    seq: int,
    text: Vector,
    trigger: Vector | None = None,
    state: RuleState = RuleState.ACTIVE,
    namespace: str = "default",
    polarity: Polarity = POSITIVE,
) -> IndexRow:
    name = f"rule_{seq}"
    return IndexRow(seq, name, namespace, polarity, state, f"text {seq}", "when", text, trigger)


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        (np.array([np.nan] + [1.0] * (DIMENSION - 1)), "not finite"),
        (np.array([np.inf] + [1.0] * (DIMENSION - 1)), "not finite"),
        (np.zeros(DIMENSION), "is zero"),
        (np.ones(DIMENSION + 1), r"shape \(33,\), not \(32,\)"),
        (np.ones((2, DIMENSION)), "shape"),
        (["one"] * DIMENSION, "sequence of numbers"),
    ],
)
async def test_a_vector_that_can_not_be_indexed(
    store: RuleStore, vector: Vector, sentence: str
) -> None:
    with pytest.raises(InvalidVector, match=sentence):
        store.search("default", vector, POSITIVE, 3)
    with pytest.raises(InvalidVector, match=sentence):
        await write(store, "never stored", vector)
    with pytest.raises(ValueError, match=sentence):
        await write(store, "never stored", axis(0), trigger="t", trigger_vector=vector)
    assert (await store.rules.list()).total == 0
    assert (await store.parity()).ok


def test_length_does_not_matter_but_direction() -> None:
    huge = np.full(4, 3e38, dtype=np.float32)
    tiny = np.full(4, 1e-30, dtype=np.float32)
    for vector in (huge, tiny):
        np.testing.assert_allclose(unit(vector, 4), [0.5] * 4, rtol=1e-6)


async def test_similarity_is_the_larger_of_text_and_trigger(store: RuleStore) -> None:
    rule = await write(
        store, "be exact", axis(0), trigger="sums", trigger_vector=between(1, 2, 0.8)
    )
    (by_text,) = store.search("default", 5 * axis(0), POSITIVE, 3).hits
    assert by_text.id == rule.id
    assert by_text.text == "be exact"
    assert by_text.trigger == "sums"
    assert by_text.similarity == pytest.approx(1.0)
    (by_trigger,) = store.search("default", axis(1), POSITIVE, 3).hits
    assert by_trigger.similarity == pytest.approx(0.8, abs=1e-5)


async def test_only_what_was_asked_for(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    await write(store, "mine", axis(0))
    await write(store, "negative", axis(0), polarity=NEGATIVE)
    await write(store, "theirs", axis(0), namespace="other")
    await write(store, "candidate", axis(0), state=RuleState.CANDIDATE)
    await write(store, "quarantined", axis(0), state=RuleState.QUARANTINED)
    found = store.search("default", axis(0), POSITIVE, 10).hits
    assert [candidate.text for candidate in found] == ["mine"]
    assert store.search("nowhere", axis(0), POSITIVE, 10).hits == ()
    assert store.search("default", axis(0), POSITIVE, 0).hits == ()
    assert store.has_rules("other")
    assert not store.has_rules("nowhere")


def test_what_a_search_found_is_forgotten_when_the_index_changes() -> None:
    index = RuleIndex(DIMENSION)
    changes: list[tuple[Callable[[], None], list[str]]] = [
        (lambda: index.put(row(1, axis(0))), ["rule_1"]),
        (lambda: index.extend([row(2, axis(0))]), ["rule_1", "rule_2"]),
        (lambda: index.put(row(1, axis(0), state=RuleState.RETIRED)), ["rule_2"]),
        (lambda: index.put(row(2, axis(0), polarity=NEGATIVE)), []),
        (lambda: index.put(row(2, axis(0))), ["rule_2"]),
        (lambda: index.forget("default"), []),
    ]
    for change, expected in changes:
        change()
        for _ in range(2):
            hits = index.search("default", axis(0), POSITIVE, 5).hits
            assert [hit.id for hit in hits] == expected
    index.put(row(1, axis(0)))
    assert index.search("default", axis(0), POSITIVE, 5).hits[0].text == "text 1"
    index.put(replace(row(1, axis(0)), text="new words"))
    assert index.search("default", axis(0), POSITIVE, 5).hits[0].text == "new words"


def test_few_searches_are_remembered() -> None:
    index = RuleIndex(DIMENSION)
    index.put(row(1, axis(0)))
    first = index.search("default", axis(0), POSITIVE, 5)
    for number in range(1100):
        index.search("default", random_vector(number), POSITIVE, 5)
        if number < 1000:
            assert index.search("default", axis(0), POSITIVE, 5) is first
    for number in range(1100):
        index.search("default", random_vector(2000 + number), POSITIVE, 5)
    assert index.search("default", axis(0), POSITIVE, 5) is not first
    assert index.search("default", axis(0), POSITIVE, 5).hits == first.hits


def test_equal_rules_come_oldest_first_however_many() -> None:
    index = RuleIndex(DIMENSION)
    for seq in np.random.default_rng(0).permutation(np.arange(1, 101)).tolist():
        index.put(row(seq, axis(0), axis(0)))
    hits = index.search("default", axis(0), POSITIVE, 7).hits
    assert [candidate.id for candidate in hits] == [f"rule_{seq}" for seq in range(1, 8)]


def test_duplicates_look_at_texts_of_active_and_candidate_rules() -> None:
    index = RuleIndex(DIMENSION)
    index.put(row(1, between(0, 1, 0.96)))
    index.put(row(2, between(0, 2, 0.99), state=RuleState.CANDIDATE))
    index.put(row(3, between(0, 3, 0.94)))
    index.put(row(4, axis(4), trigger=axis(0)))  # only its trigger is near
    index.put(row(5, axis(0), namespace="other"))
    index.put(row(6, axis(0), polarity=NEGATIVE))
    found = index.duplicates("default", POSITIVE, axis(0), 0.95)
    assert [seq for _, seq in found] == [2, 1]
    assert [cosine for cosine, _ in found] == pytest.approx([0.99, 0.96], abs=1e-5)


def test_all_of_many_duplicates_are_found() -> None:
    index = RuleIndex(DIMENSION)
    index.extend(row(seq, axis(0), axis(0)) for seq in range(1, 101))
    assert len(index.duplicates("default", POSITIVE, axis(0), 0.95)) == 100


def test_a_row_of_another_dimension_is_left_out() -> None:
    index = RuleIndex(DIMENSION)
    index.put(row(1, np.ones(3, dtype=np.float32)))
    index.extend([row(2, np.ones(3, dtype=np.float32)), row(3, axis(0))])
    assert len(index) == 1


# -- a model of the index: a dict and numpy

vectors = st.lists(
    st.integers(-3, 3), min_size=SMALL, max_size=SMALL
).filter(any).map(lambda values: unit(np.array(values), SMALL))  # fmt: skip
rows = st.builds(
    row,
    seq=st.integers(1, 8),
    text=vectors,
    trigger=st.none() | vectors,
    state=st.sampled_from(RuleState),
    namespace=st.sampled_from(["a", "b"]),
    polarity=st.sampled_from(Polarity),
)


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(rows, max_size=25), query=vectors, k=st.integers(1, 9))
def test_the_index_equals_its_model(changes: list[IndexRow], query: Vector, k: int) -> None:
    index, model = RuleIndex(SMALL), {}
    for changed in changes:
        index.put(changed)
        model[changed.seq] = changed
    indexed = [r for r in model.values() if r.state in (RuleState.ACTIVE, RuleState.CANDIDATE)]
    assert len(index) == len(indexed)
    at_once = RuleIndex(SMALL)
    at_once.extend(indexed)
    for namespace in ("a", "b"):
        for polarity in Polarity:
            active = [r for r in indexed if r.key == (namespace, polarity, RuleState.ACTIVE)]
            # The index rounds to six places; rounding once would differ at a half.
            alike = {r.seq: round(round(_similarity(r, query), 6), 4) for r in active}
            expected = sorted((-value, seq) for seq, value in alike.items())[:k]
            for each in (index, at_once):
                near = each.search(namespace, query, polarity, k)
                got = [(-round(c.similarity, 4), int(c.id[5:])) for c in near.hits]
                assert got == expected
                texts = [model[seq].text_vector for _, seq in got]
                if texts:
                    # Of the texts, also where a trigger was nearer.
                    between_them = np.array(texts) @ np.array(texts).T
                    np.testing.assert_allclose(near.cosines, between_them, atol=1e-6)
                again = each.search(namespace, query, polarity, k)
                assert again is near or not texts, "what it found is remembered"


def _similarity(row: IndexRow, query: Vector) -> float:
    assert row.text_vector is not None
    both = [row.text_vector] + ([] if row.trigger_vector is None else [row.trigger_vector])
    return max(float(vector @ query) for vector in both)
