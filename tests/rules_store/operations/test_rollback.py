"""Rolling a namespace back: exactly, undone by another one, and with the index right after it."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rules_store.errors import (
    DuplicateRule,
    DuplicateSnapshot,
    InvalidCursor,
    PreviewOutdated,
    StoreError,
    UnknownEvent,
    UnknownNamespace,
)
from rules_store.index.rule_index import unit
from rules_store.models.events import Change, EventFilter, Rollback, RollbackTarget
from rules_store.models.rules import NewRule, Polarity, Rule, RuleState, Vectors
from rules_store.operations import rule_writes
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    DIMENSION,
    MODEL,
    NEGATIVE,
    POSITIVE,
    Clock,
    all_rules,
    axis,
    draft,
    learn,
    open_store,
    random_vector,
    write,
)

WHO = Change("ann", "went wrong")


def at(event: int) -> RollbackTarget:
    return RollbackTarget(event=event)


async def last_event(store: RuleStore) -> int:
    return (await store.stats()).last_event


async def state_of(store: RuleStore, namespace: str = "default") -> dict[str, tuple[Any, ...]]:
    """Of each rule, all that a rollback brings back."""
    return {
        rule.id: (
            rule.polarity,
            rule.state,
            rule.text,
            rule.trigger,
            rule.domain,
            rule.frequency,
            rule.reason,
        )
        for rule in await all_rules(store, namespace=namespace)
    }


async def back(
    store: RuleStore, target: RollbackTarget, vectors: dict[str, Vectors] | None = None
) -> Rollback:
    plan = await store.history.plan_rollback("default", target)
    done = await store.history.roll_back("default", target, vectors, change=WHO)
    assert [c.after.id for c in done.changes] == [c.after.id for c in plan.changes]
    assert plan.event is None
    parity = await store.parity()
    assert (parity.indexed + parity.unembedded, parity.behind) == (parity.stored, 0)
    return done


def texts(store: RuleStore, number: int, polarity: Polarity = POSITIVE) -> list[str]:
    found = store.search("default", axis(number), polarity, 10).hits
    return [each.text for each in found if each.similarity > 0.9]


async def test_every_rule_is_as_it_was(store: RuleStore) -> None:
    patched = await write(store, "old text", axis(0), trigger="t", trigger_vector=axis(10))
    retired = await write(store, "retired later", axis(1), polarity=NEGATIVE)
    merged = await write(store, "merged later", axis(2))
    same = await write(store, "untouched", axis(3))
    then, before = await last_event(store), await state_of(store)
    await store.rules.patch(
        patched.id, text="new text", domain="d", vectors=Vectors(axis(4)), change=WHO
    )
    await store.rules.retire(retired.id, change=WHO)
    await learn(store, "ep_1", draft("merged later", axis(2)))
    await learn(store, "ep_2", draft("came later", axis(5)))
    changed = await state_of(store)
    done = await back(store, at(then), {patched.id: Vectors(axis(0))})
    after = await state_of(store)
    later = [id for id in after if id not in before]
    assert {id: after[id] for id in before} == before
    assert [after[id][1] for id in later] == [RuleState.RETIRED]
    assert len(done.changes) == 4
    assert [change.after.id for change in done.changes if change.created_later] == later
    # Who read a rule before the rollback is told so when it is changed.
    assert (await store.rules.get(patched.id)).version == 3
    assert (await store.rules.get(same.id)).version == 1
    assert texts(store, 0) == ["old text"]
    assert texts(store, 10) == ["old text"]
    assert texts(store, 1, NEGATIVE) == ["retired later"]
    assert texts(store, 4) == texts(store, 5) == []

    # And the rollback is undone.
    undone = await back(
        store, at(done.before_event), {patched.id: Vectors(axis(4)), merged.id: Vectors(axis(9))}
    )
    assert await state_of(store) == changed
    assert texts(store, 4) == ["new text"]
    assert texts(store, 5) == ["came later"]
    assert texts(store, 2) == ["merged later"]  # whose vector stays, since its text does
    await back(store, at(undone.before_event))
    assert await state_of(store) == after


async def test_what_was_shown_is_done_or_nothing(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0))
    then = await last_event(store)
    await store.rules.retire(rule.id, change=WHO)
    shown = await store.history.plan_rollback("default", at(then))
    await store.namespaces.ensure("other")
    await write(store, "elsewhere", axis(1), namespace="other")  # which is nobody's business here
    seen = {"expected_last": shown.before_event}
    assert await store.history.plan_rollback("default", at(then), **seen) == shown
    later = await write(store, "unseen", axis(2))
    before = await last_event(store)
    for rolling in (
        store.history.plan_rollback("default", at(then), **seen),
        store.history.roll_back("default", at(then), **seen, change=WHO),
    ):
        with pytest.raises(PreviewOutdated, match="default"):
            await rolling
    assert await last_event(store) == before
    assert (await store.rules.get(later.id)).state is RuleState.ACTIVE
    again = await store.history.plan_rollback("default", at(then))
    done = await store.history.roll_back(
        "default", at(then), expected_last=again.before_event, change=WHO
    )
    assert [c.after.id for c in done.changes] == [c.after.id for c in again.changes]


async def test_what_a_rollback_writes_into_the_log(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0))
    then = await last_event(store)
    await store.rules.retire(rule.id, change=WHO)
    done = await back(store, at(then))
    page = await store.history.events(EventFilter(since_event=done.before_event + 1))
    whole, single = page.items
    assert (single.kind, single.rule_id, single.actor) == ("rule.rolled_back", rule.id, "ann")
    assert (single.before["state"], single.after["state"]) == ("retired", "active")
    assert single.after["version"] == 3
    assert (whole.id, whole.kind) == (done.event, "namespace.rolled_back")
    assert whole.before == {"event": done.before_event}
    assert whole.after == {"event": then, "changed": 1, "examples_changed": 0}
    assert whole.reason == "went wrong"
    # Back to how it is already: said, and nothing changed.
    again = await back(store, at(then))
    assert again.changes == ()
    assert again.event == whole.id + 1


async def test_a_dry_run_changes_nothing(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0))
    plan = await store.history.plan_rollback("default", at(1))
    assert [change.after.state for change in plan.changes] == [RuleState.RETIRED]
    assert await store.rules.get(rule.id) == rule
    assert await last_event(store) == 2


async def test_the_ways_to_say_where_to(store: RuleStore, clock: Clock) -> None:
    first = clock.now
    clock.forward(60)
    await write(store, "one", axis(0))
    marked = await store.history.snapshot("default", "before the flood", change=WHO)
    clock.forward(60)
    await write(store, "two", axis(1))
    for target, kept in (
        (RollbackTarget(snapshot="before the flood"), ["one"]),
        (RollbackTarget(time=first), []),
        (RollbackTarget(time=first + timedelta(seconds=60)), ["one"]),
        (RollbackTarget(event=marked.event), ["one"]),
    ):
        await back(store, target)
        active = await all_rules(store, state=RuleState.ACTIVE)
        assert [rule.text for rule in active] == kept
    await store.namespaces.ensure("other")
    foreign = await last_event(store)
    for target in (
        at(foreign),  # of another namespace
        at(foreign + 1),
        at(10**12),
        RollbackTarget(time=first - timedelta(seconds=1)),
        RollbackTarget(snapshot="no such"),
    ):
        with pytest.raises(UnknownEvent):
            await store.history.plan_rollback("default", target)
        with pytest.raises(UnknownEvent):
            await store.history.roll_back("default", target, change=WHO)
    with pytest.raises(UnknownNamespace):
        await store.history.roll_back("nowhere", at(1), change=WHO)


async def test_snapshots_have_a_label_of_their_own(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    await store.history.snapshot("default", "a", change=WHO)
    with pytest.raises(DuplicateSnapshot):
        await store.history.snapshot("default", "a", change=WHO)
    await store.history.snapshot("other", "a", change=WHO)
    await store.namespaces.freeze("default", change=WHO)
    made = await store.history.snapshot("default", "b", change=WHO)
    page = await store.history.snapshots("default", limit=1)
    assert (page.items, page.total) == ([made], 2)
    rest = await store.history.snapshots("default", limit=1, cursor=page.next_cursor)
    assert [each.label for each in rest.items] == ["a"]
    with pytest.raises(InvalidCursor):
        await store.history.snapshots("default", cursor="x")
    with pytest.raises(UnknownNamespace):
        await store.history.snapshots("nowhere")


async def test_a_text_without_vectors_waits_outside_of_retrieval(store: RuleStore) -> None:
    rule = await write(store, "old", axis(0))
    then = await last_event(store)
    await store.rules.patch(rule.id, text="new", vectors=Vectors(axis(1)), change=WHO)
    plan = await store.history.plan_rollback("default", at(then))
    assert [each.text for each in plan.unembedded] == ["old"]
    await store.history.roll_back("default", at(then), change=WHO)
    assert store.search("default", axis(1), POSITIVE, 5).hits == ()
    assert [each.id for each in await store.rules.without_embedding()] == [rule.id]


async def test_a_frozen_namespace_can_be_rolled_back_and_stays_frozen(store: RuleStore) -> None:
    await write(store, "one", axis(0))
    await store.namespaces.freeze("default", change=WHO)
    await back(store, at(1))
    assert store.namespaces.is_frozen("default")
    assert store.search("default", axis(0), POSITIVE, 5).hits == ()


async def test_a_text_that_a_later_rule_has_taken_up(store: RuleStore) -> None:
    first = await write(store, "the text", axis(0))
    then = await last_event(store)
    await store.rules.patch(first.id, text="another", vectors=Vectors(axis(1)), change=WHO)
    second = await write(store, "The  text", axis(2))
    changed = await state_of(store)
    done = await back(store, at(then), {first.id: Vectors(axis(0))})
    assert (await store.rules.get(first.id)).text == "the text"
    assert (await store.rules.get(second.id)).state is RuleState.RETIRED
    # There are two rules of one text now, and only one of them may be in use.
    with pytest.raises(DuplicateRule):
        await store.rules.restore(second.id, change=WHO)
    (again,) = (await learn(store, "ep_1", draft("the text", axis(0)))).learned
    assert again.rule_id == first.id
    await back(store, at(done.before_event), {first.id: Vectors(axis(1))})
    assert await state_of(store) == changed
    assert texts(store, 2) == ["The  text"]


async def test_two_rules_that_swapped_their_texts(store: RuleStore) -> None:
    one, two = await write(store, "one", axis(0)), await write(store, "two", axis(1))
    then, before = await last_event(store), await state_of(store)
    for rule, text in ((one, "three"), (two, "one"), (one, "two")):
        await store.rules.patch(rule.id, text=text, change=WHO)
    await back(store, at(then), {one.id: Vectors(axis(0)), two.id: Vectors(axis(1))})
    assert await state_of(store) == before
    assert (texts(store, 0), texts(store, 1)) == (["one"], ["two"])


async def test_other_processes_and_a_restart_see_it(
    store: RuleStore, tmp_path: Path, clock: Clock
) -> None:
    other = await open_store(tmp_path, clock=clock)
    rule = await write(store, "one", axis(0))
    then = await last_event(store)
    await store.rules.retire(rule.id, change=WHO)
    await write(store, "two", axis(1))
    await other.catch_up()
    await back(store, at(then))
    await other.catch_up()
    again = await open_store(tmp_path, clock=clock)
    for each in (store, other, again):
        assert [c.text for c in each.search("default", axis(0), POSITIVE, 5).hits] == ["one"]
        assert (await each.parity()).ok
    await other.close()
    await again.close()


async def test_other_namespaces_stay_as_they_are(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    theirs = await write(store, "theirs", axis(0), namespace="other")
    await write(store, "mine", axis(0))
    await back(store, at(1))
    assert await store.rules.get(theirs.id) == theirs


# -- any history --------------------------------------------------------------------------------

KINDS = ("write", "write", "patch", "retire", "restore", "quarantine", "learn", "back")


@pytest.mark.parametrize("seed", range(12))
async def test_any_point_of_any_history_can_be_gone_back_to(store: RuleStore, seed: int) -> None:
    rng = random.Random(seed)
    points = {await last_event(store): await state_of(store)}
    for number in range(14):
        step = (rng.choice(KINDS), rng.randrange(6), rng.randrange(6))
        await _do(store, number, step, list(points))
        points[await last_event(store)] = await state_of(store)
    for event, then in rng.sample(sorted(points.items()), 5):
        await back(store, at(event))
        now = await state_of(store)
        assert {id: now[id] for id in then} == then
        later = {id: each for id, each in now.items() if id not in then}
        assert {each[1] for each in later.values()} <= {RuleState.RETIRED}


async def _do(store: RuleStore, number: int, step: tuple[str, int, int], points: list[int]) -> None:
    what, first, second = step
    rules: list[Rule] = sorted(await all_rules(store), key=lambda rule: rule.text)
    chosen = rules[first % len(rules)].id if rules else "none"
    text, vector = f"text {second}", Vectors(random_vector(second))
    try:
        match what:
            case "write":
                await write(store, text, random_vector(second))
            case "patch":
                await store.rules.patch(chosen, text=text, vectors=vector, change=WHO)
            case "retire":
                await store.rules.retire(chosen, change=WHO)
            case "restore":
                await store.rules.restore(chosen, change=WHO)
            case "quarantine":
                await store.rules.quarantine(chosen, change=WHO)
            case "learn":
                await learn(store, f"ep_{number}", draft(text, random_vector(second)))
            case "back":
                await back(store, at(points[first % len(points)]))
    except StoreError:
        pass  # refused, as such a step sometimes must be


# -- many ---------------------------------------------------------------------------------------


async def test_a_thousand_events_are_rolled_back(tmp_path: Path) -> None:
    store = await open_store(tmp_path, capacity=2000)
    await store.namespaces.ensure("default")
    async with store.context.change() as connection:
        for number in range(1000):
            await rule_writes.create(
                connection,
                NewRule("default", POSITIVE, f"rule {number}", "when"),
                Vectors(unit(random_vector(number), DIMENSION), axis(0)),
                MODEL,
                store.context.clock(),
                change=WHO,
            )
    full = await state_of(store)
    done = await store.history.roll_back("default", at(1), change=WHO)
    assert len(done.changes) == 1000
    assert not store.has_rules("default")
    undone = await store.history.roll_back("default", at(done.before_event), change=WHO)
    assert len(undone.changes) == 1000
    assert await state_of(store) == full
    (nearest,) = store.search("default", random_vector(7), POSITIVE, 1).hits
    assert nearest.text == "rule 7"
    assert (await store.parity()).ok
    await store.close()
