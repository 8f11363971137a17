"""Pruning by each policy, the preview that is kept to or refused, and merging."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rules_store.errors import (
    InvalidTransition,
    PreviewOutdated,
    UnknownNamespace,
    UnknownRule,
    VersionConflict,
)
from rules_store.models.events import Change
from rules_store.models.rules import Rule, RuleState, Vectors
from rules_store.operations.curation import PruneOrder, PrunePlan, PrunePolicy
from rules_store.operations.exchange import IncomingRule
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    NEGATIVE,
    POSITIVE,
    Clock,
    all_rules,
    axis,
    between,
    exposure,
    random_vector,
    write,
)

BY = Change("keeper", "tidy")


def order(policy: str, **more: Any) -> PruneOrder:
    return PruneOrder("default", PrunePolicy(policy), **more)


async def texts(store: RuleStore, state: RuleState = RuleState.ACTIVE) -> set[str]:
    return {rule.text for rule in await all_rules(store, state=state)}


async def four(store: RuleStore, clock: Clock) -> list[Rule]:
    made = []
    for number, text in enumerate(("first", "second", "third", "fourth")):
        made.append(await write(store, text, axis(number)))
        clock.forward(86_400)
    return made


async def test_fifo_retires_the_oldest_and_says_so(store: RuleStore, clock: Clock) -> None:
    first, second, *_ = await four(store, clock)
    done = await store.curation.prune(order("fifo", keep=2), change=BY)
    assert [victim.rule.id for victim in done.victims] == [first.id, second.id]
    assert done.active == 4
    assert await texts(store) == {"third", "fourth"}
    (_, event) = await store.rules.events(first.id)
    assert (event.kind, event.actor) == ("rule.retired", "keeper")
    assert event.reason == "tidy; pruned (fifo): among the oldest"
    assert (await store.rules.get(first.id)).reason == "pruned (fifo): among the oldest"
    assert (await store.parity()).ok
    assert store.rules_indexed == 2


async def test_age_retires_what_is_older(store: RuleStore, clock: Clock) -> None:
    await four(store, clock)  # 4, 3, 2 and 1 days old
    await store.curation.prune(order("age", older_than_days=2.5), change=BY)
    assert await texts(store) == {"third", "fourth"}


async def test_utility_retires_what_is_used_least(store: RuleStore, clock: Clock) -> None:
    first, second, third, _ = await four(store, clock)
    await begin_and_expose(store, [first.id, third.id])
    done = await store.curation.prune(order("utility", keep=2), change=BY)
    assert [victim.rule.text for victim in done.victims] == ["second", "fourth"]
    assert done.victims[0].reason == "used 0 times, learned 1 times"
    assert second.id == done.victims[0].rule.id


async def begin_and_expose(store: RuleStore, ids: list[str]) -> None:
    await store.episodes.begin("e", namespace="default", mode="steer", question="?", model="m")
    await store.episodes.finish(
        "e", answer="4", trace={}, reason="a test", exposures=[exposure(id) for id in ids]
    )


async def test_similarity_retires_one_of_a_pair_then_the_oldest(store: RuleStore) -> None:
    await write(store, "alone", axis(0))
    await write(store, "a pair", axis(1))
    await write(store, "its twin", between(1, 2, 0.99))
    done = await store.curation.prune(order("similarity", keep=2), change=BY)
    assert [victim.rule.text for victim in done.victims] == ["a pair"]
    done = await store.curation.prune(order("similarity", keep=0), change=BY)
    assert len(done.victims) == 2
    assert "with nothing to compare" in done.victims[-1].reason


@pytest.mark.parametrize("policy", ["fifo", "similarity", "utility"])
async def test_a_plan_changes_nothing_and_is_kept_to(
    store: RuleStore, clock: Clock, policy: str
) -> None:
    await four(store, clock)
    last = (await store.stats()).last_event
    plan = await store.curation.plan_prune(order(policy, keep=1))
    assert (await store.stats()).last_event == last
    assert len(await texts(store)) == 4
    done = await store.curation.prune(order(policy, keep=1), token=plan.token, change=BY)
    assert done == plan
    assert await texts(store, RuleState.RETIRED) == {v.rule.text for v in plan.victims}


async def test_a_plan_that_was_overtaken_is_refused_whole(store: RuleStore, clock: Clock) -> None:
    first, *_ = await four(store, clock)
    asked = order("fifo", keep=2)
    for change in ("added", "reworded"):
        plan = await store.curation.plan_prune(asked)
        if change == "added":
            await write(store, "fifth", axis(5))
        else:
            await store.rules.patch(first.id, domain="math", change=BY)
        last = (await store.stats()).last_event
        with pytest.raises(PreviewOutdated):
            await store.curation.prune(asked, token=plan.token, change=BY)
        assert (await store.stats()).last_event == last
    with pytest.raises(PreviewOutdated):
        await store.curation.prune(order("fifo", keep=3), token=plan.token, change=BY)


def after_next_plan(store: RuleStore, monkeypatch: pytest.MonkeyPatch, *rules: Rule) -> None:
    """Between the plan of the next prune and its deed somebody else retires these."""
    plan, left = store.curation.plan_prune, list(rules)

    async def overtaken(asked: PruneOrder) -> PrunePlan:
        made = await plan(asked)
        while left:
            await store.rules.retire(left.pop().id, change=BY)
        return made

    monkeypatch.setattr(store.curation, "plan_prune", overtaken)


@pytest.mark.parametrize("policy", ["fifo", "similarity", "utility"])
async def test_as_many_stay_as_asked_for_also_when_others_are_retired_meanwhile(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    made = {rule.id: rule for rule in await four(store, clock)}
    gone = {
        victim.rule.id
        for victim in (await store.curation.plan_prune(order(policy, keep=2))).victims
    }
    spared = next(rule for id, rule in made.items() if id not in gone)
    after_next_plan(store, monkeypatch, spared)
    done = await store.curation.prune(order(policy, keep=2), change=BY)
    assert len(done.victims) == 1
    assert len(await texts(store)) == 2


async def test_a_shown_plan_is_refused_when_others_are_retired_meanwhile(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = await four(store, clock)
    plan = await store.curation.plan_prune(order("fifo", keep=2))
    after_next_plan(store, monkeypatch, last)
    with pytest.raises(PreviewOutdated):
        await store.curation.prune(order("fifo", keep=2), token=plan.token, change=BY)
    assert await texts(store) == {"first", "second", "third"}


async def test_by_age_all_go_that_are_old_however_few_are_left(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = await four(store, clock)
    after_next_plan(store, monkeypatch, last)
    await store.curation.prune(order("age", older_than_days=1.5), change=BY)
    assert await texts(store) == set()


async def test_pruning_nothing_and_nowhere(store: RuleStore) -> None:
    await write(store, "only", axis(0))
    assert (await store.curation.prune(order("fifo", keep=5), change=BY)).victims == ()
    with pytest.raises(UnknownNamespace):
        await store.curation.plan_prune(PruneOrder("nowhere", PrunePolicy.FIFO, keep=1))


@pytest.mark.parametrize(
    ("policy", "more"),
    [
        ("fifo", {}),
        ("fifo", {"keep": 1, "older_than_days": 2}),
        ("age", {"keep": 1}),
        ("age", {}),
        ("utility", {"keep": -1}),
        ("age", {"older_than_days": -1}),
    ],
)
def test_an_order_that_makes_no_sense(policy: str, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="keep"):
        order(policy, **more)


async def test_only_active_rules_of_the_namespace_are_pruned(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    await write(store, "elsewhere", axis(0), namespace="other")
    await write(store, "refused", axis(1), state=RuleState.QUARANTINED)
    await write(store, "here", axis(2))
    await store.curation.prune(order("fifo", keep=0), change=BY)
    assert await texts(store) == {"elsewhere"}
    assert await texts(store, RuleState.QUARANTINED) == {"refused"}


async def test_merging_sums_frequency_and_retires_the_others(store: RuleStore) -> None:
    into = await write(store, "kept", axis(0))
    others = [await write(store, f"other {n}", axis(n)) for n in (1, 2)]
    merged = await store.curation.merge(into.id, [rule.id for rule in others], change=BY)
    assert (merged.frequency, merged.version) == (3, 2)
    assert await store.rules.get(into.id) == merged
    for rule in others:
        now = await store.rules.get(rule.id)
        assert (now.state, now.reason) == (RuleState.RETIRED, f"merged into {into.id}")
        event = (await store.rules.events(rule.id))[-1]
        assert event.reason == f"tidy; merged into {into.id}"
        assert event.before is not None
        assert event.before["state"] == "active"
    assert [event.kind for event in await store.rules.events(into.id)][-1] == "rule.merged"
    assert store.rules_indexed == 1
    assert (await store.parity()).ok


async def test_a_merged_frequency_stays_within_the_column(store: RuleStore) -> None:
    into = await write(store, "kept", axis(0))
    full = replace(into, id="rule_full", text="full", frequency=2**31 - 1)
    await store.exchange.import_rules([IncomingRule(full, Vectors(axis(1)))], change=BY)
    assert (await store.curation.merge(into.id, ["rule_full"], change=BY)).frequency == 2**31 - 1
    assert (await store.rules.get(into.id)).frequency == 2**31 - 1


async def test_merging_is_refused_whole(store: RuleStore) -> None:
    into = await write(store, "kept", axis(0))
    good = await write(store, "good", axis(1))
    negative = await write(store, "bad", axis(2), polarity=NEGATIVE)
    await store.namespaces.ensure("other")
    elsewhere = await write(store, "good", axis(1), namespace="other")
    gone = await write(store, "gone", axis(3))
    await store.rules.retire(gone.id, change=BY)
    for other, error in (
        (negative.id, InvalidTransition),
        (elsewhere.id, InvalidTransition),
        (gone.id, InvalidTransition),
        ("rule_none", UnknownRule),
    ):
        with pytest.raises(error):
            await store.curation.merge(into.id, [good.id, other], change=BY)
    with pytest.raises(VersionConflict):
        await store.curation.merge(into.id, [good.id], expected={good.id: 7}, change=BY)
    for others in ([], [into.id], [good.id, good.id]):
        with pytest.raises(ValueError, match="once"):
            await store.curation.merge(into.id, others, change=BY)
    assert await store.rules.get(into.id) == into
    assert await store.rules.get(good.id) == good


async def test_thousands_of_rules_are_pruned_in_one_go(store: RuleStore, clock: Clock) -> None:
    await store.namespaces.change_settings("default", {"capacity": 20_000}, change=BY)
    made = [
        IncomingRule(
            Rule(
                id=f"rule_{n}",
                namespace="default",
                polarity=POSITIVE,
                state=RuleState.ACTIVE,
                text=f"Rule number {n}.",
                trigger="",
                domain="default",
                frequency=1,
                exposures=0,
                source_episode=None,
                version=1,
                reason=None,
                created_at=clock.now + timedelta(seconds=n),
                updated_at=clock.now,
            ),
            Vectors(random_vector(n)),
        )
        for n in range(3000)
    ]
    await store.exchange.import_rules(made, change=BY)
    done = await store.curation.prune(order("fifo", keep=10), change=BY)
    assert len(done.victims) == 2990
    assert store.rules_indexed == 10
    assert (await store.parity()).ok


async def test_quarantine_is_left_by_release_or_rejection(store: RuleStore) -> None:
    one = await write(store, "one", axis(0), state=RuleState.QUARANTINED)
    two = await write(store, "two", axis(1), state=RuleState.QUARANTINED)
    with pytest.raises(VersionConflict):
        await store.rules.release(one.id, expected_version=4, change=BY)
    assert (await store.rules.release(one.id, change=BY)).state is RuleState.ACTIVE
    assert (await store.rules.reject(two.id, change=BY)).state is RuleState.RETIRED
    assert store.rules_indexed == 1
    for rule, kind in ((one, "rule.released"), (two, "rule.rejected")):
        assert (await store.rules.events(rule.id))[-1].kind == kind
        with pytest.raises(InvalidTransition):
            await store.rules.release(rule.id, change=BY)
        with pytest.raises(InvalidTransition):
            await store.rules.reject(rule.id, change=BY)
