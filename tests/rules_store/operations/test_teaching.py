"""What follows from a feedback, in its own transaction: once, replaced by what is said later, and
nothing in a frozen namespace."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rules_store.errors import FeedbackConflict
from rules_store.models.events import Change
from rules_store.models.evidence import Outcome, Precedent, Reference, Signal
from rules_store.models.examples import Example, ExampleFilter, NewExample, Trust
from rules_store.models.feedback import Completion, Feedback, NewFeedback, Teaching
from rules_store.models.jobs import JobKind, JobState, Spend
from rules_store.models.rules import Polarity, RuleState
from rules_store.policy.lift import Tally
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, axis, begin, draft, exposure, open_store

WHO = Change("kim", "a test")
EPISODE = "ep_1"
OWN = "card_delivery"
ACTIVE, CANDIDATE, RETIRED = RuleState.ACTIVE, RuleState.CANDIDATE, RuleState.RETIRED


@pytest.fixture
async def episode(store: RuleStore) -> str:
    await answered(store, EPISODE)
    return EPISODE


async def answered(store: RuleStore, name: str, *shown: Example, **trace: Any) -> None:
    await begin(store, name, question=f"Where is my card, {name}?")
    exposures = [exposure(each.id, place) for place, each in enumerate(shown)]
    await store.episodes.finish(name, answer=OWN, trace=trace, exposures=exposures)


def example(answer: str, episode: str = EPISODE, **more: Any) -> NewExample:
    given: dict[str, Any] = {"trust": Trust.LABEL, "label": answer, **more}
    return NewExample(
        "default", f"Where is my card, {episode}?", answer, source_episode=episode, **given
    )


def taught(answer: str, *, right: bool = False, episode: str = EPISODE, **more: Any) -> Teaching:
    """Of a label."""
    given: dict[str, Any] = {
        "example": example(answer, episode),
        "outcome": Outcome(Signal.LABEL, float(right)),
        "vector": axis(1),
        "wrong": None if right else OWN,
        **more,
    }
    return Teaching(learns=True, right=right, **given)


async def say(
    store: RuleStore,
    teaching: Teaching,
    episode: str = EPISODE,
    key_id: str | None = None,
    **said: Any,
) -> Feedback:
    return await store.evidence.add_feedback(
        episode, NewFeedback(**(said or {"label": "x"})), teaching, key_id=key_id
    )


async def examples(store: RuleStore, **where: Any) -> list[Example]:
    page = await store.examples.list(ExampleFilter(**where), limit=100)
    return list(page.items)


async def states(store: RuleStore) -> dict[str, str]:
    return {each.answer: each.state.value for each in await examples(store)}


async def feedback_job(store: RuleStore, key: str) -> Any:
    job = await store.jobs.claim("worker", key=key)
    assert job is not None
    return job


# -- examples


async def test_an_example_comes_with_its_feedback_and_is_found_at_once(
    store: RuleStore, episode: str
) -> None:
    given = await say(store, taught("card_arrival", job={"wrong": OWN}))
    (made,) = await examples(store)
    assert (made.answer, made.label, made.state) == ("card_arrival", "card_arrival", ACTIVE)
    assert (made.trust, made.source_episode) == (Trust.LABEL, episode)
    assert given.effect.example == made.id
    assert (given.effect.example_state, given.effect.lesson) == ("active", True)
    assert given.effect.right is False
    assert await store.evidence.feedback_of(episode) == [given]
    assert [hit.id for hit in store.search_examples("default", axis(1), 4)] == [made.id]
    job = await feedback_job(store, given.id)
    assert (job.kind, job.episode_id) == (JobKind.FEEDBACK, episode)
    assert job.payload == {"wrong": OWN, "example": made.id}


async def test_the_same_key_is_followed_once(store: RuleStore, episode: str) -> None:
    teaching = taught("card_arrival", job={})
    said = {"label": "card_arrival", "key": "k"}
    same = await asyncio.gather(*(say(store, teaching, **said) for _ in range(5)))
    assert len({each.id for each in same}) == 1
    assert all(each == same[0] for each in same)
    (made,) = await examples(store)
    assert made.version == 1
    assert (await store.jobs.counts())[JobState.PENDING] == 1
    with pytest.raises(FeedbackConflict):
        await say(store, taught("lost_card"), label="lost_card", key="k")
    assert len(await examples(store)) == 1


async def test_a_later_label_takes_the_place_of_the_first(store: RuleStore, episode: str) -> None:
    first = await say(store, taught("lost_card"))
    second = await say(store, taught("card_arrival"))
    assert await states(store) == {"lost_card": "retired", "card_arrival": "active"}
    assert second.effect.retired == (first.effect.example,)
    again = await say(store, taught("lost_card"))
    assert again.effect.example == first.effect.example
    assert again.effect.example_state == "active"
    assert await states(store) == {"lost_card": "active", "card_arrival": "retired"}


async def test_what_an_operator_retired_stays_retired(store: RuleStore, episode: str) -> None:
    first = await say(store, taught("lost_card"))
    assert first.effect.example is not None
    await store.examples.retire(first.effect.example, change=WHO)
    again = await say(store, taught("lost_card"))
    assert again.effect.example_state == "retired"
    assert await states(store) == {"lost_card": "retired"}


async def test_an_answer_that_turns_out_wrong_is_no_example_any_more(
    store: RuleStore, episode: str
) -> None:
    scored = taught(OWN, right=True, outcome=Outcome(Signal.CLIENT, 1.0))
    await say(store, scored, score=1.0)
    assert await states(store) == {OWN: "active"}
    refuted = Teaching(learns=True, right=False, outcome=Outcome(Signal.VERIFIER, 0.0), wrong=OWN)
    given = await say(store, refuted, verified=False)
    assert await states(store) == {OWN: "retired"}
    assert len(given.effect.retired) == 1


async def test_a_score_teaches_nothing_after_a_label(store: RuleStore, episode: str) -> None:
    await say(store, taught("card_arrival"))
    praise = taught(OWN, right=True, outcome=Outcome(Signal.CLIENT, 1.0), job={})
    given = await say(store, praise, score=1.0)
    assert (given.effect.example, given.effect.lesson) == (None, False)
    assert given.effect.skipped == "stronger_feedback_before"
    assert await states(store) == {"card_arrival": "active"}


async def test_outdated_retires_what_came_of_the_episode(store: RuleStore, episode: str) -> None:
    await answered(store, "ep_2")
    await say(store, taught("card_arrival"))
    await say(store, taught("card_arrival", episode="ep_2"), episode="ep_2")
    given = await say(store, Teaching(learns=True), outdated=True)
    assert len(given.effect.retired) == 1
    kept = [each.source_episode for each in await examples(store, state=ACTIVE)]
    assert kept == ["ep_2"]
    assert (await say(store, Teaching(learns=True), outdated=True)).effect.retired == ()


async def test_outdated_retires_an_example_that_the_episode_only_confirmed(
    store: RuleStore, episode: str
) -> None:
    await say(store, taught("card_arrival"))
    await answered(store, "ep_2")
    confirmed = taught("card_arrival", episode="ep_2")
    assert confirmed.example is not None
    same = replace(confirmed.example, question=f"Where is my card, {EPISODE}?")
    await say(store, replace(confirmed, example=same), episode="ep_2")
    given = await say(store, Teaching(learns=True), episode="ep_2", outdated=True)
    assert len(given.effect.retired) == 1
    assert await states(store) == {"card_arrival": "retired"}


async def test_no_key_outdates_alone_what_another_stands_for(tmp_path: Path) -> None:
    """Who confirms an example has no say over whoever taught it."""
    store = await open_store(tmp_path, keys_outside=2)
    try:
        await store.namespaces.ensure("default")
        await answered(store, EPISODE)
        await answered(store, "ep_2")
        first = taught("card_arrival")
        await say(store, first, key_id="one")
        confirmed = replace(first, example=replace(first.example, source_episode="ep_2"))
        await say(store, confirmed, "ep_2", key_id="two")
        for _ in range(2):
            given = await say(store, OUTDATED, "ep_2", key_id="two", outdated=True)
            assert given.effect.retired == ()
        assert await states(store) == {"card_arrival": "active"}
        given = await say(store, OUTDATED, key_id="one", outdated=True)
        assert len(given.effect.retired) == 1, "nobody else stands for it any more"
    finally:
        await store.close()


OUTDATED = Teaching(learns=True)


async def test_a_frozen_namespace_keeps_the_evidence_and_learns_nothing(
    store: RuleStore, episode: str
) -> None:
    made = await say(store, taught("card_arrival"))
    await store.namespaces.freeze("default", change=WHO)
    given = await say(store, taught("lost_card", job={}))
    assert given.effect.skipped == "namespace_frozen"
    assert (given.effect.example, given.effect.lesson) == (None, False)
    assert (await say(store, Teaching(learns=True), outdated=True)).effect.retired == ()
    assert [each.id for each in await examples(store, state=ACTIVE)] == [made.effect.example]
    assert len(await store.evidence.feedback_of(episode)) == 3
    assert await store.evidence.share_judged("default", 10) == (1, 1)


async def test_who_may_not_teach_leaves_a_feedback_and_nothing_else(
    store: RuleStore, episode: str
) -> None:
    given = await store.evidence.add_feedback(episode, NewFeedback(label="card_arrival"))
    assert await store.evidence.feedback_of(episode) == [given]
    assert await examples(store) == []
    assert await store.evidence.share_judged("default", 10) == (0, 1)


async def test_without_a_vector_the_example_waits_for_its_embedding(
    store: RuleStore, episode: str
) -> None:
    given = await say(store, taught("card_arrival", vector=None))
    assert [each.id for each in await store.examples.without_embedding(10)] == [
        given.effect.example
    ]


# -- evidence


async def test_an_example_is_credited_with_its_own_vote(store: RuleStore) -> None:
    right = await store.examples.create(example("card_arrival", "a"), axis(1), change=WHO)
    wrong = await store.examples.create(example("lost_card", "b"), axis(2), change=WHO)
    silent = await store.examples.create(example("x", "c", label=None), axis(3), change=WHO)
    await answered(store, EPISODE, right, wrong, silent)
    assert await store.evidence.shown_labels(EPISODE) == {
        right.id: "card_arrival",
        wrong.id: "lost_card",
    }
    await say(store, taught("card_arrival", votes={right.id: 1.0, wrong.id: 0.0}))
    found = await store.evidence.standings_of([right.id, wrong.id, silent.id])
    assert found[right.id].with_rule == Tally(1.0, 0.0)
    assert found[wrong.id].with_rule == Tally(0.0, 1.0)
    assert found[silent.id].with_rule == Tally(0.0, 1.0)

    # Said otherwise later, it counts so, and once.
    await say(store, taught("lost_card", votes={right.id: 0.0, wrong.id: 1.0}))
    found = await store.evidence.standings_of([right.id, wrong.id])
    assert found[right.id].with_rule == Tally(0.0, 1.0)
    assert found[wrong.id].with_rule == Tally(1.0, 0.0)


async def test_a_label_that_is_hardly_ever_right_is_retired(store: RuleStore) -> None:
    good = await store.examples.create(example("card_arrival", "a"), axis(1), change=WHO)
    bad = await store.examples.create(example("lost_card", "b"), axis(2), change=WHO)
    retired: list[str] = []
    for number in range(8):
        name = f"ep_{number + 10}"
        await answered(store, name, good, bad)
        votes = {good.id: 1.0, bad.id: 0.0}
        given = await say(
            store, taught("card_arrival", right=True, votes=votes, example=None), episode=name
        )
        retired += given.effect.retired
    assert retired == [bad.id]
    gone = await store.examples.get(bad.id)
    assert gone.state is RETIRED
    assert "label refuted: right for 0 of" in str(gone.reason)
    assert (await store.examples.get(good.id)).state is ACTIVE


async def test_a_labelled_question_can_be_replayed(store: RuleStore, episode: str) -> None:
    precedent = Precedent(
        EPISODE, "default", axis(1), None, {"n": 1}, OWN, "card_arrival", Reference.LABEL
    )
    await say(store, taught("card_arrival", precedent=precedent), label="card_arrival")
    await store.catch_up()
    near = store.evidence.near_precedents("default", axis(1), floor=0.5, k=3)
    assert [each.episode_id for each in near] == [EPISODE]


async def test_what_a_request_was_given_gets_the_strongest_outcome(
    store: RuleStore, clock: Clock
) -> None:
    offered = ["none", "examples"]
    await answered(store, EPISODE, given={"chosen": "examples", "offered": offered})
    await say(store, taught(OWN, right=True, outcome=Outcome(Signal.CLIENT, 1.0)), score=1.0)
    await say(store, taught("card_arrival"), label="card_arrival")
    await say(store, taught(OWN, right=True, outcome=Outcome(Signal.CLIENT, 0.5)), score=0.5)
    async with store.context.database.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT given, value, weight FROM choices")).all()
    assert [tuple(row) for row in rows] == [("examples", 0.0, 1.0)]


async def test_where_there_was_nothing_to_choose_from_there_was_no_choice(
    store: RuleStore,
) -> None:
    await answered(store, EPISODE, given={"chosen": "none", "offered": ["none"]})
    await say(store, taught("card_arrival"), label="card_arrival")
    async with store.context.database.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT given FROM choices")).all()
    assert rows == []


async def test_the_share_of_judged_answers(store: RuleStore) -> None:
    for number in range(4):
        await answered(store, f"ep_{number}")
    await begin(store, "ep_unanswered")
    await say(store, taught("card_arrival", episode="ep_1"), episode="ep_1")
    scored = Teaching(learns=True, right=True, outcome=Outcome(Signal.CLIENT, 1.0))
    await say(store, scored, episode="ep_2", score=1.0)
    assert await store.evidence.share_judged("default", 50) == (1, 4)
    assert await store.evidence.share_judged("default", 2) == (0, 2)


# -- lessons


async def test_judged_answers_pay_for_lessons_once_each(
    store: RuleStore, episode: str, clock: Clock
) -> None:
    assert await store.jobs.lessons_paid("default", 0.2) == 0
    first = await say(store, taught("card_arrival", job={}))
    await say(store, taught("lost_card", job={}))
    assert await store.jobs.lessons_paid("default", 0.2) == pytest.approx(0.2)
    await store.jobs.skip(
        await feedback_job(store, first.id), "nothing", spend=Spend(calls=3, tokens=5)
    )
    assert await store.jobs.lessons_paid("default", 0.2) == pytest.approx(-2.8)
    assert await store.jobs.spend_last_hour("default") == Spend(3, 5)
    clock.forward(3 * 3600)
    assert await store.jobs.lessons_paid("default", 0.2) == 0


async def test_a_candidate_gets_its_answer_with_the_lessons_end(
    store: RuleStore, episode: str
) -> None:
    waiting = example("42", state=CANDIDATE, reason="waits")
    given = await say(store, taught("42", example=waiting, job={}))
    assert given.effect.example is not None
    assert store.search_examples("default", axis(1), 4) == ()
    job = await feedback_job(store, given.id)
    rule = draft("Multiply first.", axis(2), polarity=Polarity.NEGATIVE)
    completion = Completion(given.effect.example, "Six times seven is 42.")
    done = await store.jobs.apply(job, [rule], trace={"x": 1}, completion=completion)
    assert [each.outcome for each in done.learned] == ["created"]
    made = await store.examples.get(given.effect.example)
    assert (made.state, made.answer, made.label) == (ACTIVE, "Six times seven is 42.", "42")
    assert [hit.id for hit in store.search_examples("default", axis(1), 4)] == [made.id]
    assert (await store.jobs.apply(job, [rule], completion=completion)).already
    learned = await store.episodes.get(episode)
    assert learned.status == "learned"
    assert len(learned.trace["rules_learned"]) == 1
    assert learned.trace["lessons"][given.id]["x"] == 1


async def test_a_candidate_that_somebody_retired_stays_so(store: RuleStore, episode: str) -> None:
    given = await say(store, taught("42", example=example("42", state=CANDIDATE), job={}))
    assert given.effect.example is not None
    await store.examples.retire(given.effect.example, change=WHO)
    job = await feedback_job(store, given.id)
    await store.jobs.apply(job, [], completion=Completion(given.effect.example, "It is 42."))
    assert await states(store) == {"42": "retired"}


async def test_a_lesson_that_is_skipped_or_fails_leaves_the_episode_as_it_was(
    store: RuleStore, episode: str
) -> None:
    before = await store.episodes.get(episode)
    for number, end in enumerate((store.jobs.skip, store.jobs.fail)):
        given = await say(store, taught(f"label_{number}", job={}))
        await end(await feedback_job(store, given.id), "no reason")
        after = await store.episodes.get(episode)
        assert (after.status, after.reason) == (before.status, before.reason)
        assert after.trace["lessons"][given.id]["skipped"] == "no reason"
