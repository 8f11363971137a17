"""The control group's ledger: what counts, the guard, the default schedule, its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from rules_store.errors import UnknownNamespace
from rules_store.models.effect import Assignment, Purpose, Served
from rules_store.models.episodes import PLAYGROUND
from rules_store.models.events import Change, EventFilter
from rules_store.models.evidence import Findings, Outcome, Signal
from rules_store.models.feedback import NewFeedback, Teaching
from rules_store.models.jobs import Spend
from rules_store.models.keys import ADMIN
from rules_store.operations.effect import RESUMED, SHARE_CHANGED, SUSPENDED
from rules_store.policy import control
from rules_store.policy.control import Arm, conversation_of, draw
from rules_store.policy.effect import EffectVerdict
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, open_store

KIM = Change("kim", "seen")
TELLER = "environment-1"
"""Whose word every outcome is."""


async def answer(
    store: RuleStore,
    name: str,
    arm: Arm,
    *,
    share: float = 0.5,
    conversation: str | None = None,
    offered: bool = True,
    value: float | None = None,
    signal: Signal = Signal.LABEL,
    namespace: str = "default",
) -> None:
    """One answered request, and the outcome that was told of it."""
    await store.episodes.begin(name, namespace=namespace, mode="steer", question="Q", model="m")
    drawn = Assignment(arm, share, conversation or conversation_of(namespace, name))
    served = Served(drawn, offered, 20.0, 100, 10, 40 if arm is Arm.STEERED else 0)
    await store.episodes.finish(name, answer="A", trace={}, served=served)
    if value is not None:
        await tell(store, name, value, signal)


async def tell(
    store: RuleStore,
    name: str,
    value: float,
    signal: Signal = Signal.LABEL,
    key: str | None = None,
    teller: str = TELLER,
) -> None:
    new = NewFeedback(score=value, key=key)
    teaching = Teaching(learns=True, outcome=Outcome(signal, value))
    await store.evidence.add_feedback(name, new, teaching, key_id=teller)


async def many(
    store: RuleStore, count: int, *, control: float, steered: float, teller: str = TELLER
) -> None:
    """Requests in turns of the arms; of each arm the first so many parts in ten are right."""
    for at in range(count):
        arm, right = ((Arm.CONTROL, control), (Arm.STEERED, steered))[at % 2]
        value = float((at // 2 * 7) % 10 < 10 * right)
        name = f"{teller}-ep{at}"
        await answer(store, name, arm)
        await tell(store, name, value, teller=teller)


async def test_outcomes_are_counted_by_arm_and_signal(store: RuleStore) -> None:
    await answer(store, "a", Arm.CONTROL, value=0.0)
    await answer(store, "b", Arm.STEERED, value=1.0)
    await tell(store, "b", 0.5, Signal.CLIENT)
    await answer(store, "c", Arm.STEERED)
    report = await store.effect.report("default")
    use = report.by_arm
    assert (use[Arm.CONTROL].requests, use[Arm.STEERED].requests) == (1, 2)
    assert use[Arm.STEERED].prompt_tokens == 100
    assert use[Arm.STEERED].milliseconds == 20
    label, client = report.signals
    assert (label.signal, client.signal) == (Signal.LABEL, Signal.CLIENT)
    assert label.by_arm[Arm.STEERED].outcomes == 1
    assert label.by_arm[Arm.CONTROL].mean == 0.0
    assert (label.state.control.count, label.state.steered.count) == (1, 1)
    assert (client.state.control.count, client.state.steered.total) == (0, 0.5)
    assert report.verdict is EffectVerdict.UNKNOWN


@pytest.mark.sqlite
async def test_of_a_conversation_the_first_outcome_counts(store: RuleStore) -> None:
    await answer(store, "a", Arm.STEERED, conversation="0" * 16, value=1.0)
    await answer(store, "b", Arm.STEERED, conversation="0" * 16, value=0.0)
    await tell(store, "a", 0.0)
    (label,) = (await store.effect.report("default")).signals
    assert (label.state.steered.count, label.state.steered.total) == (1, 1.0)
    # The ledger has what was told last, of both.
    assert label.by_arm[Arm.STEERED].outcomes == 2
    assert label.by_arm[Arm.STEERED].mean == 0.0


@pytest.mark.sqlite
async def test_what_nothing_could_be_given_to_counts_for_nothing(store: RuleStore) -> None:
    await answer(store, "a", Arm.STEERED, offered=False, value=1.0)
    await answer(store, "b", Arm.STEERED, share=0.0, value=1.0)
    report = await store.effect.report("default")
    assert report.signals == ()
    assert report.by_arm[Arm.STEERED].requests == 2
    assert report.by_arm[Arm.STEERED].offered == 1


@pytest.mark.sqlite
async def test_an_exploration_has_its_own_signal(store: RuleStore) -> None:
    await store.episodes.begin("a", namespace="default", mode="explore", question="Q", model="m")
    drawn = Assignment(Arm.CONTROL, 0.5, "0" * 16)
    found = Findings(Outcome(Signal.AGREEMENT, 0.75))
    served = Served(drawn, True, 1.0)
    await store.episodes.finish("a", answer="A", trace={}, served=served, findings=found)
    report = await store.effect.report("default")
    assert [each.signal for each in report.signals] == [Signal.AGREEMENT]
    assert report.signals[0].state.control.total == 0.75
    # Agreement is no proof: no verdict goes by it.
    assert report.leading is None


@pytest.mark.sqlite
async def test_help_is_found_and_harm_suspends(store: RuleStore) -> None:
    await many(store, 60, control=0.0, steered=1.0)
    report = await store.effect.report("default")
    assert report.verdict is EffectVerdict.HELPS
    assert report.suspension is None
    points = report.signals[0].points
    assert points[0].conversations == 1
    assert points[-1].conversations == 60
    assert 10 < len(points) < 50
    assert points[-1].low > 0


async def test_a_suspension_ends_with_the_word_that_it_stood_on(store: RuleStore) -> None:
    await many(store, 40, control=1.0, steered=0.0)
    await store.keys.withdraw("anyone", change=KIM)
    assert store.effect.suspension_of("default") is not None
    await store.keys.withdraw(TELLER, change=KIM)
    assert store.effect.suspension_of("default") is None
    assert (await store.effect.report("default")).signals == ()
    found = await store.history.events(EventFilter(namespace="default", kind=RESUMED))
    assert [each.actor for each in found.items] == ["kim"]


@pytest.fixture
async def shared(tmp_path: Path, clock: Clock) -> AsyncIterator[RuleStore]:
    """Whose namespaces two keys reach."""
    opened = await open_store(tmp_path, clock=clock, keys_outside=2)
    await opened.namespaces.ensure("default")
    yield opened
    await opened.close()


async def test_no_key_suspends_alone_what_others_reach_too(shared: RuleStore) -> None:
    await many(shared, 60, control=1.0, steered=0.0, teller="hostile")
    assert (await shared.effect.report("default")).verdict is EffectVerdict.HARMS
    assert shared.effect.suspension_of("default") is None
    # One who says the opposite, and says little.
    await many(shared, 10, control=0.0, steered=1.0, teller="honest")
    assert shared.effect.suspension_of("default") is None


async def test_no_key_suspends_with_another_ones_bad_luck(shared: RuleStore) -> None:
    """By chance alone the steered answers of somebody else are the worse ones half of the time."""
    await many(shared, 60, control=1.0, steered=0.0, teller="hostile")
    await many(shared, 20, control=0.6, steered=0.5, teller="honest")
    assert (await shared.effect.report("default")).verdict is EffectVerdict.HARMS
    assert shared.effect.suspension_of("default") is None


async def test_keys_that_agree_suspend(shared: RuleStore) -> None:
    await many(shared, 60, control=1.0, steered=0.0, teller="one")
    assert shared.effect.suspension_of("default") is None
    await many(shared, 30, control=1.0, steered=0.0, teller="another")
    assert shared.effect.suspension_of("default") is not None


async def test_an_operators_word_suspends(shared: RuleStore) -> None:
    await many(shared, 60, control=1.0, steered=0.0, teller=ADMIN)
    assert shared.effect.suspension_of("default") is not None


async def test_harm_suspends_until_somebody_resumes(store: RuleStore) -> None:
    await many(store, 40, control=1.0, steered=0.0)
    suspension = store.effect.suspension_of("default")
    assert suspension is not None
    assert suspension.high < 0
    assert suspension.signal is Signal.LABEL
    report = await store.effect.report("default")
    assert report.verdict is EffectVerdict.HARMS
    assert report.suspension == suspension
    found = await store.history.events(EventFilter(namespace="default", kind=SUSPENDED))
    assert found.total == 1
    assert found.items[0].actor == "guard"
    assert "harms by label" in found.items[0].reason
    resumed = await store.effect.resume("default", change=KIM)
    assert resumed.suspension is None
    assert store.effect.suspension_of("default") is None
    # What was known is begun anew: the next outcome does not suspend it again.
    await answer(store, "later", Arm.STEERED, value=0.0)
    assert store.effect.suspension_of("default") is None
    (label,) = (await store.effect.report("default")).signals
    assert label.state.count == 1
    await store.effect.resume("default", change=KIM)
    assert (await store.history.events(EventFilter(kind=RESUMED))).total == 1


@pytest.mark.sqlite
async def test_guard_can_be_off_or_bear_some_harm(store: RuleStore) -> None:
    await store.namespaces.change_settings("default", {"guard_margin": 1.0}, change=KIM)
    await many(store, 40, control=1.0, steered=0.0)
    assert store.effect.suspension_of("default") is None
    await store.namespaces.change_settings(
        "default", {"guard": False, "guard_margin": 0.0}, change=KIM
    )
    await answer(store, "more", Arm.STEERED, value=0.0)
    assert store.effect.suspension_of("default") is None
    await store.namespaces.change_settings("default", {"guard": True}, change=KIM)
    await answer(store, "last", Arm.STEERED, value=0.0)
    assert store.effect.suspension_of("default") is not None


@pytest.mark.sqlite
async def test_resumed_by_time(store: RuleStore, clock: Clock) -> None:
    await store.namespaces.change_settings("default", {"resume_after": 2}, change=KIM)
    await many(store, 40, control=1.0, steered=0.0)
    assert await store.effect.review() == []
    clock.forward(2 * 3600)
    # A clock that was set ahead waits for that much time to pass.
    assert await store.effect.review(clock() - timedelta(hours=1)) == []
    (done,) = await store.effect.review()
    assert done.resumed
    assert store.effect.suspension_of("default") is None


@pytest.mark.sqlite
async def test_default_schedule(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "WARM_UP", 8)
    monkeypatch.setattr(control, "LEAST_OUTCOMES", 4)
    assert store.effect.rate_of("default") == "auto"
    assert store.effect.share_of("default") == 0.0
    for at in range(control.WARM_UP - 1):
        await answer(store, f"ep{at}", Arm.STEERED, share=0.0)
    await store.effect.review()
    assert store.effect.share_of("default") == 0.0
    await answer(store, "last", Arm.STEERED, share=0.0)
    await store.effect.review()
    assert store.effect.share_of("default") == control.RESTING
    for at in range(control.LEAST_OUTCOMES):
        await tell(store, f"ep{at}", 1.0)
    await store.effect.review()
    assert store.effect.share_of("default") == control.MEASURING
    assert await store.effect.review() == []
    clock.forward((control.RECENT_DAYS + 1) * 86_400)
    await store.effect.review()
    assert store.effect.share_of("default") == control.RESTING
    found = await store.history.events(EventFilter(kind=SHARE_CHANGED))
    assert found.total == 3
    await store.namespaces.change_settings("default", {"control_rate": 0.5}, change=KIM)
    assert store.effect.share_of("default") == 0.5


@pytest.mark.sqlite
async def test_a_verdict_ends_measuring(store: RuleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "WARM_UP", 8)
    await many(store, 40, control=0.0, steered=1.0)
    await store.effect.review()
    assert store.effect.share_of("default") == control.RESTING


async def test_two_processes_draw_the_same(tmp_path: Path, store: RuleStore) -> None:
    other = await open_store(tmp_path)
    try:
        await store.namespaces.change_settings("default", {"control_rate": 0.3}, change=KIM)
        await other.context.caches.catch_up()
        drawn = [store.effect.assign("default", f"conversation {n}") for n in range(1000)]
        assert drawn == [other.effect.assign("default", f"conversation {n}") for n in range(1000)]
        assert 250 < sum(each.arm is Arm.CONTROL for each in drawn) < 350
        await many(store, 40, control=1.0, steered=0.0)
        await other.context.caches.catch_up()
        assert other.effect.suspension_of("default") == store.effect.suspension_of("default")
        assert other.effect.suspension_of("default") is not None
    finally:
        await other.close()


async def test_deleting_a_namespace_deletes_its_ledger(store: RuleStore) -> None:
    await many(store, 20, control=0.5, steered=0.5)
    await store.jobs.record_spend("default", Spend(3, 400))
    exported = [row["table"] async for row in store.namespaces.export("default")]
    kept = {"arms", "effects", "effect_points", "judged_conversations", "spend_days"}
    assert kept <= set(exported)
    await store.namespaces.delete("default", change=KIM)
    with pytest.raises(UnknownNamespace):
        await store.effect.report("default")
    await store.namespaces.ensure("default")
    report = await store.effect.report("default")
    assert report.by_arm == {}
    assert report.signals == ()
    assert await store.effect.spend("default") == []


async def test_retention_takes_requests_and_keeps_what_they_add_up_to(
    store: RuleStore, clock: Clock
) -> None:
    await answer(store, "a", Arm.STEERED, value=1.0)
    await store.namespaces.change_settings("default", {"retention_days": 3}, change=KIM)
    clock.forward(4 * 86_400)
    assert await store.episodes.expire() == 1
    report = await store.effect.report("default")
    assert report.by_arm == {}
    assert report.signals[0].state.steered.count == 1


async def test_spend_by_day_and_purpose(store: RuleStore, clock: Clock) -> None:
    await answer(store, "a", Arm.STEERED)
    await store.jobs.record_spend("default", Spend(1, 300))
    clock.forward(86_400)
    await store.jobs.record_spend("default", Spend(1, 200))
    await store.jobs.record_spend("default", Spend(1, 250))
    first, second = await store.effect.spend("default")
    assert (first.calls, first.tokens) == ({Purpose.REPLAY: 1}, {Purpose.REPLAY: 300})
    assert (first.steered_requests, first.experience_tokens) == (1, 40)
    assert second.tokens == {Purpose.REPLAY: 450}
    assert second.day > first.day
    assert [each.day for each in await store.effect.spend("default", days=1)] == [second.day]


def test_the_draw_is_of_namespace_and_conversation() -> None:
    assert conversation_of("a", "bc") != conversation_of("ab", "c")
    assert draw("0" * 16, 0.0) is Arm.STEERED
    assert draw("f" * 16, 1.0) is Arm.CONTROL
    lower, higher = (
        {n for n in range(500) if draw(conversation_of("n", str(n)), share) is Arm.CONTROL}
        for share in (0.05, 0.25)
    )
    # A share that falls moves nobody into control.
    assert lower < higher


# -- traffic


async def test_traffic_is_added_up_by_day_and_within_some_namespaces(
    store: RuleStore, clock: Clock
) -> None:
    await store.namespaces.ensure("other")
    await answer(store, "a", Arm.STEERED, value=1.0)
    await answer(store, "b", Arm.CONTROL, value=0.0, namespace="other")
    await store.episodes.begin(
        "looked at", namespace="default", mode="steer", question="Q", model="m"
    )
    await store.episodes.finish("looked at", answer="A", trace={}, reason=PLAYGROUND)
    await answer(store, "elsewhere", Arm.STEERED, namespace="other")
    clock.forward(24 * 3600)
    await answer(store, "c", Arm.STEERED)
    days = await store.effect.traffic(days=3)
    assert [day.requests for day in days] == [0, 3, 1]
    first, second = days[1:]
    assert (first.steered, first.experience_tokens, first.prompt_tokens) == (2, 80, 300)
    assert (first.measured, first.milliseconds, first.completion_tokens) == (3, 60.0, 30)
    assert (second.steered, second.learning_calls, second.good) == (1, 0, 0)
    own = await store.effect.traffic(days=2, within=["default"])
    assert [day.requests for day in own] == [1, 1]
    assert await store.effect.traffic(days=1, within=[]) != days


async def test_traffic_counts_what_feedback_found(store: RuleStore) -> None:
    await answer(store, "a", Arm.STEERED)
    await answer(store, "b", Arm.STEERED)
    for name, right in (("a", True), ("b", False)):
        await store.evidence.add_feedback(
            name, NewFeedback(verified=right), Teaching(learns=True, right=right), key_id=TELLER
        )
    (today,) = await store.effect.traffic(days=1)
    assert (today.good, today.bad) == (1, 1)
