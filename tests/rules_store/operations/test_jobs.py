"""Jobs: oldest first, one worker at a time, nothing lost when a worker is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from rules_store.errors import LeaseLost
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Change
from rules_store.models.jobs import Job, JobFilter, JobState, Spend
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    Clock,
    axis,
    claimed,
    draft,
    new_job,
    open_store,
    sql,
)


async def counted(store: RuleStore) -> dict[str, int]:
    return {state.value: count for state, count in (await store.jobs.counts()).items() if count}


async def take(store: RuleStore, owner: str = "w") -> Job:
    job = await store.jobs.claim(owner)
    assert job is not None
    return job


async def test_oldest_first_and_each_once(store: RuleStore) -> None:
    for name in ("a", "b", "c"):
        await new_job(store, name)
    jobs = [await take(store, f"w{n}") for n in range(3)]
    assert [job.episode_id for job in jobs] == ["a", "b", "c"]
    assert (jobs[0].payload, jobs[0].owner, jobs[0].attempts) == ({"n": "a"}, "w0", 1)
    assert await store.jobs.claim("w") is None


async def test_a_certain_episode_can_be_claimed(store: RuleStore) -> None:
    for name in ("a", "b"):
        await new_job(store, name)
    job = await store.jobs.claim("w", key="b")
    assert job is not None
    assert job.episode_id == "b"
    assert await store.jobs.claim("w", key="b") is None
    assert await store.jobs.claim("w", key="none") is None


async def test_two_workers_never_get_the_same_job(
    store: RuleStore, clock: Clock, tmp_path: Path
) -> None:
    other = await open_store(tmp_path, clock=clock)
    for number in range(12):
        await new_job(store, f"ep_{number}")
    got = await asyncio.gather(
        *((store, other)[n % 2].jobs.claim(f"w{n}") for n in range(16)),
    )
    episodes = [job.episode_id for job in got if job is not None]
    assert len(episodes) == len(set(episodes)) == 12
    await other.close()


async def test_a_lost_worker_loses_its_lease(store: RuleStore, clock: Clock) -> None:
    await new_job(store, "a")
    lost = await take(store, "lost")
    clock.forward(store.options.lease - 1)
    assert await store.jobs.claim("w") is None
    await store.jobs.heartbeat(lost)
    clock.forward(store.options.lease - 1)
    assert await store.jobs.claim("w") is None
    clock.forward(2)
    job = await take(store, "w")
    assert (job.episode_id, job.attempts, job.lost) == ("a", 1, 1)
    for call in (
        store.jobs.heartbeat(lost),
        store.jobs.skip(lost, "r"),
        store.jobs.retry(lost, "r"),
        store.jobs.fail(lost, "r"),
        store.jobs.release(lost),
        store.jobs.apply(lost, [draft("x", axis(0))]),
    ):
        with pytest.raises(LeaseLost):
            await call
    assert (await store.rules.list()).total == 0
    await store.jobs.heartbeat(job)


async def test_a_job_that_a_queue_hands_out_passes_to_the_next(
    store: RuleStore, clock: Clock
) -> None:
    await new_job(store, "a")
    lost = await store.jobs.claim("lost", key="a", handed_out=True)
    assert lost is not None
    # Whether there is still somebody who has it is the queue's to know.
    assert await store.jobs.due(timedelta(0), limit=9) == ["a"]
    job = await store.jobs.claim("w", key="a", handed_out=True)
    assert job is not None
    assert (job.attempts, job.lost) == (1, 1)
    with pytest.raises(LeaseLost):
        await store.jobs.apply(lost, [draft("x", axis(0))])
    await store.jobs.apply(job, [draft("x", axis(0))])
    assert await store.jobs.claim("w", key="a", handed_out=True) is None
    assert await store.jobs.due(timedelta(0), limit=9) == []


async def test_a_stalled_worker_that_got_its_job_again_holds_one_lease(
    store: RuleStore, clock: Clock
) -> None:
    await new_job(store, "a")
    first = await take(store, "w")
    clock.forward(100)
    second = await take(store, "w")
    with pytest.raises(LeaseLost):
        await store.jobs.skip(first, "r")
    await store.jobs.skip(second, "r")


async def test_an_expired_lease_that_nobody_took_is_still_good(
    store: RuleStore, clock: Clock
) -> None:
    job = await claimed(store, "a")
    clock.forward(100)
    await store.jobs.apply(job, [draft("x", axis(0))])
    assert (await store.episodes.get("a")).status == EpisodeStatus.LEARNED


async def test_skip(store: RuleStore) -> None:
    job = await claimed(store, "a")
    await store.jobs.skip(job, "no_contrast", trace={"selection": 1}, spend=Spend(5, 700))
    episode = await store.episodes.get("a")
    assert (episode.status, episode.reason) == ("skipped", "no_contrast")
    assert episode.trace == {"kept": 1, "selection": 1}
    assert await counted(store) == {"done": 1}
    assert await store.jobs.spend_last_hour("default") == Spend(5, 700)
    with pytest.raises(LeaseLost):
        await store.jobs.skip(job, "again")


async def test_fail(store: RuleStore) -> None:
    job = await claimed(store, "a")
    await store.jobs.fail(job, "broken \ud800")
    episode = await store.episodes.get("a")
    assert (episode.status, episode.reason) == ("failed", "broken \ufffd")
    assert await counted(store) == {"failed": 1}
    assert await store.jobs.claim("w") is None


async def test_retries_wait_longer_each_time_and_end(store: RuleStore, clock: Clock) -> None:
    await new_job(store, "a")
    await new_job(store, "b")
    delays = []
    for attempt in range(1, store.options.max_attempts + 1):
        job = await store.jobs.claim("w", key="a")
        assert job is not None
        assert job.attempts == attempt
        again = await store.jobs.retry(job, f"error {attempt}", spend=Spend(1, 10))
        assert again == (attempt < store.options.max_attempts)
        waited = 0
        while again and (job := await store.jobs.claim("w", key="a")) is None:
            clock.forward(1)
            waited += 1
        if again and job is not None:
            await store.jobs.release(job)
            delays.append(waited)
    assert delays == [2, 4, 8, 16]
    episode = await store.episodes.get("a")
    assert (episode.status, episode.reason) == ("failed", "gave up after 5 attempts: error 5")
    assert await counted(store) == {"failed": 1, "pending": 1}
    assert await store.jobs.spend_last_hour("default") == Spend(5, 50)
    assert (await take(store)).episode_id == "b"


async def test_a_job_that_ends_two_processes_is_set_aside_by_name(
    store: RuleStore, clock: Clock
) -> None:
    await new_job(store, "deadly")
    await new_job(store, "good")
    for attempt in range(2):
        job = await store.jobs.claim(f"w{attempt}", key="deadly")
        assert job is not None
        assert (job.attempts, job.lost) == (1, attempt)
        clock.forward(store.options.lease + 1)
    assert (await take(store)).episode_id == "good"
    episode = await store.episodes.get("deadly")
    assert episode.status == EpisodeStatus.FAILED
    reason = "set aside: the process ended 2 times while it worked on this"
    assert episode.reason == reason
    record = (await store.jobs.list(JobFilter(state=JobState.FAILED))).items[0]
    assert (record.last_error, record.lost) == (reason, 2)
    # Who looks at it may try it again, from the beginning.
    again = await store.jobs.retry_failed(record.id, change=Change("kim", "mended"))
    assert (again.state, again.attempts, again.lost) == (JobState.PENDING, 0, 0)


async def test_a_process_that_has_just_begun_leaves_what_the_last_one_ended_with(
    store: RuleStore, clock: Clock
) -> None:
    """However often it is killed: the job gets no blame."""
    await new_job(store, "first")
    await new_job(store, "second")
    assert (await take(store, "w0")).episode_id == "first"
    for number in range(1, 6):
        clock.forward(store.options.lease + 1)
        job = await store.jobs.claim(f"w{number}", suspects=False)
        assert (job is None) == (number > 1), "each is lost once at most"
    record = (await store.jobs.list()).items
    assert [(each.state, each.lost, each.attempts) for each in record] == [
        (JobState.PENDING, 1, 0),
        (JobState.PENDING, 1, 0),
    ]
    assert (await take(store, "w9")).episode_id == "first"


async def test_who_missed_a_lease_and_comes_again_has_not_ended(
    store: RuleStore, clock: Clock
) -> None:
    await new_job(store, "slow")
    for attempt in range(1, 4):
        job = await take(store)
        assert (job.attempts, job.lost) == (attempt, 0)
        clock.forward(store.options.lease + 1)


async def test_namespaces_take_turns(store: RuleStore) -> None:
    for number in range(4):
        await new_job(store, f"flood-{number}")
    await store.namespaces.ensure("other")
    await new_job(store, "one", namespace="other")
    await new_job(store, "two", namespace="other")
    taken = [(await take(store)).episode_id for _ in range(6)]
    assert taken == ["flood-0", "one", "flood-1", "two", "flood-2", "flood-3"]
    assert await store.jobs.waiting() == {}


async def test_keys_take_turns_before_their_namespaces(store: RuleStore) -> None:
    for number in range(4):
        await store.namespaces.ensure(f"name-{number}")
        await new_job(store, f"flood-{number}", namespace=f"name-{number}", key_id="flood")
    await new_job(store, "one", key_id="quiet")
    await new_job(store, "two", key_id="quiet")
    taken = [(await take(store)).episode_id for _ in range(6)]
    assert taken == ["flood-0", "one", "flood-1", "two", "flood-2", "flood-3"]
    assert await store.jobs.waiting() == {}


async def test_release_counts_no_attempt(store: RuleStore) -> None:
    for _ in range(10):
        job = await claimed(store, "a") if _ == 0 else await take(store)
        await store.jobs.release(job)
    assert (await take(store)).attempts == 1


# -- budget


async def test_spend_of_the_last_hour_slides(store: RuleStore, clock: Clock) -> None:
    assert await store.jobs.spend_last_hour("default") == Spend(0, 0)
    await store.jobs.record_spend("default", Spend(1, 100))
    clock.forward(1800)
    await store.jobs.record_spend("default", Spend(2, 200))
    await store.jobs.record_spend("default", Spend(3, 300))
    await store.jobs.record_spend("other", Spend(9, 900))
    assert await store.jobs.spend_last_hour("default") == Spend(6, 600)
    clock.forward(1800)
    assert await store.jobs.spend_last_hour("default") == Spend(5, 500)
    clock.forward(1800)
    assert await store.jobs.spend_last_hour("default") == Spend(0, 0)


async def test_old_spend_does_not_pile_up(store: RuleStore, clock: Clock, tmp_path: Path) -> None:
    for _ in range(10):
        await store.jobs.record_spend("default", Spend(1, 1))
        clock.forward(3600)
    assert sql(tmp_path, "SELECT count(*) FROM learn_spend")[0][0] <= 3
