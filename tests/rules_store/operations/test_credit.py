"""Outcomes, trials and what they make of rules."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from rules_store.errors import UnknownEpisode
from rules_store.models.events import Change
from rules_store.models.evidence import (
    Findings,
    LinkKind,
    Outcome,
    Precedent,
    Reference,
    Signal,
    Trial,
)
from rules_store.models.feedback import NewFeedback, Teaching
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleState
from rules_store.operations.exchange import IncomingRule
from rules_store.operations.trials import DEMOTED, PROMOTED, REFUTED, SUPERSEDED
from rules_store.policy.contradiction import contradict
from rules_store.policy.gate import Verdict
from rules_store.policy.lift import UNKNOWN_LIFT, Tally, lift, retention
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    Clock,
    axis,
    begin,
    between,
    draft,
    exposure,
    learn,
    write,
)

WHO = Change("kim", "a test")
CANDIDATE, ACTIVE, RETIRED = RuleState.CANDIDATE, RuleState.ACTIVE, RuleState.RETIRED


async def episode(store: RuleStore, name: str, *rules: Rule, withheld: Rule | None = None) -> None:
    await begin(store, name)
    shown = [exposure(rule.id, place) for place, rule in enumerate(rules)]
    if withheld is not None:
        shown.append(exposure(withheld.id, None))
    await store.episodes.finish(name, answer="4", trace={}, exposures=shown)


async def imported(store: RuleStore, rule: Rule) -> Rule:
    """A copy under another text, as an import brings it: active, and vouched for by nobody."""
    new = IncomingRule(
        Rule(**{**_fields(rule), "id": f"{rule.id}-copy", "text": f"{rule.text} too"}),
        await _vectors(rule),
    )
    done = await store.exchange.import_rules([new], change=WHO)
    assert done.outcomes[0] is not None
    return await store.rules.get(done.outcomes[0])


def _fields(rule: Rule) -> dict[str, object]:
    return {name: getattr(rule, name) for name in Rule.__dataclass_fields__}


async def _vectors(rule: Rule) -> object:
    from rules_store.models.rules import Vectors

    return Vectors(text=axis(7))


def trial(number: int, effect: int) -> Trial:
    with_rule, without = {1: (1.0, 0.0), -1: (0.0, 1.0), 0: (1.0, 1.0)}[effect]
    return Trial(f"ep-{number}", with_rule, without, Reference.CONSENSUS)


async def try_out(store: RuleStore, rule: Rule, *effects: int, start: int = 0) -> list[str | None]:
    kinds = []
    for number, effect in enumerate(effects, start):
        kinds.append((await store.evidence.record_trial(rule, trial(number, effect))).kind)
    return kinds


# -- formulas


def test_lift_is_the_difference_of_two_posterior_means() -> None:
    found = lift(Tally(8, 2), Tally(3, 7))
    assert found.mean == pytest.approx(9 / 12 - 4 / 12)
    variances = 9 / 12 * 3 / 12 / 13 + 4 / 12 * 8 / 12 / 13
    assert found.deviation == pytest.approx(variances**0.5)
    assert UNKNOWN_LIFT.mean == 0
    assert UNKNOWN_LIFT.low < -0.7 < 0.7 < UNKNOWN_LIFT.high


def test_half_of_the_weight_is_left_after_a_half_life(clock: Clock) -> None:
    later = clock() + timedelta(days=30)
    assert retention(clock(), later, 30) == pytest.approx(0.5)
    assert retention(later, clock(), 30) == pytest.approx(2.0)
    assert 0 < retention(clock(), clock() + timedelta(days=300_000), 1) < 1e-17


# -- outcomes


async def test_outcomes_are_credited_to_injected_and_withheld_rules(store: RuleStore) -> None:
    one, two = await write(store, "one", axis(0)), await write(store, "two", axis(1))
    await episode(store, "ep_1", one, withheld=two)
    await store.evidence.record_outcome("ep_1", Outcome(Signal.VERIFIER, 1.0))
    await store.catch_up()
    shown, left_out = store.evidence.standing_of(one.id), store.evidence.standing_of(two.id)
    assert shown is not None
    assert left_out is not None
    assert (shown.with_rule, shown.without_rule.size) == (Tally(1.0, 0.0), 0)
    assert (left_out.without_rule, left_out.with_rule.size) == (Tally(1.0, 0.0), 0)
    assert shown.lift.mean > 0 > left_out.lift.mean
    assert (await store.rules.get(one.id)).exposures == 1
    assert (await store.rules.get(two.id)).exposures == 0


async def test_the_strongest_signal_counts_and_only_once(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0))
    await episode(store, "ep_1", rule)
    for outcome, expected in (
        (Outcome(Signal.AGREEMENT, 1.0), Tally(0.25, 0.0)),
        (Outcome(Signal.AGREEMENT, 1.0), Tally(0.25, 0.0)),
        (Outcome(Signal.LABEL, 0.0), Tally(0.0, 1.0)),
        (Outcome(Signal.CLIENT, 1.0), Tally(0.0, 1.0)),
        (Outcome(Signal.VERIFIER, 1.0), Tally(1.0, 0.0)),
    ):
        await store.evidence.record_outcome("ep_1", outcome)
        found = (await store.evidence.standings_of([rule.id]))[rule.id].with_rule
        assert (found.hits, found.misses) == pytest.approx((expected.hits, expected.misses))
    evidence = await store.evidence.of_rule(rule.id)
    assert [(e.source, e.value) for e in evidence.exposures] == [(Signal.VERIFIER, 1.0)]
    with pytest.raises(UnknownEpisode):
        await store.evidence.record_outcome("nowhere", Outcome(Signal.CLIENT, 1.0))


async def test_evidence_fades(store: RuleStore, clock: Clock) -> None:
    rule = await write(store, "one", axis(0))
    await episode(store, "ep_1", rule)
    await store.evidence.record_outcome("ep_1", Outcome(Signal.VERIFIER, 1.0))
    clock.forward(30 * 86_400)
    await episode(store, "ep_2", rule)
    await store.evidence.record_outcome("ep_2", Outcome(Signal.VERIFIER, 0.0))
    found = (await store.evidence.standings_of([rule.id]))[rule.id].with_rule
    assert (found.hits, found.misses) == pytest.approx((0.5, 1.0))


async def test_feedback_carries_its_outcome_and_its_label(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0))
    await episode(store, "ep_1", rule)
    given = NewFeedback(label="7", key="k")
    for _ in range(2):
        await store.evidence.add_feedback(
            "ep_1", given, Teaching(learns=True, outcome=Outcome(Signal.LABEL, 0.0))
        )
    assert (await store.evidence.standings_of([rule.id]))[rule.id].with_rule == Tally(0.0, 1.0)


async def test_another_namespaces_rule_gets_no_credit(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    foreign = await write(store, "x", axis(0), namespace="other")
    await episode(store, "ep_1", foreign)
    await store.evidence.record_outcome("ep_1", Outcome(Signal.VERIFIER, 0.0))
    assert not (await store.evidence.standings_of([foreign.id]))[foreign.id].measured


# -- the gate


async def test_a_candidate_that_helps_is_promoted(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0), state=CANDIDATE)
    assert not store.has_rules("default")
    assert await try_out(store, rule, 1, 0, 1, 0, 1) == [None, None, None, None, PROMOTED]
    assert (await store.rules.get(rule.id)).state is ACTIVE
    assert store.has_rules("default")
    standing = store.evidence.standing_of(rule.id)
    assert standing is not None
    assert (standing.proven, standing.verdict, standing.tried) == (True, Verdict.HELPFUL, 0)
    event = (await store.rules.events(rule.id))[-1]
    assert (event.kind, event.actor) == (PROMOTED, "gate")
    assert "helped 3 and harmed 0 times in 5 replays" in event.reason


async def test_a_candidate_that_harms_or_does_nothing_is_refuted(store: RuleStore) -> None:
    harmful = await write(store, "one", axis(0), state=CANDIDATE)
    idle = await write(store, "two", axis(1), state=CANDIDATE)
    assert (await try_out(store, harmful, -1, -1, -1))[-1] == REFUTED
    assert (await try_out(store, idle, *[0] * 48))[-1] == REFUTED
    for rule in (harmful, idle):
        assert (await store.rules.get(rule.id)).state is RETIRED


async def test_the_same_trial_counts_once_and_of_these_words_only(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0), state=CANDIDATE)
    for _ in range(5):
        await store.evidence.record_trial(rule, trial(1, 1))
    assert (await store.evidence.standings_of([rule.id]))[rule.id].tried == 1
    reworded = await store.rules.patch(
        rule.id, text="another", vectors=await _vectors(rule), change=WHO
    )
    assert not (await store.evidence.standings_of([rule.id]))[rule.id].measured
    await store.evidence.record_trial(rule, trial(2, 1))
    assert not (await store.evidence.standings_of([rule.id]))[rule.id].measured
    await store.evidence.record_trial(reworded, trial(1, -1))
    await store.rules.restore(rule.id, version=1, vectors=await _vectors(rule), change=WHO)
    standing = (await store.evidence.standings_of([rule.id]))[rule.id]
    assert (standing.helped, standing.harmed, standing.tried) == (1, 0, 1)


async def test_a_frozen_namespace_is_not_judged(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0), state=CANDIDATE)
    await store.namespaces.freeze("default", change=WHO)
    await try_out(store, rule, 1, 1, 1)
    assert (await store.rules.get(rule.id)).state is CANDIDATE
    assert (await store.evidence.of_rule(rule.id)).trials == []


async def test_who_waits_for_trials(store: RuleStore) -> None:
    by_hand = await write(store, "by hand", axis(0))
    brought = await imported(store, by_hand)
    first = await write(store, "first", axis(1), state=CANDIDATE)
    second = await write(store, "second", axis(2), state=CANDIDATE)
    await try_out(store, first, 0)
    waiting = [each.rule.id for each in await store.evidence.contenders("default")]
    assert waiting == [brought.id, second.id, first.id]


# -- in use


async def test_an_imported_rule_is_on_probation(store: RuleStore) -> None:
    by_hand = await write(store, "by hand", axis(0))
    brought = await imported(store, by_hand)
    for number in range(3):
        await episode(store, f"ep_{number}", by_hand, brought)
        assert await store.evidence.review("default", probation=4) == []
    await episode(store, "ep_4", by_hand, brought)
    (done,) = await store.evidence.review("default", probation=4)
    assert (done.rule_id, done.kind, done.verdict) == (brought.id, DEMOTED, Verdict.USELESS)
    assert (await store.rules.get(brought.id)).state is RETIRED
    assert (await store.rules.get(by_hand.id)).state is ACTIVE
    await store.rules.restore(brought.id, change=WHO)
    assert await store.evidence.review("default", probation=4) == [], "a person wants it"


async def test_harm_in_use_demotes_whoever_vouched(store: RuleStore) -> None:
    rule = await write(store, "by hand", axis(0))
    for number in range(12):
        shown = number % 2 == 0
        await begin(store, f"ep_{number}")
        await store.episodes.finish(
            f"ep_{number}",
            answer="4",
            trace={},
            exposures=[exposure(rule.id, 0 if shown else None)],
        )
        await store.evidence.record_outcome(
            f"ep_{number}", Outcome(Signal.VERIFIER, float(not shown))
        )
    (done,) = await store.evidence.review("default", probation=50)
    assert (done.rule_id, done.verdict) == (rule.id, Verdict.HARMFUL)
    assert (await store.rules.events(rule.id))[-1].kind == DEMOTED


async def test_opposites_are_found_and_settled_by_evidence(store: RuleStore) -> None:
    always = "Always multiply the price by the number of items"
    never = "Do not multiply the price by the number of items"
    old = (await learn(store, "ep_1", draft(always, axis(0), state=CANDIDATE))).learned[0]
    new = (
        await learn(
            store,
            "ep_2",
            draft(never, between(0, 1, 0.9), polarity=Polarity.NEGATIVE, state=CANDIDATE),
        )
    ).learned[0]
    links = (await store.evidence.of_rule(new.rule_id)).links
    assert [(link.kind, link.other) for link in links] == [
        (LinkKind.SOURCE, "ep_2"),
        (LinkKind.CONTRADICTS, old.rule_id),
    ]
    await try_out(store, await store.rules.get(old.rule_id), 1, 1, 0, -1, 1, 1)
    assert (await store.rules.get(old.rule_id)).state is ACTIVE
    await try_out(store, await store.rules.get(new.rule_id), 1, 1, 1)
    assert (await store.rules.get(new.rule_id)).state is ACTIVE
    assert (await store.rules.get(old.rule_id)).state is RETIRED
    assert (await store.rules.events(old.rule_id))[-1].kind == SUPERSEDED


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Round up at the end.", "Do not round up at the end.", True),
        ("Check the units before adding.", "Avoid adding before you check units.", True),
        ("Check the units before adding.", "Do not forget the remainder.", False),
        ("Multiply.", "Do not multiply.", False),
    ],
)
def test_contradictions_by_their_words(one: str, other: str, expected: bool) -> None:
    assert contradict(one, other) is expected


async def test_a_merged_rule_keeps_its_parents_and_their_episodes(store: RuleStore) -> None:
    one = (await learn(store, "ep_1", draft("one", axis(0)))).learned[0]
    two = (await learn(store, "ep_2", draft("two", axis(1)))).learned[0]
    await store.curation.merge(one.rule_id, [two.rule_id], change=WHO)
    links = {(link.kind, link.other) for link in (await store.evidence.of_rule(one.rule_id)).links}
    assert links == {
        (LinkKind.SOURCE, "ep_1"),
        (LinkKind.SOURCE, "ep_2"),
        (LinkKind.PARENT, two.rule_id),
    }


# -- precedents


def precedent(name: str, at: int, *, agreement: float = 0.8, fit: bool = True) -> Precedent:
    return Precedent(name, "default", axis(at), agreement, {"x": 1}, "4", "4" if fit else None)


async def test_precedents_near_a_rule(store: RuleStore) -> None:
    rule = await write(store, "one", axis(0), state=CANDIDATE)
    for name, at, fit in (("ep_1", 0, True), ("ep_2", 0, False), ("ep_3", 1, True)):
        await begin(store, name)
        found = Findings(Outcome(Signal.AGREEMENT, 0.6), precedent(name, at, fit=fit))
        await store.episodes.finish(name, answer="4", trace={}, findings=found)
    await store.catch_up()
    near = await store.evidence.untried_precedents(rule, floor=0.5, limit=5)
    assert [each.episode_id for each in near] == ["ep_1"]
    await store.evidence.record_trial(rule, Trial("ep_1", 1.0, 1.0, Reference.CONSENSUS))
    assert await store.evidence.untried_precedents(rule, floor=0.5, limit=5) == []
    neighbours = store.evidence.near_precedents("default", axis(0), floor=0.5, k=5)
    assert {each.episode_id for each in neighbours} == {"ep_1", "ep_2"}
    assert store.evidence.mean_agreement("default") is None


async def test_deletion_takes_all_of_it_and_retention_what_has_text(
    store: RuleStore, clock: Clock
) -> None:
    rule = await write(store, "one", axis(0))
    await begin(store, "ep_1")
    await store.episodes.finish(
        "ep_1",
        answer="4",
        trace={},
        exposures=[exposure(rule.id)],
        findings=Findings(Outcome(Signal.AGREEMENT, 0.6), precedent("ep_1", 0)),
    )
    await store.namespaces.change_settings("default", {"retention_days": 1}, change=WHO)
    clock.forward(2 * 86_400)
    assert await store.episodes.expire() == 1
    assert await store.evidence.untried_precedents(rule, floor=-1, limit=5) == []
    assert len((await store.evidence.of_rule(rule.id)).exposures) == 1
    await store.namespaces.delete("default", change=WHO)
    assert await store.evidence.standings_of([rule.id]) == {}
    assert store.evidence.near_precedents("default", axis(0), floor=-1, k=5) == []


# -- lists


async def test_rules_by_their_lift(store: RuleStore) -> None:
    good, bad = await write(store, "good", axis(0)), await write(store, "bad", axis(1))
    await write(store, "unknown", axis(2))
    for number, (rule, value) in enumerate(((good, 1.0), (bad, 0.0))):
        await episode(store, f"ep_{number}", rule)
        await store.evidence.record_outcome(f"ep_{number}", Outcome(Signal.VERIFIER, value))

    async def found(**bounds: float) -> set[str]:
        page = await store.rules.list(RuleFilter(namespace="default", **bounds))
        return {rule.text for rule in page.items}

    assert await found(min_lift=0.0) == {"good"}
    assert await found(max_lift=0.0) == {"bad"}
    assert await found(min_lift=-1.0) == {"good", "bad"}
    assert np.isfinite(store.options.half_life_days)
