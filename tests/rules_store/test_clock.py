"""The clock is set forward and back: nothing is lost, and nothing waits for it to catch up."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.learning.postgres_queue import LearningQueue
from app.wiring.background import SteadyClock
from rules_store.index import evidence_cache
from rules_store.models.events import Change
from rules_store.models.evidence import Findings, Outcome, Signal, Standing
from rules_store.models.jobs import Spend
from rules_store.repository import standings
from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import (
    Clock,
    all_rules,
    axis,
    begin,
    claimed,
    draft,
    exposure,
    learn,
    new_job,
    open_store,
    write,
)

DAY = 86_400.0
WHO = Change("ann", "because")


async def test_a_lease_from_the_future_of_a_dead_worker_is_taken_over(
    store: RuleStore, clock: Clock
) -> None:
    clock.forward(DAY)
    lost = await claimed(store, "a")
    clock.forward(-DAY)
    job = await store.jobs.claim("another")
    assert job is not None
    assert (job.episode_id, job.attempts, job.lost) == (lost.episode_id, 1, 1)
    await store.jobs.apply(job, [draft("x", axis(0))])
    assert [rule.frequency for rule in await all_rules(store)] == [1]


async def test_a_living_worker_keeps_its_job_whichever_way_the_clock_goes(
    store: RuleStore, clock: Clock
) -> None:
    job = await claimed(store, "a")
    for jump in (-DAY, 2 * DAY, -DAY):
        clock.forward(jump)
        await store.jobs.heartbeat(job)
        assert await store.jobs.claim("another") is None
    # Machines may be a little apart.
    clock.forward(-30)
    assert await store.jobs.claim("another") is None
    await store.jobs.apply(job, [draft("x", axis(0))])


async def test_a_job_that_was_to_be_tried_tomorrow_is_tried_today(
    store: RuleStore, clock: Clock
) -> None:
    clock.forward(DAY)
    await store.jobs.retry(await claimed(store, "a"), "the server is away")
    await new_job(store, "b")
    clock.forward(-DAY)
    assert await store.jobs.due(timedelta(0), limit=9) == ["a", "b"]
    taken = [await store.jobs.claim("w") for _ in range(2)]
    assert [job.episode_id for job in taken if job is not None] == ["a", "b"]
    # A pause that is one is kept to.
    assert taken[0] is not None
    await store.jobs.retry(taken[0], "the server is away")
    assert await store.jobs.claim("w") is None


async def test_a_budget_that_was_spent_tomorrow_is_not_todays(
    store: RuleStore, clock: Clock
) -> None:
    clock.forward(DAY)
    await store.jobs.record_spend("default", Spend(7, 700))
    clock.forward(-DAY)
    assert await store.jobs.spend_last_hour("default") == Spend(0, 0)
    await store.jobs.record_spend("default", Spend(1, 100))
    # By less than an hour: what was spent is spent.
    clock.forward(-1800)
    assert await store.jobs.spend_last_hour("default") == Spend(1, 100)
    clock.forward(1800 + DAY)
    assert await store.jobs.spend_last_hour("default") == Spend(7, 700)


async def used(store: RuleStore, episode: str, rule_id: str) -> None:
    await begin(store, episode)
    found = Findings(Outcome(Signal.AGREEMENT, 1.0))
    await store.episodes.finish(
        episode, answer="4", trace={}, exposures=[exposure(rule_id)], findings=found
    )


@pytest.mark.parametrize("pause", [0.0, 60.0])
async def test_standings_are_followed_behind_a_clock_that_was_put_back(
    store: RuleStore,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
) -> None:
    steady = itertools.count(0.0, pause)
    monkeypatch.setattr(evidence_cache, "monotonic", lambda: next(steady))
    other = await open_store(tmp_path, clock=clock)
    rule = await write(store, "one", axis(0))
    hits = []
    for number, jump in enumerate((DAY, -DAY, 1, -2 * DAY)):
        clock.forward(jump)
        await used(other, f"ep_{number}", rule.id)
        for each in (store, other):
            await each.catch_up()
        known = [each.evidence.standing_of(rule.id) for each in (store, other)]
        assert known[0] == known[1]
        assert known[0] is not None
        hits.append(round(known[0].with_rule.hits, 6))
    assert hits == sorted(set(hits)), "each of them was seen by both"
    await other.close()


async def test_standings_that_have_been_followed_are_not_read_again(
    store: RuleStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [await write(store, f"rule {number}", axis(number)) for number in range(3)]
    for number, rule in enumerate(rules):
        await used(store, f"ep_{number}", rule.id)
    read: list[int] = []
    since = standings.since

    async def counted(*arguments: Any) -> list[Standing]:
        found = await since(*arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(standings, "since", counted)
    await store.catch_up()
    clock.forward(60)
    # One may have been committed late.
    await store.catch_up()
    soon = time.monotonic()
    monkeypatch.setattr(evidence_cache, "monotonic", lambda: soon + 60)
    await store.catch_up()
    await used(store, "ep", rules[0].id)
    await store.catch_up()
    assert read == [3, 3, 0, 1]


async def test_a_clock_that_jumps_ahead_deletes_nothing(store: RuleStore, clock: Clock) -> None:
    await store.namespaces.change_settings("default", {"retention_days": 2}, change=WHO)
    await learn(store, "ep", draft("x", axis(0)))
    passed = 0.0
    steady = SteadyClock(clock, lambda: passed)
    clock.forward(365 * DAY)
    assert await store.episodes.expire(steady()) == 0
    clock.forward(-365 * DAY)
    assert await store.episodes.expire(steady()) == 0
    # Days that have passed count.
    clock.forward(2 * DAY + 1)
    passed = 2 * DAY + 1
    assert await store.episodes.expire(steady()) == 1


@pytest.mark.sqlite
def test_steady_time_goes_back_but_not_ahead_of_itself() -> None:
    now, passed = datetime(2026, 1, 1, tzinfo=UTC), 100.0
    steady = SteadyClock(lambda: now, lambda: passed)
    begun = now
    now, passed = begun + timedelta(days=9), 160.0
    assert steady() == begun + timedelta(seconds=60)
    now = begun - timedelta(days=1)
    assert steady() == now
    assert abs(SteadyClock()() - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.sqlite
async def test_an_entry_of_the_queue_for_tomorrow_is_handed_out_today(
    postgres_server: str,
) -> None:
    with postgres.database(postgres_server) as url:
        queue = LearningQueue(url, lease=5.0)
        await queue.prepare()
        async with queue.app.open_async():
            await queue.mend(["tomorrow", "soon"])
            ahead = "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '{}' WHERE {}"
            postgres.query(url, ahead.format("1 day", "queueing_lock = 'learn:tomorrow'"))
            postgres.query(url, ahead.format("5 minutes", "queueing_lock = 'learn:soon'"))
            assert await queue.mend([]) == 0
        due = "SELECT queueing_lock FROM procrastinate_jobs WHERE scheduled_at IS NULL"
        assert postgres.query(url, due) == [("learn:tomorrow",)]
