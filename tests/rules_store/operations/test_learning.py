"""Applying what was learned: merged or inserted, once, in one transaction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rules_store.errors import InvalidVector, StoreUnavailable
from rules_store.models.events import Change
from rules_store.models.jobs import JobState, Spend
from rules_store.models.rules import Draft, NewRule, Polarity, RuleState, Vectors
from rules_store.operations.exchange import IncomingRule
from rules_store.repository import episodes
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    NEGATIVE,
    POSITIVE,
    all_rules,
    axis,
    between,
    claimed,
    draft,
    learn,
    open_store,
    sql,
    write,
)


async def test_both_polarities_in_one_job(store: RuleStore) -> None:
    job = await claimed(store, "ep_1")
    rules = [
        Draft(NewRule("default", POSITIVE, "do", "when"), Vectors(axis(0), axis(1))),
        Draft(NewRule("default", NEGATIVE, "don't"), Vectors(axis(0))),
    ]
    applied = await store.jobs.apply(job, rules, trace={"more": 2}, spend=Spend(6, 900))
    assert [each.outcome for each in applied.learned] == ["created", "created"]
    assert not applied.already
    for learned in applied.learned:
        rule = await store.rules.get(learned.rule_id)
        assert (rule.source_episode, rule.state, rule.frequency) == ("ep_1", "active", 1)
        (created,) = await store.rules.events(rule.id)
        assert (created.kind, created.actor) == ("rule.created", "learner")
    episode = await store.episodes.get("ep_1")
    assert (episode.status, episode.reason) == ("learned", None)
    assert episode.trace["kept"] == 1
    assert episode.trace["more"] == 2
    assert [each["text"] for each in episode.trace["rules_learned"]] == ["do", "don't"]
    assert (await store.jobs.counts())[JobState.DONE] == 1
    assert await store.jobs.spend_last_hour("default") == Spend(6, 900)
    assert [c.text for c in store.search("default", axis(1), POSITIVE, 3).hits] == ["do"]


async def test_a_second_time_changes_nothing(store: RuleStore) -> None:
    job = await claimed(store, "ep_1")
    await store.jobs.apply(job, [draft("x", axis(0))], spend=Spend(1, 1))
    before = await store.stats()
    again = await store.jobs.apply(job, [draft("y", axis(1))], spend=Spend(1, 1))
    assert again.already
    assert again.learned == ()
    assert await store.stats() == before
    assert await store.jobs.spend_last_hour("default") == Spend(1, 1)


async def test_near_wordings_merge(store: RuleStore) -> None:
    first = (await learn(store, "ep_1", draft("Check the sum", axis(0)))).learned[0]
    same = (await learn(store, "ep_2", draft("Verify sums", between(0, 1, 0.951)))).learned[0]
    assert (same.rule_id, same.outcome, same.text) == (first.rule_id, "merged", "Check the sum")
    other = (await learn(store, "ep_3", draft("Count again", between(0, 1, 0.949)))).learned[0]
    assert other.outcome == "created"
    rule = await store.rules.get(first.rule_id)
    assert (rule.text, rule.frequency, rule.version) == ("Check the sum", 2, 1)
    merged = (await store.rules.events(rule.id))[-1]
    assert (merged.kind, merged.reason) == ("rule.merged", "learned again in ep_2")
    assert ((merged.before or {})["frequency"], (merged.after or {})["frequency"]) == (1, 2)


async def test_learning_again_stays_within_the_column(store: RuleStore) -> None:
    rule = await write(store, "Check the sum", axis(0))
    full = replace(rule, id="rule_full", text="Count again", frequency=2**31 - 1)
    await store.exchange.import_rules(
        [IncomingRule(full, Vectors(axis(1)))], change=Change("a", "")
    )
    done = await learn(store, "ep_1", draft("Count again", axis(1)))
    assert done.learned[0].rule_id == "rule_full"
    assert (await store.rules.get("rule_full")).frequency == 2**31 - 1


async def test_the_nearest_rule_is_merged_into(store: RuleStore) -> None:
    near = await write(store, "near", between(0, 1, 0.96))
    nearer = await write(store, "nearer", between(0, 2, 0.99))
    learned = (await learn(store, "ep_1", draft("new", axis(0)))).learned[0]
    assert learned.rule_id == nearer.id
    assert (await store.rules.get(near.id)).frequency == 1


async def test_merging_keeps_to_namespace_polarity_and_text(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    await write(store, "theirs", axis(0), namespace="other")
    await write(store, "opposite", axis(0), polarity=NEGATIVE)
    await write(store, "its trigger is near", axis(5), trigger="t", trigger_vector=axis(0))
    learned = (await learn(store, "ep_1", draft("new", axis(0)))).learned[0]
    assert learned.outcome == "created"


async def test_candidates_are_merged_into(store: RuleStore) -> None:
    waiting = await write(store, "waiting", axis(0), state=RuleState.CANDIDATE)
    learned = (await learn(store, "ep_1", draft("new", axis(0)))).learned[0]
    assert (learned.rule_id, learned.outcome) == (waiting.id, "merged")
    assert learned.reason == "the same rule is candidate"


@pytest.mark.parametrize("state", ["retired", "quarantined"])
async def test_what_was_put_away_stays_so(store: RuleStore, state: str) -> None:
    rule = await write(store, "Guess the answer", axis(0))
    put_away = store.rules.retire if state == "retired" else store.rules.quarantine
    await put_away(rule.id, change=Change("me", "harmful"))
    learned = (await learn(store, "ep_1", draft("guess the  Answer", axis(9)))).learned[0]
    assert (learned.rule_id, learned.outcome) == (rule.id, "merged")
    assert learned.reason == f"the same rule is {state}"
    after = await store.rules.get(rule.id)
    assert (after.state, after.frequency, after.reason) == (state, 2, "harmful")
    assert not store.has_rules("default")


async def test_a_refused_draft_is_quarantined_and_merges_with_its_like_only(
    store: RuleStore,
) -> None:
    active = await write(store, "Check the sum", axis(0))
    bad = draft(
        "Check the sum at http://x", axis(0), state=RuleState.QUARANTINED, reason="has a URL"
    )
    learned = (await learn(store, "ep_1", bad)).learned[0]
    assert (learned.outcome, learned.reason) == ("quarantined", "has a URL")
    assert (await store.rules.get(active.id)).frequency == 1
    again = (await learn(store, "ep_2", bad)).learned[0]
    assert (again.rule_id, again.outcome) == (learned.rule_id, "merged")
    assert len(store.search("default", axis(0), POSITIVE, 9).hits) == 1
    assert (await store.parity()).ok


async def test_nothing_learned_is_still_learned(store: RuleStore) -> None:
    applied = await store.jobs.apply(await claimed(store, "ep_1"), [])
    assert applied.learned == ()
    assert (await store.episodes.get("ep_1")).status == "learned"


async def test_wrong_drafts(store: RuleStore) -> None:
    job = await claimed(store, "ep_1")
    for drafts, sentence in (
        ([draft("a", axis(0)), draft("b", axis(1))], "one draft per polarity"),
        ([draft("a", axis(0), namespace="other")], "own namespace"),
        ([draft("a", axis(0), state=RuleState.RETIRED)], "active, candidate or quarantined"),
        ([draft(" ", axis(0))], "needs a text"),
    ):
        with pytest.raises(ValueError, match=sentence):
            await store.jobs.apply(job, drafts)
    for vector in (None, axis(0)[:4], axis(0) * float("nan")):
        with pytest.raises(InvalidVector):
            await store.jobs.apply(job, [draft("a", vector)])
    assert (await store.rules.list()).total == 0
    await store.jobs.apply(job, [draft("a", axis(0))])


async def test_a_failure_half_way_changes_nothing(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await claimed(store, "ep_1")
    before = await store.stats()

    async def broken(*arguments: object) -> None:
        raise RuntimeError("half way")

    with monkeypatch.context() as patch:
        patch.setattr(episodes, "conclude", broken)
        with pytest.raises(RuntimeError, match="half way"):
            await store.jobs.apply(job, [draft("x", axis(0))], spend=Spend(1, 1))
    assert await store.stats() == before
    assert not store.has_rules("default")
    assert await store.jobs.spend_last_hour("default") == Spend(0, 0)
    await store.jobs.apply(job, [draft("x", axis(0))])
    assert store.has_rules("default")


@pytest.mark.sqlite
async def test_a_full_disk_loses_nothing(store: RuleStore, tmp_path: Path) -> None:
    job = await claimed(store, "ep_1")
    before = await store.stats()

    async with store.context.database.write() as connection:
        # Of the connection that writes; taken as: not one page more than now.
        await connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.jobs.apply(job, [draft("x" * 100_000, axis(0))])
    assert not store.has_rules("default")
    assert await store.stats() == before
    await store.jobs.apply(job, [draft("x" * 100_000, axis(0))])
    assert store.has_rules("default")


async def test_an_index_that_could_not_follow_catches_up(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable() -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store.context.caches, "catch_up", unavailable)
        await learn(store, "ep_1", draft("x", axis(0)))
        assert not store.has_rules("default")
    # The next change looks first, so it merges with the rule that it had not seen.
    learned = (await learn(store, "ep_2", draft("y", axis(0)))).learned[0]
    assert learned.outcome == "merged"
    assert (await store.parity()).ok


async def test_rules_of_other_processes_are_merged_into_and_found(
    store: RuleStore, tmp_path: Path
) -> None:
    other = await open_store(tmp_path)
    theirs = (await learn(other, "ep_1", draft("theirs", axis(0)))).learned[0]
    assert not store.has_rules("default")
    ours = (await learn(store, "ep_2", draft("ours", axis(0)))).learned[0]
    assert (ours.rule_id, ours.outcome) == (theirs.rule_id, "merged")
    assert store.has_rules("default")
    await store.rules.retire(theirs.rule_id, change=Change("me", "r"))
    assert other.has_rules("default")
    await other.catch_up()
    assert not other.has_rules("default")
    assert (await other.rules.get(theirs.rule_id)).frequency == 2
    await other.close()


async def test_the_log_says_all(store: RuleStore, tmp_path: Path) -> None:
    """Replaying the events gives the rules that SQL has."""
    await learn(store, "ep_1", draft("a", axis(0)))
    await learn(store, "ep_2", draft("a", axis(0)))
    rule = await write(store, "b", axis(1))
    await store.rules.patch(rule.id, text="c", vectors=Vectors(axis(2)), change=Change("m", "r"))
    await store.rules.retire(rule.id, change=Change("m", "r"))
    replayed: dict[str, dict[str, object]] = {}
    for each in await all_rules(store):
        for change in await store.rules.events(each.id):
            assert change.before == replayed.get(each.id)
            replayed[each.id] = change.after or {}
    for each in await all_rules(store):
        for name, value in replayed[each.id].items():
            assert getattr(each, name) == value
    keys = sql(tmp_path, "SELECT key FROM events WHERE key IS NOT NULL ORDER BY id")
    assert keys == [("ep_1:positive",), ("ep_2:positive",)]


# -- what was put aside before


WHO = Change("kim", "a test")
REFUNDS = "Explain refunds in brief sentences."


@pytest.mark.parametrize(
    ("again", "cosine"),
    [
        ("Explain refunds in brief sentences", 0.0),
        ("EXPLAIN REFUNDS, IN BRIEF SENTENCES!", 0.0),
        ("Expláin  refunds in brief-sentences.", 0.0),
        ("Use short sentences when a refund is explained.", 0.84),
    ],
)
async def test_what_a_person_retired_is_held_back_however_it_is_said(
    store: RuleStore, again: str, cosine: float
) -> None:
    rule = await write(store, REFUNDS, axis(0))
    await store.rules.retire(rule.id, change=WHO)
    done = await learn(store, "ep_again", draft(again, between(0, 1, cosine)))
    assert done.learned[0].outcome == "quarantined"
    held = await store.rules.get(done.learned[0].rule_id)
    assert held.state is RuleState.QUARANTINED
    assert held.reason is not None
    assert held.reason.startswith(f"retired_before: says again what rule {rule.id} said")


@pytest.mark.parametrize(
    ("polarity", "namespace", "cosine"),
    [(POSITIVE, "default", 0.79), (NEGATIVE, "default", 0.9), (POSITIVE, "other", 0.9)],
)
async def test_other_rules_are_not_held_back(
    store: RuleStore, polarity: Polarity, namespace: str, cosine: float
) -> None:
    rule = await write(store, REFUNDS, axis(0))
    await store.rules.retire(rule.id, change=WHO)
    await store.namespaces.ensure(namespace)
    vector = between(0, 1, cosine)
    new = draft("State the deadline.", vector, polarity=polarity, namespace=namespace)
    assert (await learn(store, "ep_new", new)).learned[0].outcome == "created"


async def test_what_only_made_room_is_not_held_against_a_rule(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=1)
    try:
        await store.namespaces.ensure("default")
        await learn(store, "ep_1", draft(REFUNDS, axis(0)))
        await learn(store, "ep_2", draft("Something else.", axis(5)))
        done = await learn(store, "ep_3", draft(REFUNDS.rstrip("."), between(0, 1, 0.9)))
        assert done.learned[0].outcome == "created"
    finally:
        await store.close()


async def test_what_was_merged_is_not_held_against_a_rule(store: RuleStore) -> None:
    one, two = await write(store, REFUNDS, axis(0)), await write(store, "Be brief.", axis(5))
    await store.curation.merge(two.id, [one.id], change=WHO)
    done = await learn(store, "ep_1", draft(REFUNDS.rstrip("."), between(0, 1, 0.9)))
    assert done.learned[0].outcome == "created"


async def test_learned_rules_make_room_before_those_of_people(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=2)
    try:
        await store.namespaces.ensure("default")
        first = await write(store, "by a person", axis(0))
        for number in range(1, 5):
            await learn(store, f"ep_{number}", draft(f"learned {number}", axis(number)))
        active = [rule.text for rule in await all_rules(store, state=RuleState.ACTIVE)]
        assert sorted(active) == ["by a person", "learned 4"]
        await write(store, "by another", axis(6))
        await write(store, "by a third", axis(7))
        assert (await store.rules.get(first.id)).state is RuleState.RETIRED
    finally:
        await store.close()
