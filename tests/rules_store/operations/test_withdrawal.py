"""What a key has said is bounded while it stands, and gone when it is taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rules_store.errors import UnknownKey
from rules_store.models.events import Change, EventFilter
from rules_store.models.evidence import (
    Findings,
    LinkKind,
    Outcome,
    Precedent,
    Reference,
    Signal,
    Trial,
)
from rules_store.models.examples import ExampleFilter, NewExample, Trust
from rules_store.models.feedback import NewFeedback, Teaching
from rules_store.models.jobs import JobState
from rules_store.models.keys import ADMIN, NewKey, Permission
from rules_store.models.rules import Rule, RuleState
from rules_store.operations import trials, withdrawal
from rules_store.operations.trials import DEMOTED
from rules_store.repository import evidence, links, precedents
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, axis, begin, draft, exposure, open_store, write

WHO = Change("kim", "it lied")
ACTIVE, CANDIDATE, RETIRED = RuleState.ACTIVE, RuleState.CANDIDATE, RuleState.RETIRED
LIAR, HONEST = "environment-1", "environment-2"


@pytest.fixture
async def shared(tmp_path: Path, clock: Clock) -> AsyncIterator[RuleStore]:
    """A store that two keys reach."""
    opened = await open_store(tmp_path, clock=clock, keys_outside=2)
    await opened.namespaces.ensure("default")
    yield opened
    await opened.close()


async def asked(
    store: RuleStore, name: str, key: str | None, *shown: Any, without: Any = None
) -> None:
    await begin(store, name, key_id=key)
    exposures = [exposure(each.id, place) for place, each in enumerate(shown)]
    if without is not None:
        exposures.append(exposure(without.id, None))
    given = {"chosen": "rules", "offered": ["none", "rules"]}
    await store.episodes.finish(name, answer="4", trace={"given": given}, exposures=exposures)


async def say(store: RuleStore, episode: str, key: str, **more: Any) -> Any:
    right = more.pop("right", False)
    said = NewFeedback(**(more.pop("said", None) or {"score": float(right)}))
    teaching = Teaching(
        learns=True, right=right, outcome=Outcome(Signal.CLIENT, float(right)), **more
    )
    return await store.evidence.add_feedback(episode, said, teaching, key_id=key)


async def condemn(store: RuleStore, rule: Rule, key: str, count: int = 12) -> None:
    """Bad marks with the rule and good ones without it."""
    for number in range(count):
        await asked(store, f"{key}-with-{number}", key, rule)
        await say(store, f"{key}-with-{number}", key)
        await asked(store, f"{key}-without-{number}", key, without=rule)
        await say(store, f"{key}-without-{number}", key, right=True)


async def candidate(
    store: RuleStore,
    text: str,
    number: int,
    key: str | None = None,
    state: RuleState = CANDIDATE,
) -> Rule:
    name = f"taught-{number}"
    await begin(store, name, key_id=key)
    await store.episodes.finish(name, answer="4", trace={}, job_payload={})
    job = await store.jobs.claim("worker", key=name)
    assert job is not None
    done = await store.jobs.apply(job, [draft(text, axis(number), state=state)])
    return await store.rules.get(done.learned[0].rule_id)


async def try_out(store: RuleStore, rule: Rule, key: str | None, effect: int, count: int) -> None:
    """Trials on questions that a key has labelled."""
    right, wrong = (1.0, 0.0) if effect > 0 else (0.0, 1.0)
    reference = Reference.CONSENSUS if key is None else Reference.LABEL
    for number in range(count):
        await store.evidence.record_trial(
            rule, Trial(f"{rule.id}-{key}-{number}", right, wrong, reference, key_id=key)
        )


async def state(store: RuleStore, rule: Rule) -> RuleState:
    return (await store.rules.get(rule.id)).state


# -- what one key can't do


async def test_a_key_neither_retires_nor_promotes_by_itself(shared: RuleStore) -> None:
    rule = await write(shared, "by a person", axis(0))
    await condemn(shared, rule, LIAR)
    assert await shared.evidence.review("default", probation=100) == []
    new = await candidate(shared, "a wrong one", 3)
    await try_out(shared, new, LIAR, 1, 20)
    assert (await state(shared, rule), await state(shared, new)) == (ACTIVE, CANDIDATE)
    await try_out(shared, new, HONEST, 1, 1)
    assert await state(shared, new) is ACTIVE
    await condemn(shared, rule, HONEST)
    (done,) = await shared.evidence.review("default", probation=100)
    assert (done.rule_id, done.kind) == (rule.id, DEMOTED)


async def test_one_keys_requests_use_up_no_probation(shared: RuleStore) -> None:
    rule = await candidate(shared, "unproven", 0, state=ACTIVE)
    for number in range(8):
        await asked(shared, f"flood-{number}", LIAR, rule)
    async with shared.context.change() as connection:
        assert await trials.demote(shared.context, connection, rule.id, 6) is None
    for number in range(3):
        await asked(shared, f"other-{number}", HONEST, rule)
    async with shared.context.change() as connection:
        done = await trials.demote(shared.context, connection, rule.id, 6)
    assert done is not None
    assert done.kind == DEMOTED


async def test_an_operator_does(shared: RuleStore) -> None:
    rule, new = await write(shared, "by a person", axis(0)), await candidate(shared, "new", 3)
    await condemn(shared, rule, ADMIN)
    await try_out(shared, new, ADMIN, 1, 3)
    assert await state(shared, new) is ACTIVE
    assert [each.rule_id for each in await shared.evidence.review("default", probation=100)] == [
        rule.id
    ]


@pytest.mark.parametrize(
    ("namespaces", "kind", "moved"),
    [(("other",), "chat", True), (("default",), "chat", False), (("*",), "chat", False),
     (("default",), "admin-read", True)],
)  # fmt: skip
async def test_it_takes_two_where_another_key_reaches_the_namespace(
    store: RuleStore, namespaces: tuple[str, ...], kind: str, moved: bool
) -> None:
    await store.keys.create(
        NewKey("one", ("default",), (Permission.CHAT, Permission.LEARN)), change=WHO
    )
    await store.keys.create(NewKey("two", namespaces, (Permission(kind),)), change=WHO)
    new = await candidate(store, "a rule", 3)
    await try_out(store, new, LIAR, 1, 3)
    assert await state(store, new) is (ACTIVE if moved else CANDIDATE)


async def test_a_setting_says_otherwise(tmp_path: Path, clock: Clock) -> None:
    opened = await open_store(tmp_path, clock=clock, keys_outside=2, feedback_keys=1)
    try:
        await opened.namespaces.ensure("default")
        new = await candidate(opened, "a rule", 3)
        await try_out(opened, new, LIAR, 1, 3)
        assert await state(opened, new) is ACTIVE
    finally:
        await opened.close()


# -- taking back


async def test_a_rule_that_it_alone_retired_comes_back(store: RuleStore) -> None:
    rule = await write(store, "by a person", axis(0))
    await condemn(store, rule, LIAR)
    await store.evidence.review("default", probation=100)
    assert await state(store, rule) is RETIRED
    done = await store.keys.withdraw(LIAR, change=WHO)
    assert done.ended_at is not None
    assert done.counts == {"feedback": 24, "outcomes": 24, "exposures": 24}
    back = await store.rules.get(rule.id)
    assert (back.state, back.exposures) == (ACTIVE, 0)
    standing = store.evidence.standing_of(rule.id)
    assert standing is not None
    assert not standing.measured
    assert standing.proven
    (event,) = (await store.history.events(EventFilter(kind="key.withdrawn"))).items
    assert (event.actor, event.after) == ("kim", {"id": LIAR, "counts": done.counts})
    assert store.evidence.beliefs_near("default", axis(0)).size == 0


async def test_a_rule_that_others_retire_too_stays_retired(store: RuleStore) -> None:
    rule = await write(store, "by a person", axis(0))
    for key in (LIAR, HONEST):
        await condemn(store, rule, key)
    await store.evidence.review("default", probation=100)
    await store.keys.withdraw(LIAR, change=WHO)
    assert await state(store, rule) is RETIRED
    standing = store.evidence.standing_of(rule.id)
    assert standing is not None
    assert standing.with_rule.size == pytest.approx(6.0)  # 12 scores of half a weight
    assert len(await store.evidence.feedback_of(f"{HONEST}-with-0")) == 1
    assert await store.evidence.feedback_of(f"{LIAR}-with-0") == []


@pytest.mark.parametrize(("others", "expected"), [(0, CANDIDATE), (3, ACTIVE), (-3, RETIRED)])
async def test_a_rule_that_it_promoted_is_judged_by_what_is_left(
    store: RuleStore, others: int, expected: RuleState
) -> None:
    rule = await candidate(store, "a rule", 3, HONEST)
    await try_out(store, rule, LIAR, 1, 3)
    assert await state(store, rule) is ACTIVE
    await try_out(store, rule, None, 1 if others > 0 else -1, abs(others))
    # It has proven itself, so what speaks against it since may have retired it already.
    await store.keys.withdraw(LIAR, change=WHO)
    assert await state(store, rule) is expected


async def test_trials_on_its_questions_go_whoever_told_right_from_wrong(store: RuleStore) -> None:
    rule = await candidate(store, "a rule", 3, HONEST)
    for number in range(3):
        trial = Trial(f"asked-{number}", 1.0, 0.0, Reference.CONSENSUS, key_id=LIAR)
        await store.evidence.record_trial(rule, trial)
    assert await state(store, rule) is ACTIVE
    await store.keys.withdraw(LIAR, change=WHO)
    assert await state(store, rule) is CANDIDATE


async def test_what_a_promoted_rule_superseded_comes_back(store: RuleStore) -> None:
    loser, winner = (
        await write(store, "add", axis(0)),
        await candidate(store, "do not add", 3, HONEST),
    )
    async with store.context.change() as connection:
        await links.add(
            connection, "default", winner.id, LinkKind.CONTRADICTS, loser.id, store.context.clock()
        )
    await try_out(store, winner, LIAR, 1, 3)
    assert await state(store, loser) is RETIRED
    await store.keys.withdraw(LIAR, change=WHO)
    assert (await state(store, winner), await state(store, loser)) == (CANDIDATE, ACTIVE)


async def test_what_it_taught_alone_goes(store: RuleStore) -> None:
    alone = await candidate(store, "of it alone", 3, LIAR)
    both = await candidate(store, "of both", 4, LIAR)
    await candidate_again(store, "of both", 4, HONEST)
    await store.keys.withdraw(LIAR, change=WHO)
    assert (await state(store, alone), await state(store, both)) == (RETIRED, CANDIDATE)
    assert (await store.rules.get(both.id)).frequency == 1
    assert "withdrawn" in ((await store.rules.get(alone.id)).reason or "")


async def candidate_again(store: RuleStore, text: str, number: int, key: str) -> None:
    name = f"again-{number}"
    await begin(store, name, key_id=key)
    await store.episodes.finish(name, answer="4", trace={}, job_payload={})
    job = await store.jobs.claim("worker", key=name)
    assert job is not None
    done = await store.jobs.apply(job, [draft(text, axis(number), state=CANDIDATE)])
    assert done.learned[0].outcome == "merged"


async def test_examples_of_its_feedback_go_and_those_it_replaced_come_back(
    store: RuleStore,
) -> None:
    await asked(store, "ep", HONEST)
    first = NewExample("default", "Where?", "here", Trust.SCORE, source_episode="ep")
    await say(store, "ep", HONEST, right=True, example=first, vector=axis(1))
    false = NewExample("default", "Where?", "gone", Trust.LABEL, label="gone", source_episode="ep")
    await say(store, "ep", LIAR, example=false, wrong="here", vector=axis(1))
    assert await answers(store) == {"here": RETIRED, "gone": ACTIVE}
    await store.keys.withdraw(LIAR, change=WHO)
    assert await answers(store) == {"here": ACTIVE, "gone": RETIRED}
    assert [hit.id for hit in store.search_examples("default", axis(1), 4)] == [
        each.id for each in (await store.examples.list(ExampleFilter(state=ACTIVE))).items
    ]


async def test_an_example_that_it_verified_is_as_trusted_as_before(store: RuleStore) -> None:
    await asked(store, "ep", HONEST)
    made = NewExample("default", "Where?", "here", Trust.SCORE, source_episode="ep")
    await say(store, "ep", HONEST, right=True, example=made, vector=axis(1))
    better = NewExample("default", "Where?", "here", Trust.LABEL, label="x", source_episode="ep")
    await say(store, "ep", LIAR, right=True, example=better, vector=axis(1))
    await store.keys.withdraw(LIAR, change=WHO)
    (left,) = (await store.examples.list()).items
    assert (left.state, left.trust, left.label) == (ACTIVE, Trust.SCORE, None)


async def answers(store: RuleStore) -> dict[str, RuleState]:
    return {each.answer: each.state for each in (await store.examples.list()).items}


async def test_its_votes_go_and_what_they_refuted_comes_back(store: RuleStore) -> None:
    made = [
        await store.examples.create(
            NewExample("default", question, "so", Trust.LABEL, label="so"), axis(2), change=WHO
        )
        for question in ("How?", "How then?")
    ]
    other, example = made
    for number in range(16):
        await asked(store, f"h-{number}", HONEST, other)
        await say(store, f"h-{number}", HONEST, right=True, votes={other.id: 1.0})
    for number in range(3):
        await asked(store, f"l-{number}", HONEST, example)
        await say(store, f"l-{number}", LIAR, votes={example.id: 0.0})
    for number in range(16, 24):
        await asked(store, f"h-{number}", HONEST, other)
        await say(store, f"h-{number}", HONEST, right=True, votes={other.id: 1.0})
    await asked(store, "l-last", HONEST, example)
    await say(store, "l-last", LIAR, votes={example.id: 0.0})
    assert (await store.examples.get(example.id)).state is RETIRED
    done = await store.keys.withdraw(LIAR, change=WHO)
    assert done.counts["votes"] >= 3
    assert (await store.examples.get(example.id)).state is ACTIVE


async def test_its_jobs_end_and_its_labels_decide_nothing_any_more(store: RuleStore) -> None:
    await begin(store, "waits", key_id=LIAR)
    await store.episodes.finish("waits", answer="4", trace={}, job_payload={})
    await asked(store, "ep", HONEST)
    precedent = Precedent("ep", "default", axis(1), None, {}, "4", "5", Reference.LABEL)
    await say(store, "ep", LIAR, said={"label": "5"}, precedent=precedent)
    assert store.evidence.near_precedents("default", axis(1), floor=0.9, k=1)
    done = await store.keys.withdraw(LIAR, change=WHO)
    assert (done.counts["jobs"], done.counts["precedents"]) == (1, 1)
    assert await store.jobs.claim("worker") is None
    assert (await store.jobs.counts())[JobState.FAILED] == 1
    assert store.evidence.near_precedents("default", axis(1), floor=0.9, k=1) == []


async def test_again_it_changes_nothing(store: RuleStore) -> None:
    rule = await write(store, "by a person", axis(0))
    await condemn(store, rule, LIAR, 3)
    first = await store.keys.withdraw(LIAR, change=WHO)
    last = (await store.stats()).last_event
    again = await store.keys.withdraw(LIAR, change=WHO)
    assert again.counts == first.counts
    assert (await store.stats()).last_event == last


async def test_a_frozen_namespace_waits(store: RuleStore) -> None:
    alone = await candidate(store, "of it alone", 3, LIAR)
    await store.namespaces.freeze("default", change=WHO)
    assert (await store.keys.withdraw(LIAR, change=WHO)).ended_at is None
    assert await state(store, alone) is CANDIDATE
    await store.namespaces.unfreeze("default", change=WHO)
    assert (await store.keys.withdraw(LIAR, change=WHO)).ended_at is not None
    assert await state(store, alone) is RETIRED


async def test_nobody_knows_it(store: RuleStore) -> None:
    for unknown in ("key_nobody", "", "environment-0", "environment-1 ", "x" * 10_000):
        with pytest.raises(UnknownKey):
            await store.keys.withdraw(unknown, change=WHO)
    key, _ = await store.keys.create(NewKey("k", ("*",), (Permission.CHAT,)), change=WHO)
    assert (await store.keys.withdraw(key.id, change=WHO)).counts == {}


class Killed(BaseException):
    """As of a process that ends between two transactions."""


@pytest.mark.parametrize("stops", [1, 2, 4, 7, 9, 11, 14, 17, 20])
async def test_killed_in_between_and_again_gives_the_same(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    monkeypatch.setattr(withdrawal.withdrawals, "PORTION", 2)
    whole, broken = [await _scene(tmp_path / name, clock) for name in ("whole", "broken")]
    try:
        await whole.keys.withdraw(LIAR, change=WHO)
        transact, left = broken.context.database.transact, stops

        async def dying(*given: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return await transact(*given, **more)

        monkeypatch.setattr(broken.context.database, "transact", dying)
        with pytest.raises(Killed):
            await broken.keys.withdraw(LIAR, change=WHO)
        monkeypatch.undo()
        await broken.close()
        broken = await open_store(tmp_path / "broken", clock=clock)
        await broken.keys.withdraw(LIAR, change=WHO)
        for store in (whole, broken):
            await store.catch_up()
        assert await _picture(broken) == await _picture(whole)
    finally:
        await whole.close()
        await broken.close()


async def _scene(folder: Path, clock: Clock) -> RuleStore:
    folder.mkdir()
    store = await open_store(folder, clock=clock)
    await store.namespaces.ensure("default")
    rule = await write(store, "by a person", axis(0))
    await condemn(store, rule, LIAR, 4)
    await store.evidence.review("default", probation=100)
    promoted = await candidate(store, "promoted", 3, HONEST)
    await try_out(store, promoted, LIAR, 1, 3)
    await candidate(store, "alone", 4, LIAR)
    return store


async def _picture(store: RuleStore) -> Any:
    rules = (await store.rules.list()).items
    (event,) = (await store.history.events(EventFilter(kind="key.withdrawn"))).items
    known = [store.evidence.standing_of(rule.id) for rule in rules]
    standings = [s and (s.with_rule, s.without_rule, s.tried, s.proven) for s in known]
    return (
        [(rule.text, rule.state, rule.frequency, rule.exposures) for rule in rules],
        standings,
        event.after,
    )


async def test_a_key_without_learn_leaves_no_trace(store: RuleStore) -> None:
    """What its feedback says is kept and followed by nothing: no reference at the gate, no outcome,
    no choice, no example."""
    await begin(store, "ep", key_id=HONEST)
    precedent = Precedent("ep", "default", axis(1), 0.8, {}, "4", "4", Reference.CONSENSUS)
    given = {"chosen": "rules", "offered": ["none", "rules"]}
    await store.episodes.finish(
        "ep", answer="4", trace={"given": given}, findings=Findings(precedent=precedent)
    )
    await store.evidence.add_feedback("ep", NewFeedback(label="5"), key_id="key_chat")
    async with store.context.database.read() as connection:
        kept = await precedents.find(connection, "ep")
        assert await evidence.strongest(connection, "ep") is None
    assert kept is not None
    assert (kept.reference, kept.reference_kind) == ("4", Reference.CONSENSUS)
    assert (kept.key_id, kept.label_key_id) == (HONEST, None)
    assert store.evidence.beliefs_near("default", axis(1)).size == 0
    assert (await store.examples.list()).items == []
