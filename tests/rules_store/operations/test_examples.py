"""Examples on their way through the store: kept, changed, in conflict, expired, retired."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rules_store.database.schema import metadata
from rules_store.errors import (
    DuplicateExample,
    InvalidTransition,
    InvalidVector,
    NamespaceFrozen,
    UnknownExample,
    UnknownNamespace,
    VersionConflict,
)
from rules_store.models.events import Change, EventFilter, RollbackTarget
from rules_store.models.examples import ExampleEmbedding, ExampleFilter, Trust
from rules_store.models.rules import RuleSort, RuleState
from rules_store.operations import examples as operations
from rules_store.operations.examples import CLEARED_AFTER, DELETED
from rules_store.store import RuleStore
from tests.rules_store.example_helpers import asked, keep, new_example, recalled
from tests.rules_store.helpers import Clock, axis, between, open_store, sql

CHANGE = Change("kim", "because")


async def test_what_is_created_is_found_nearest_first(store: RuleStore) -> None:
    assert not store.has_examples("default")
    await keep(store, "far", "a", between(0, 2, 0.5))
    near = await keep(store, "near", "b", between(0, 1, 0.9))
    hits = store.search_examples("default", axis(0), 4)
    assert [hit.question for hit in hits] == ["near", "far"]
    assert hits[0].id == near.id
    assert hits[0].similarity == pytest.approx(0.9, abs=1e-5)
    assert recalled(store, axis(0), k=1) == ["near"]
    assert recalled(store, axis(0), floor=0.6) == ["near"]
    assert store.has_examples("default")
    assert not store.has_examples("other")
    assert store.search_examples("other", axis(0), 4) == ()
    assert await store.examples.get(near.id) == near


async def test_a_retired_one_vanishes_in_another_process(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    kept = await keep(store, "q", "a", axis(0))
    assert recalled(other, axis(0)) == []
    await other.catch_up()
    assert recalled(other, axis(0)) == ["q"]
    await store.examples.retire(kept.id, change=CHANGE)
    assert recalled(store, axis(0)) == []
    await other.catch_up()
    assert recalled(other, axis(0)) == []
    assert not other.has_examples("default")
    await other.close()


async def test_it_outlives_a_restart(store: RuleStore, tmp_path: Path, clock: Clock) -> None:
    await keep(store, "q", "a", axis(0))
    await store.save_snapshot()
    await keep(store, "later", "a", axis(1))
    again = await open_store(tmp_path, clock=clock)
    assert recalled(again, axis(0)) == ["q", "later"]
    await again.rebuild()
    assert recalled(again, axis(0)) == ["q", "later"]
    await again.close()


# -- the same again


async def test_the_same_again_is_verified_anew(store: RuleStore, clock: Clock) -> None:
    first = await keep(store, "Where is it?", "In the post.", axis(0), trust=Trust.SCORE)
    clock.forward(60)
    again = await keep(store, "where is  it?", "in the post.", axis(0), trust=Trust.LABEL)
    assert (again.id, again.trust, again.version) == (first.id, Trust.LABEL, 2)
    assert again.verified_at == first.verified_at + timedelta(minutes=1)
    assert again.question == "Where is it?"
    clock.forward(60)
    weaker = await keep(store, "Where is it?", "In the post.", axis(0), trust=Trust.CONSENSUS)
    assert weaker.trust is Trust.LABEL
    kinds = [event.kind for event in (await store.examples.history(first.id)).items]
    assert kinds == ["example.merged", "example.merged", "example.created"]
    assert (await store.examples.list()).total == 1


async def test_what_a_person_retired_stays_so_and_what_made_room_comes_back(
    tmp_path: Path, clock: Clock
) -> None:
    store = await open_store(tmp_path, clock=clock, example_capacity=1)
    await store.namespaces.ensure("default")
    first = await keep(store, "one", "a", axis(0))
    clock.forward(1)
    await keep(store, "two", "a", axis(1))
    assert (await store.examples.get(first.id)).state is RuleState.RETIRED
    clock.forward(1)
    assert (await keep(store, "one", "a", axis(0))).state is RuleState.ACTIVE
    assert recalled(store, axis(0)) == ["one"]
    await store.examples.retire(first.id, change=CHANGE)
    assert (await keep(store, "one", "a", axis(0))).state is RuleState.RETIRED
    assert recalled(store, axis(0)) == []
    await store.close()


async def test_a_quarantined_one_stays_so_and_a_candidate_becomes_what_comes(
    store: RuleStore,
) -> None:
    held = await keep(
        store, "q", "a", axis(0), state=RuleState.QUARANTINED, reason="personal_data: a name"
    )
    assert held.reason == "personal_data: a name"
    assert recalled(store, axis(0)) == []
    assert (await keep(store, "q", "a", axis(0))).state is RuleState.QUARANTINED
    released = await store.examples.release(held.id, change=CHANGE)
    assert released.state is RuleState.ACTIVE
    assert recalled(store, axis(0)) == ["q"]
    candidate = await keep(store, "c", "a", axis(5), state=RuleState.CANDIDATE)
    assert recalled(store, axis(5), floor=0.5) == []
    assert (await keep(store, "c", "a", axis(5))).id == candidate.id
    assert recalled(store, axis(5), floor=0.5) == ["c"]


# -- changing


async def test_patch(store: RuleStore) -> None:
    kept = await keep(store, "q", "a", axis(0))
    with pytest.raises(VersionConflict, match=r"^Example .* version 1, not 7"):
        await store.examples.patch(kept.id, answer="b", expected_version=7, change=CHANGE)
    done = await store.examples.patch(
        kept.id, question="r", vector=axis(1), label=None, domain="bank", change=CHANGE
    )
    assert (done.question, done.answer, done.label, done.domain) == ("r", "a", None, "bank")
    assert done.version == 2
    assert recalled(store, axis(1), floor=0.5) == ["r"]
    assert recalled(store, axis(0), floor=0.5) == []
    # Without a vector it leaves recall until somebody brings one.
    moved = await store.examples.patch(kept.id, question="s", change=CHANGE)
    assert recalled(store, axis(1)) == []
    assert [each.id for each in await store.examples.without_embedding()] == [kept.id]
    parity = await store.parity()
    assert (parity.examples_stored, parity.examples_unembedded, parity.ok) == (1, 1, False)
    stale = ExampleEmbedding(kept.id, 2, axis(3))
    assert await store.examples.add_embeddings([stale]) == 0
    fresh = ExampleEmbedding(kept.id, moved.version, axis(3))
    assert await store.examples.add_embeddings([fresh]) == 1
    assert recalled(store, axis(3), floor=0.5) == ["s"]
    assert (await store.parity()).ok


async def test_bad_input_is_told(store: RuleStore) -> None:
    kept = await keep(store, "q", "a", axis(0))
    await keep(store, "r", "b", axis(1))
    with pytest.raises(UnknownExample, match="example_none"):
        await store.examples.get("example_none")
    with pytest.raises(UnknownNamespace):
        await store.examples.create(new_example(namespace="none"), None, change=CHANGE)
    with pytest.raises(ValueError, match="question"):
        await keep(store, " ", "a", axis(0))
    with pytest.raises(ValueError, match="answer"):
        await store.examples.patch(kept.id, answer="\n", change=CHANGE)
    with pytest.raises(InvalidVector):
        await keep(store, "t", "a", axis(0)[:5])
    with pytest.raises(DuplicateExample):
        await store.examples.patch(kept.id, question="R", answer="b", change=CHANGE)
    with pytest.raises(InvalidTransition, match="active"):
        await store.examples.release(kept.id, change=CHANGE)
    with pytest.raises(InvalidTransition, match="active"):
        await store.examples.restore(kept.id, change=CHANGE)
    await store.namespaces.freeze("default", change=CHANGE)
    for change in (
        store.examples.retire(kept.id, change=CHANGE),
        store.examples.patch(kept.id, answer="c", change=CHANGE),
        keep(store, "u", "a", axis(2)),
    ):
        with pytest.raises(NamespaceFrozen):
            await change
    assert recalled(store, axis(0)) == ["q", "r"]


async def test_what_came_of_an_episode_retires_together(store: RuleStore) -> None:
    one = await keep(store, "q", "a", axis(0), source_episode="ep_1")
    other = await keep(store, "q", "b", axis(1), source_episode="ep_1")
    await keep(store, "q", "c", axis(2))
    gone = await store.examples.retire_of_episode("ep_1", change=CHANGE)
    assert [each.id for each in gone] == [one.id, other.id]
    assert {each.state for each in gone} == {RuleState.RETIRED}
    assert len(recalled(store, axis(2))) == 1
    assert await store.examples.retire_of_episode("ep_1", change=CHANGE) == []


# -- conflicts


async def test_two_right_answers_to_one_question_are_a_conflict_until_one_leaves(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    one = await keep(store, "Is my card lost?", "lost_card", axis(0))
    assert recalled(store, axis(0)) == ["Is my card lost?"]
    other = await keep(store, "is my card lost", "stolen_card", between(0, 1, 0.99))
    assert recalled(store, axis(0)) == []
    (conflict,) = (await store.examples.conflicts()).items
    assert (conflict.one.id, conflict.other.id) == (other.id, one.id)
    assert conflict.similarity == pytest.approx(0.99, abs=1e-5)
    again = await open_store(tmp_path, clock=clock)
    assert recalled(again, axis(0)) == []
    await store.examples.retire(one.id, change=CHANGE)
    await again.catch_up()
    for each in (store, again):
        assert recalled(each, axis(0)) == ["is my card lost"]
    assert (await store.examples.conflicts("default")).total == 0
    assert await store.examples.rivals(other.id) == []
    await store.examples.restore(one.id, change=CHANGE)
    await again.catch_up()
    for each in (store, again):
        assert recalled(each, axis(0)) == []
    assert [each.id for each in await store.examples.rivals(other.id)] == [one.id]
    await again.close()


@pytest.mark.parametrize("settle", ["question", "label", "quarantine", "settle"])
async def test_what_settles_a_conflict(store: RuleStore, settle: str) -> None:
    one = await keep(store, "q one", "a", axis(0))
    other = await keep(store, "q two", "b", between(0, 1, 0.99))
    assert recalled(store, axis(0)) == []
    if settle == "question":
        await store.examples.patch(one.id, question="r", vector=axis(3), change=CHANGE)
        assert recalled(store, axis(0)) == ["q two", "r"]
    elif settle == "label":
        await store.examples.patch(one.id, label=" B ", change=CHANGE)
        # Now they say the same, and the newest is shown.
        assert recalled(store, axis(0)) == ["q two"]
    elif settle == "quarantine":
        await store.examples.quarantine(one.id, change=CHANGE)
        assert recalled(store, axis(0)) == ["q two"]
        with pytest.raises(InvalidTransition, match="Nothing contradicts"):
            await store.examples.settle(other.id, change=CHANGE)
    else:
        gone = await store.examples.settle(one.id, change=CHANGE)
        assert [each.id for each in gone] == [other.id]
        assert recalled(store, axis(0)) == ["q one"]
    assert (await store.examples.conflicts()).items == []


async def test_a_conflict_can_come_by_every_way(store: RuleStore) -> None:
    one = await keep(store, "q one", "a", axis(0))
    by_patch = await keep(store, "q two", "b", axis(1))
    assert recalled(store, axis(0), floor=0.5) == ["q one"]
    await store.examples.patch(by_patch.id, question="q 3", vector=axis(0), change=CHANGE)
    # Another number: another question.
    assert recalled(store, axis(0), floor=0.5) == ["q one", "q 3"]
    await store.examples.patch(by_patch.id, question="q three", vector=axis(0), change=CHANGE)
    assert recalled(store, axis(0)) == []
    await store.examples.retire(by_patch.id, change=CHANGE)
    held = await keep(store, "q four", "c", axis(0), state=RuleState.QUARANTINED)
    assert recalled(store, axis(0)) == ["q one"]
    await store.examples.release(held.id, change=CHANGE)
    assert recalled(store, axis(0)) == []
    await store.examples.retire(held.id, change=CHANGE)
    late = await keep(store, "q five", "d", None)
    assert recalled(store, axis(0)) == ["q one"]
    await store.examples.add_embeddings([ExampleEmbedding(late.id, 1, axis(0))])
    assert recalled(store, axis(0)) == []
    assert {each.one.id for each in (await store.examples.conflicts()).items} == {late.id}
    assert [each.id for each in await store.examples.rivals(late.id)] == [one.id]


async def test_without_labels_the_newest_verified_stands(store: RuleStore, clock: Clock) -> None:
    await keep(store, "How do I cook rice?", "Long ago one said this.", axis(0), label=None)
    clock.forward(60)
    await keep(store, "how do i cook rice", "Now one says that.", between(0, 1, 0.99), label=None)
    await keep(store, "Beans?", "In water.", between(0, 2, 0.8), label=None)
    assert recalled(store, axis(0)) == ["how do i cook rice", "Beans?"]
    assert (await store.examples.conflicts()).total == 0
    clock.forward(60)
    await keep(store, "How do I cook rice?", "Long ago one said this.", axis(0), label=None)
    assert recalled(store, axis(0)) == ["How do I cook rice?", "Beans?"]


async def test_many_versions_of_one_question_hide_no_other_one(
    store: RuleStore, clock: Clock
) -> None:
    for number in range(60):
        clock.forward(1)
        await keep(store, "same", f"answer {number}", axis(0), label=None)
    await keep(store, "other", "a", between(0, 1, 0.5), label=None)
    found = store.search_examples("default", axis(0), 2)
    assert [hit.answer for hit in found] == ["answer 59", "a"]


# -- time and room


async def test_an_expired_one_is_recalled_no_more(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    kept = await keep(store, "q", "a", axis(0), expires_at=clock() + timedelta(hours=1))
    rival = await keep(store, "q", "b", axis(0))
    await other.catch_up()
    assert recalled(store, axis(0)) == recalled(other, axis(0)) == []
    clock.forward(3600)
    # What it contradicted is free by the same moment.
    for each in (store, other):
        (hit,) = each.search_examples("default", axis(0), 4)
        assert hit.id == rival.id
    assert (await store.examples.conflicts()).total == 0
    assert (await store.examples.get(kept.id)).state is RuleState.ACTIVE
    assert await store.examples.expire() == 0
    clock.forward(CLEARED_AFTER.total_seconds() + 1)
    assert await store.examples.expire() == 1
    assert await store.examples.expire() == 0
    (event, *_) = (await store.examples.history(kept.id)).items
    assert (event.kind, event.actor, event.reason) == ("example.retired", "policy", "expired")
    await store.examples.patch(rival.id, expires_at=clock(), change=CHANGE)
    assert recalled(store, axis(0)) == []
    await store.examples.patch(rival.id, expires_at=None, change=CHANGE)
    assert len(recalled(store, axis(0))) == 1
    await other.close()


async def test_days_of_namespace_come_before_the_option(tmp_path: Path, clock: Clock) -> None:
    store = await open_store(tmp_path, clock=clock, example_days=10)
    await store.namespaces.ensure("default")
    usual = await keep(store, "q", "a", axis(0))
    assert usual.expires_at == clock() + timedelta(days=10)
    await store.namespaces.change_settings("default", {"example_days": 2}, change=CHANGE)
    assert (await keep(store, "r", "a", axis(1))).expires_at == clock() + timedelta(days=2)
    own = clock() + timedelta(hours=1)
    assert (await keep(store, "s", "a", axis(2), expires_at=own)).expires_at == own
    clock.forward(86_400 * 9)
    # Verified again: what ends later counts.
    assert (await keep(store, "q", "a", axis(0))).expires_at == clock() + timedelta(days=2)
    await store.close()


async def test_over_the_capacity_the_least_worthy_go(store: RuleStore, clock: Clock) -> None:
    await store.namespaces.change_settings("default", {"example_capacity": 3}, change=CHANGE)
    await keep(store, "harmful", "a", axis(0))
    await asked(store, "harmful", good=0.0, times=6)
    await keep(store, "weak", "a", axis(1), trust=Trust.CONSENSUS)
    clock.forward(1)
    await keep(store, "old", "a", axis(2))
    clock.forward(1)
    for number, left in enumerate(
        [{"weak", "old", "0"}, {"old", "0", "1"}, {"0", "1", "2"}, {"1", "2", "3"}]
    ):
        clock.forward(1)
        await keep(store, str(number), "a", axis(3 + number))
        page = await store.examples.list(ExampleFilter(state=RuleState.ACTIVE))
        assert {each.question for each in page.items} == left
    (event, *_) = (await store.history.events()).items
    gone = (await store.examples.list(ExampleFilter(state=RuleState.RETIRED))).items
    assert {each.reason for each in gone} == {"capacity of 3 examples"}
    assert event.kind == "example.retired"


# -- evidence


async def test_exposures_and_outcomes_count_for_examples(store: RuleStore) -> None:
    kept = await keep(store, "q", "a", axis(0))
    await asked(store, "q", good=1.0, times=3)
    assert (await store.examples.get(kept.id)).exposures == 3
    await store.catch_up()
    standing = store.evidence.standing_of(kept.id)
    assert standing is not None
    assert standing.with_rule.hits == pytest.approx(3.0)
    assert standing.without_rule.hits == 0
    found = await store.evidence.of_example(kept.id)
    assert found.standing == standing
    assert len(found.exposures) == 3
    page = await store.examples.list(ExampleFilter(min_lift=-1.0), sort=RuleSort.USED)
    assert [each.id for each in page.items] == [kept.id]
    with pytest.raises(UnknownExample):
        await store.evidence.of_example("example_none")
    # Other words start without the evidence of the old ones.
    await store.examples.patch(kept.id, answer="b", change=CHANGE)
    renewed = (await store.evidence.of_example(kept.id)).standing
    assert renewed is not None
    assert renewed.with_rule.hits == 0


async def test_an_example_that_harms_for_sure_retires(store: RuleStore) -> None:
    harmful = await keep(store, "harmful", "a", axis(0))
    await keep(store, "fine", "a", axis(1))
    await asked(store, "harmful", good=0.0, times=12)
    await asked(store, "harmful", good=1.0, times=12, withheld=True)
    await store.evidence.review("default", probation=10_000)
    after = await store.examples.get(harmful.id)
    assert after.state is RuleState.RETIRED
    assert recalled(store, axis(0)) == ["fine"]
    (event, *_) = (await store.examples.history(harmful.id)).items
    assert event.kind == "example.demoted"


# -- listing


async def test_list_and_nearest(store: RuleStore, clock: Clock) -> None:
    one = await keep(store, "Where is my card?", "In the post.", axis(0), domain="bank")
    two = await keep(
        store, "Rice?", "Boil it.", axis(1), trust=Trust.SCORE, state=RuleState.CANDIDATE
    )

    async def ids(**where: Any) -> list[str]:
        page = await store.examples.list(ExampleFilter(**where), sort=RuleSort.OLDEST)
        assert page.total == len(page.items)
        return [each.id for each in page.items]

    assert await ids() == [one.id, two.id]
    assert await ids(text="CARD") == await ids(domain="bank") == [one.id]
    assert await ids(text="boil") == await ids(trust=Trust.SCORE) == [two.id]
    assert await ids(state=RuleState.CANDIDATE) == [two.id]
    assert await ids(namespaces=frozenset()) == []
    assert await ids(max_exposures=0, min_exposures=0) == [one.id, two.id]
    assert await ids(created_after=clock() + timedelta(seconds=1)) == []
    first = await store.examples.list(limit=1)
    rest = await store.examples.list(limit=1, cursor=first.next_cursor)
    assert [each.id for each in (*first.items, *rest.items)] == [two.id, one.id]
    both = (RuleState.ACTIVE, RuleState.CANDIDATE)
    near = await store.examples.nearest(between(1, 0, 0.9), namespace="default", states=both)
    assert [each.example.id for each in near] == [two.id, one.id]
    assert near[0].similarity == pytest.approx(0.9, abs=1e-5)
    assert [each.example.id for each in await store.examples.nearest(axis(1))] == [one.id]


async def test_statistics(store: RuleStore) -> None:
    await keep(store, "q", "a", axis(0))
    await keep(store, "r", "a", axis(1), state=RuleState.QUARANTINED)
    stats = await store.stats()
    assert stats.examples == {"candidate": 0, "active": 1, "quarantined": 1, "retired": 0}
    assert stats.examples_by_namespace == {"default": {"active": 1, "quarantined": 1}}
    summary = await store.namespaces.summary("default")
    assert summary.examples == {"active": 1, "quarantined": 1}
    parity = await store.parity()
    assert (parity.examples_indexed, parity.examples_stored, parity.ok) == (1, 1, True)


# -- retention


DAY = 24 * 3600


async def keep_for(store: RuleStore, days: int, namespace: str = "default") -> None:
    await store.namespaces.change_settings(namespace, {"retention_days": days}, change=CHANGE)


async def learned(store: RuleStore, question: str, vector: Any, episode: str, **more: Any) -> str:
    return (await keep(store, question, "oldanswer", vector, source_episode=episode, **more)).id


def everything(folder: Path) -> str:
    """All that the database says, row by row."""
    tables = [table.name for table in metadata.sorted_tables]
    return "\n".join(str(row) for name in tables for row in sql(folder, f"SELECT * FROM {name}"))


async def test_what_clients_taught_goes_with_its_words_once_it_is_too_old(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    old = await learned(store, "first oldwords", axis(0), "ep_1", label="oldlabel")
    await store.examples.patch(old, question="second oldwords", vector=axis(0), change=CHANGE)
    retired = await learned(store, "third oldwords", axis(1), "ep_2")
    await store.examples.retire(retired, change=CHANGE)
    secret = await learned(store, "oldwords", axis(2), "ep_3", state=RuleState.QUARANTINED)
    again = await learned(store, "verified anew", axis(3), "ep_4", label="a")
    written = await keep(store, "by an operator", "a", axis(4))
    await asked(store, "second oldwords", good=1.0, times=2)
    await keep_for(store, 30)
    clock.forward(29 * DAY)
    await learned(store, "verified anew", axis(3), "ep_5", label="a")
    clock.forward(DAY)
    assert await store.examples.delete_old() == 0
    clock.forward(1)
    assert all(word in everything(tmp_path) for word in ("oldwords", "oldlabel"))
    assert await store.examples.delete_old() == 3
    assert await store.examples.delete_old() == 0
    assert {each.id for each in (await store.examples.list()).items} == {again, written.id}
    said = everything(tmp_path)
    assert "oldwords" not in said
    assert "oldlabel" not in said
    for table, column in (("standings", "item_id"), ("links", "item_id"), ("links", "other")):
        left = sql(tmp_path, f"SELECT {column} FROM {table}")
        assert not {old, retired, secret} & {row[0] for row in left}
    # What happened is still known, and what the others were.
    where = EventFilter(example_id=old)
    events = (await store.history.events(where)).items
    assert [event.kind for event in events] == ["example.patched", "example.created"]
    assert [(event.before, event.after) for event in events] == [(None, None)] * 2
    assert events[0].actor == "kim"
    (event,) = (await store.history.events(EventFilter(kind=DELETED))).items
    assert event.actor == "policy"
    assert set((event.after or {})["examples"]) == {old, retired, secret}
    (newest, *_) = (await store.examples.history(again)).items
    assert (newest.after or {})["question"] == "verified anew"


async def test_the_same_words_can_be_learned_once_more(store: RuleStore, clock: Clock) -> None:
    old = await learned(store, "q", axis(0), "ep_1")
    await keep_for(store, 1)
    clock.forward(DAY + 1)
    assert await store.examples.delete_old() == 1
    with pytest.raises(UnknownExample):
        await store.examples.get(old)
    new = await learned(store, "q", axis(0), "ep_2")
    assert new != old
    assert recalled(store, axis(0)) == ["q"]


async def test_every_process_and_what_it_contradicted_follow(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    await learned(store, "where?", axis(0), "ep_1", label="here")
    rival = await keep(store, "where?", "there", axis(0))
    gone = await learned(store, "when?", axis(1), "ep_2", label="now")
    await other.catch_up()
    assert recalled(other, axis(1)) == ["when?"]
    assert (await store.examples.conflicts()).total == 1
    await keep_for(store, 1)
    clock.forward(DAY + 1)
    assert await store.examples.delete_old() == 2
    await other.catch_up()
    restarted = await open_store(tmp_path, clock=clock)
    for each in (store, other, restarted):
        (hit,) = each.search_examples("default", axis(1), 9)
        assert hit.id == rival.id
        parity = await each.parity()
        assert parity.examples_indexed == parity.examples_stored == 1
        with pytest.raises(UnknownExample):
            await each.examples.get(gone)
    assert (await other.examples.conflicts()).total == 0
    await other.close()
    await restarted.close()


async def test_a_rollback_passes_over_what_was_deleted(store: RuleStore, clock: Clock) -> None:
    await learned(store, "goes", axis(0), "ep_1")
    written = await keep(store, "stays", "a", axis(1))
    before = (await store.stats()).last_event
    await store.examples.retire(written.id, change=CHANGE)
    await keep_for(store, 1)
    clock.forward(DAY + 1)
    assert await store.examples.delete_old() == 1
    target = RollbackTarget(event=before)
    plan = await store.history.plan_rollback("default", target)
    assert [each.after.id for each in plan.examples] == [written.id]
    await store.history.roll_back("default", target, change=CHANGE)
    assert [each.question for each in (await store.examples.list()).items] == ["stays"]
    assert recalled(store, axis(0)) == ["stays"]


async def test_it_goes_in_portions_also_where_frozen_and_by_the_earlier_clock(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_AT_ONCE", 2)
    await store.namespaces.ensure("unlimited")
    await learned(store, "elsewhere", axis(0), "ep", namespace="unlimited")
    for number in range(5):
        await learned(store, f"q{number}", axis(number), f"ep_{number}")
    await keep_for(store, 1)
    await store.namespaces.freeze("default", change=CHANGE)
    early = clock()
    clock.forward(DAY + 1)
    assert await store.examples.delete_old(early) == 0
    assert await store.examples.delete_old() == 5
    found = (await store.history.events(EventFilter(kind=DELETED))).items
    assert [len((event.after or {})["examples"]) for event in found] == [1, 2, 2]
    assert [each.question for each in (await store.examples.list()).items] == ["elsewhere"]
