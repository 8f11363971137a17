"""Episodes from arrival to end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rules_store.errors import InvalidCursor, StoreUnavailable, UnknownEpisode, UnknownNamespace
from rules_store.models.episodes import EpisodeFilter, EpisodeStatus, Verdict
from rules_store.models.feedback import NewFeedback, Teaching
from rules_store.models.jobs import JobState
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    Clock,
    axis,
    begin,
    exposure,
    new_job,
    open_store,
    write,
)


async def test_begin_and_finish(store: RuleStore, clock: Clock) -> None:
    begun = await begin(store, "ep_1", question="2 + 2?", trace={"first": 1})
    assert not begun.duplicate
    episode = await store.episodes.get("ep_1")
    assert (episode.status, episode.answer, episode.trace) == ("pending", None, {"first": 1})
    rule = await write(store, "x", axis(0))
    other = await write(store, "y", axis(1))
    clock.forward(3)
    await store.episodes.finish(
        "ep_1",
        answer="4",
        trace={"second": 2},
        reason="learning_off",
        exposures=[exposure(rule.id)],
    )
    episode = await store.episodes.get("ep_1")
    assert (episode.status, episode.reason) == ("skipped", "learning_off")
    assert (episode.question, episode.answer, episode.trace) == ("2 + 2?", "4", {"second": 2})
    assert (episode.updated_at - episode.created_at).total_seconds() == 3
    assert (await store.rules.get(rule.id)).exposures == 1
    assert (await store.rules.get(other.id)).exposures == 0
    # An exposure is an observation, no change of the rule.
    assert (await store.rules.get(rule.id)).version == 1
    assert len(await store.rules.events(rule.id)) == 1


async def test_finishing_with_a_job_is_one_step(store: RuleStore) -> None:
    await new_job(store, "ep_1")
    assert (await store.episodes.get("ep_1")).status == EpisodeStatus.LEARNING
    assert await store.jobs.counts() == {
        JobState.PENDING: 1,
        JobState.RUNNING: 0,
        JobState.DONE: 0,
        JobState.FAILED: 0,
    }


async def test_finishing_twice_changes_nothing(store: RuleStore) -> None:
    rule = await write(store, "x", axis(0))
    await new_job(store, "ep_1")
    await store.episodes.finish(
        "ep_1",
        answer="5",
        trace={},
        reason="late",
        exposures=[exposure(rule.id)],
        job_payload={"n": 2},
    )
    episode = await store.episodes.get("ep_1")
    assert (episode.status, episode.answer) == ("learning", "4")
    assert (await store.rules.get(rule.id)).exposures == 0
    assert (await store.jobs.counts())[JobState.PENDING] == 1


async def test_unknown_names(store: RuleStore) -> None:
    with pytest.raises(UnknownNamespace):
        await begin(store, "ep_1", namespace="nowhere")
    with pytest.raises(UnknownEpisode, match="'ep_1'"):
        await store.episodes.get("ep_1")
    with pytest.raises(UnknownEpisode):
        await store.episodes.finish("ep_1", answer="a", trace={})
    await begin(store, "ep_1")
    with pytest.raises(ValueError, match="already"):
        await begin(store, "ep_1")


async def test_exposures_stay_in_the_namespace(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    foreign = await write(store, "x", axis(0), namespace="other")
    await begin(store, "ep_1")
    await store.episodes.finish("ep_1", answer="a", trace={}, exposures=[exposure(foreign.id)])
    assert (await store.rules.get(foreign.id)).exposures == 0


# -- repeated requests


async def test_a_request_id_counts_once(store: RuleStore) -> None:
    assert (await begin(store, "ep_1", request_id="r")).duplicate_of is None
    again = await begin(store, "ep_2", request_id="r")
    assert (again.duplicate, again.duplicate_of) == (True, "ep_1")
    assert (await begin(store, "ep_3", request_id="r")).duplicate_of == "ep_1"
    await store.namespaces.ensure("other")
    assert not (await begin(store, "ep_4", namespace="other", request_id="r")).duplicate
    # Each has its own row, so that its answer can be looked up.
    await store.episodes.finish("ep_2", answer="same", trace={}, reason="duplicate_request")
    assert (await store.episodes.get("ep_2")).answer == "same"


async def test_of_many_equal_requests_at_once_one_is_first(
    store: RuleStore, tmp_path: Path
) -> None:
    other = await open_store(tmp_path)
    begun = await asyncio.gather(
        *(begin((store, other)[n % 2], f"ep_{n}", request_id="r") for n in range(10))
    )
    firsts = [each.episode_id for each in begun if not each.duplicate]
    assert len(firsts) == 1
    assert {each.duplicate_of for each in begun} == {None, firsts[0]}
    await other.close()


async def test_an_equal_body_is_marked_for_a_while(store: RuleStore, clock: Clock) -> None:
    assert (await begin(store, "ep_1", body_hash="b", is_retry=True)).same_body_as is None
    clock.forward(200)
    assert (await begin(store, "ep_2", body_hash="b", is_retry=True)).same_body_as == "ep_1"
    clock.forward(200)
    begun = await begin(store, "ep_3", body_hash="b", is_retry=True)
    assert (begun.same_body_as, begun.duplicate) == ("ep_2", False)
    clock.forward(301)
    assert (await begin(store, "ep_4", body_hash="b", is_retry=True)).same_body_as is None
    await store.namespaces.ensure("other")
    assert (
        await begin(store, "ep_5", namespace="other", body_hash="b", is_retry=True)
    ).same_body_as is None


# -- a database that is not to be had


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process in the midst of a long write."""
    other = sqlite3.connect(folder / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.sqlite
async def test_begin_gives_up_quickly_and_loses_nothing(tmp_path: Path) -> None:
    store = await open_store(tmp_path, begin_timeout=0.1, busy_timeout=30.0)
    await store.namespaces.ensure("default")
    await write(store, "x", axis(0))
    await begin(store, "ep_0")
    with locked(tmp_path):
        async with asyncio.timeout(15):
            with pytest.raises(StoreUnavailable, match="locked"):
                await begin(store, "ep_1")
        # Reading and searching go on.
        assert (await store.episodes.get("ep_0")).status == "pending"
        assert (await store.parity()).ok
        finishing = asyncio.create_task(
            store.episodes.finish("ep_0", answer="a", trace={}, job_payload={})
        )
        await asyncio.sleep(0.3)  # longer than a beginning waits
        assert not finishing.done()
    await finishing
    await begin(store, "ep_1")
    assert (await store.jobs.counts())[JobState.PENDING] == 1
    await store.close()


@pytest.mark.sqlite
async def test_begin_does_not_queue_behind_a_stuck_write(tmp_path: Path) -> None:
    store = await open_store(tmp_path, begin_timeout=0.1, busy_timeout=30.0)
    await store.namespaces.ensure("default")
    await begin(store, "ep_0")
    with locked(tmp_path):
        finishing = asyncio.create_task(store.episodes.finish("ep_0", answer="a", trace={}))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(15):
            with pytest.raises(StoreUnavailable, match="busy"):
                await begin(store, "ep_1")
    await finishing
    assert (await store.episodes.get("ep_0")).answer == "a"
    await store.close()


# -- interrupted requests


async def test_interrupted_requests_are_swept(store: RuleStore, clock: Clock) -> None:
    await begin(store, "lost")
    await new_job(store, "learning")
    await begin(store, "ended")
    await store.episodes.finish("ended", answer="a", trace={}, reason="not_sampled")
    clock.forward(100)
    await begin(store, "recent")
    assert await store.episodes.sweep_interrupted(timedelta(seconds=60)) == 1
    lost = await store.episodes.get("lost")
    assert (lost.status, lost.reason) == ("skipped", "interrupted")
    statuses = {name: (await store.episodes.get(name)).status for name in ("learning", "recent")}
    assert statuses == {"learning": "learning", "recent": "pending"}
    assert (await store.episodes.get("ended")).reason == "not_sampled"
    assert await store.episodes.sweep_interrupted(timedelta(seconds=60)) == 0
    # It was only slow after all.
    await store.episodes.finish("lost", answer="late", trace={}, job_payload={})
    assert (await store.episodes.get("lost")).status == "learning"


# -- listing


async def test_listing(store: RuleStore) -> None:
    await store.namespaces.ensure("other")
    for number in range(5):
        await begin(store, f"ep_{number}", mode="explore" if number == 3 else "steer")
    await begin(store, "ep_5", namespace="other")
    await store.episodes.finish("ep_1", answer="a", trace={})

    async def listed(**where: object) -> list[str]:
        ids: list[str] = []
        cursor = None
        while True:
            page = await store.episodes.list(
                EpisodeFilter(**where),  # type: ignore[arg-type]
                limit=2,
                cursor=cursor,
            )
            ids += [episode.id for episode in page.items]
            cursor = page.next_cursor
            if cursor is None:
                assert page.total == len(ids)
                return ids

    assert await listed() == ["ep_5", "ep_4", "ep_3", "ep_2", "ep_1", "ep_0"]
    assert await listed(namespace="other") == ["ep_5"]
    assert await listed(mode="explore") == ["ep_3"]
    assert await listed(status=EpisodeStatus.SKIPPED) == ["ep_1"]
    assert await listed(namespace="other", mode="explore") == []
    with pytest.raises(InvalidCursor):
        await store.episodes.list(cursor="cnVsZXM6Mg")


async def test_whatever_was_written_can_be_stored(store: RuleStore) -> None:
    odd = "lone \ud800 and \x00"
    await begin(store, "ep_1", question=odd, request_id=odd, trace={odd: [odd, float("nan")]})
    await store.episodes.finish(
        "ep_1",
        answer=odd,
        trace={"x": {"y": (float("inf"), odd)}, 3: 4},  # type: ignore[dict-item]
        job_payload={odd: odd},
    )
    episode = await store.episodes.get("ep_1")
    assert episode.answer == "lone \ufffd and \ufffd"
    assert episode.trace == {"x": {"y": [None, "lone \ufffd and \ufffd"]}, "3": 4}
    assert await store.jobs.claim("w") is not None


# -- what is looked for


async def test_episodes_are_found_by_words_days_reasons_and_feedback(
    store: RuleStore, clock: Clock
) -> None:
    asked = {"a": "How late is 50% of it?", "b": "How late is 50 of it?", "c": "Why?"}
    for name, question in asked.items():
        await store.episodes.begin(
            name, namespace="default", mode="steer", question=question, model="m"
        )
        reason = "playground" if name == "c" else None
        await store.episodes.finish(name, answer="It is LATE.", trace={}, reason=reason)
        clock.forward(24 * 3600)
    told = {"a": NewFeedback(score=1.0), "b": NewFeedback(score=0.0), "c": NewFeedback(label="x")}
    for name, new in told.items():
        right = {"a": True, "b": False, "c": None}[name]
        await store.evidence.add_feedback(name, new, Teaching(learns=True, right=right))

    async def found(**where: Any) -> list[str]:
        page = await store.episodes.list(EpisodeFilter(**where))
        return [episode.id for episode in page.items]

    assert await found(text="50%") == ["a"]
    assert await found(text="is late") == ["c", "b", "a"]
    assert await found(reason="playground") == ["c"]
    assert await found(feedback=Verdict.GOOD) == ["a"]
    assert await found(feedback=Verdict.BAD) == ["b"]
    assert await found(feedback=Verdict.ANY) == ["c", "b", "a"]
    second = (await store.episodes.get("b")).created_at
    assert await found(created_after=second) == ["c", "b"]
    assert await found(created_before=second) == ["a"]


async def test_a_trace_is_added_to(store: RuleStore) -> None:
    await store.episodes.begin("a", namespace="default", mode="steer", question="Q", model="m")
    await store.episodes.finish("a", answer="A", trace={"cost": 1, "more": 1})
    await store.episodes.annotate("a", {"more": 2, "other": 3})
    assert (await store.episodes.get("a")).trace == {"cost": 1, "more": 2, "other": 3}
    with pytest.raises(UnknownEpisode):
        await store.episodes.annotate("none", {})
