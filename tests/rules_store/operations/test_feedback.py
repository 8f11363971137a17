"""Feedback in the store: append-only, once for each of the client's keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rules_store.errors import FeedbackConflict, UnknownEpisode
from rules_store.models.feedback import FeedbackSource, NewFeedback
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, begin

EPISODE = "ep_1"


@pytest.fixture
async def episode(store: RuleStore) -> str:
    await begin(store, EPISODE)
    return EPISODE


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"score": 0.0}, FeedbackSource.CLIENT),
        ({"score": 1.0, "label": "42"}, FeedbackSource.LABEL),
        ({"label": "42"}, FeedbackSource.LABEL),
        ({"verified": False}, FeedbackSource.VERIFIER),
        ({"score": 0.5, "label": "42", "verified": True}, FeedbackSource.VERIFIER),
    ],
)
async def test_what_was_said_is_kept_under_its_strongest_signal(
    store: RuleStore, episode: str, clock: Clock, given: dict[str, Any], source: FeedbackSource
) -> None:
    said = await store.evidence.add_feedback(episode, NewFeedback(**given, comment="because"))
    assert [said] == await store.evidence.feedback_of(episode)
    assert said.source is source
    assert said.namespace == "default"
    assert said.created_at == clock.now
    kept = {"score": said.score, "label": said.label, "verified": said.verified}
    assert kept == {"score": None, "label": None, "verified": None, **given}


async def test_the_same_key_is_counted_once(store: RuleStore, episode: str, clock: Clock) -> None:
    first = await store.evidence.add_feedback(episode, NewFeedback(score=0.3, key="k"))
    clock.forward(60)
    assert await store.evidence.add_feedback(episode, NewFeedback(score=0.3, key="k")) == first
    with pytest.raises(FeedbackConflict):
        await store.evidence.add_feedback(episode, NewFeedback(score=0.4, key="k"))
    with pytest.raises(FeedbackConflict):
        await store.evidence.add_feedback(episode, NewFeedback(score=0.3, comment="more", key="k"))
    assert await store.evidence.feedback_of(episode) == [first]


async def test_without_a_key_and_for_another_episode_each_counts(
    store: RuleStore, episode: str
) -> None:
    await begin(store, "ep_2")
    for where in (episode, episode, "ep_2"):
        await store.evidence.add_feedback(where, NewFeedback(score=0.3))
    await store.evidence.add_feedback(episode, NewFeedback(score=0.3, key="k"))
    await store.evidence.add_feedback("ep_2", NewFeedback(score=0.9, key="k"))
    assert len(await store.evidence.feedback_of(episode)) == 3
    assert len(await store.evidence.feedback_of("ep_2")) == 2


async def test_equal_ones_at_the_same_time_are_one(store: RuleStore, episode: str) -> None:
    said = NewFeedback(verified=True, key="k")
    answers = await asyncio.gather(*(store.evidence.add_feedback(episode, said) for _ in range(8)))
    assert len({each.id for each in answers}) == 1
    assert await store.evidence.feedback_of(episode) == [answers[0]]


async def test_what_no_database_stores_is_stored_as_its_replacement(
    store: RuleStore, episode: str
) -> None:
    said = NewFeedback(label="4\x002", comment="\ud800", key="k\x00")
    first = await store.evidence.add_feedback(episode, said)
    assert (first.label, first.comment) == ("4\ufffd2", "\ufffd")
    assert await store.evidence.add_feedback(episode, said) == first


async def test_nothing_said_and_nothing_to_say_it_of(store: RuleStore, episode: str) -> None:
    with pytest.raises(ValueError, match="score"):
        await store.evidence.add_feedback(episode, NewFeedback(comment="hm"))
    with pytest.raises(UnknownEpisode):
        await store.evidence.add_feedback("ep_none", NewFeedback(score=1.0))
    assert await store.evidence.feedback_of("ep_none") == []
