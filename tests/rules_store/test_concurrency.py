"""Many writers, lost processes, cancelled calls: nothing is lost, doubled or left in the index."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from rules_store.errors import StoreUnavailable
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Change
from rules_store.models.jobs import JobState
from rules_store.models.rules import RuleState
from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import (
    POSITIVE,
    all_rules,
    axis,
    begin,
    claimed,
    database_url,
    draft,
    learn,
    new_job,
    open_store,
    random_vector,
    sql,
    write,
)
from tests.rules_store.worker_process import NAMESPACES, WORDINGS, namespace_of, run


async def consistent(folder: Path, store: RuleStore) -> None:
    """The index equals SQL, and a store that is opened anew agrees."""
    await store.catch_up()
    fresh = await RuleStore.open(database_url(folder), embedding_model=store.embedding_model)
    for each in (store, fresh):
        assert (await each.parity()).ok
    assert store.context.index.entries() == fresh.context.index.entries()
    for namespace in await store.namespaces.names():
        query = random_vector(99_999)
        ours, theirs = (
            each.search(namespace, query, POSITIVE, 1000).hits for each in (store, fresh)
        )
        assert ours == theirs
    await fresh.close()


async def test_fifty_learners_at_once(store: RuleStore, tmp_path: Path) -> None:
    other = await open_store(tmp_path)
    spaces = ["default", "a", "b"]
    for name in spaces:
        await store.namespaces.ensure(name)

    async def request(number: int) -> None:
        each = (store, other)[number % 2]
        name, namespace = f"ep_{number}", spaces[number % 3]
        job = await claimed(each, name, namespace)
        wording = number // 3 % 5
        await each.jobs.apply(
            job, [draft(f"wording {wording}", random_vector(wording), namespace=namespace)]
        )

    await asyncio.gather(*(request(number) for number in range(50)))
    assert (await store.jobs.counts())[JobState.DONE] == 50
    assert (await store.stats()).episodes == {"learned": 50}
    expected = Counter((spaces[n % 3], f"wording {n // 3 % 5}") for n in range(50))
    rules = await all_rules(store)
    assert {(rule.namespace, rule.text): rule.frequency for rule in rules} == expected
    for each in (store, other):
        await consistent(tmp_path, each)
    await other.close()


@pytest.fixture(scope="module")
def spawn() -> Callable[..., BaseProcess]:
    """Starts worker processes; the imports are paid for once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.rules_store.worker_process"])

    def start(folder: Path, name: str, crash_at: int = 0) -> BaseProcess:
        server = os.environ.get(postgres.VARIABLE)  # the fork server knows an older environment
        process = context.Process(target=run, args=(folder, name, crash_at, server))
        process.start()
        return process

    return start


async def _jobs(store: RuleStore, count: int) -> None:
    for number in range(NAMESPACES):
        await store.namespaces.ensure(namespace_of(number))
    for number in range(count):
        name = f"ep_{number}"
        await begin(store, name, namespace_of(number))
        await store.episodes.finish(name, answer="a", trace={}, job_payload={"number": number})


async def _learned_exactly_once(folder: Path, store: RuleStore, count: int) -> None:
    assert (await store.stats()).episodes == {"learned": count}
    assert (await store.jobs.counts())[JobState.DONE] == count
    expected = Counter(
        (namespace_of(n), f"wording {n // NAMESPACES % WORDINGS}") for n in range(count)
    )
    rules = [rule for rule in await all_rules(store) if rule.namespace != "mine"]
    assert {(rule.namespace, rule.text): rule.frequency for rule in rules} == expected
    keys = sql(folder, "SELECT key FROM events WHERE key IS NOT NULL")
    assert sorted(keys) == sorted((f"ep_{n}:positive",) for n in range(count))
    assert all(rule.source_episode for rule in rules)
    await consistent(folder, store)


async def test_two_processes_learn_from_one_queue(
    tmp_path: Path, spawn: Callable[..., BaseProcess]
) -> None:
    store = await open_store(tmp_path)
    await _jobs(store, 40)
    await store.namespaces.ensure("mine")
    processes = [spawn(tmp_path, name) for name in ("one", "two")]
    # This process writes and reads all the while.
    mine = 0
    while any(process.is_alive() for process in processes):
        await write(store, f"mine {mine}", random_vector(1000 + mine), namespace="mine")
        mine += 1
        await asyncio.sleep(0.05)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(await all_rules(store, namespace="mine")) == mine
    await _learned_exactly_once(tmp_path, store, 40)
    await store.close()


async def test_kill_9_in_the_midst_of_applying(
    tmp_path: Path, spawn: Callable[..., BaseProcess]
) -> None:
    """A process dies at one statement of the transaction after the other; the next takes over."""
    store = await open_store(tmp_path)
    await _jobs(store, 12)
    for statement in range(1, 21, 2):
        process = spawn(tmp_path, f"doomed {statement}", statement)
        await asyncio.to_thread(process.join, 60)
        assert process.exitcode == -signal.SIGKILL
    survivor = spawn(tmp_path, "survivor")
    await asyncio.to_thread(survivor.join, 60)
    assert survivor.exitcode == 0
    await _learned_exactly_once(tmp_path, store, 12)
    await store.close()


async def test_calls_that_are_cancelled_anywhere(store: RuleStore, tmp_path: Path) -> None:
    """Clients go away at any moment: each call has happened or has not, and the next one works."""
    rng = random.Random(7)
    for number in range(40):
        name = f"ep_{number}"

        async def request(name: str = name, number: int = number) -> None:
            await learn(store, name, draft(f"rule {number}", random_vector(number)))

        task = asyncio.create_task(request())
        await asyncio.sleep(rng.random() * 0.06)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await write(store, "still works", axis(0))
    learned = [
        episode
        for episode in (await store.episodes.list(limit=100)).items
        if episode.status is EpisodeStatus.LEARNED
    ]
    rules = {rule.source_episode for rule in await all_rules(store)} - {None}
    assert rules == {episode.id for episode in learned}
    assert (await store.jobs.counts())[JobState.DONE] == len(learned)
    await consistent(tmp_path, store)


@pytest.mark.sqlite
async def test_a_locked_database_leaves_the_index_alone(tmp_path: Path) -> None:
    store = await open_store(tmp_path, busy_timeout=0.2)
    await store.namespaces.ensure("default")
    job = await claimed(store, "ep_1")
    await new_job(store, "ep_2")
    blocker = await open_store(tmp_path)
    async with blocker.context.database.write():
        for call in (
            store.jobs.apply(job, [draft("x", axis(0))]),
            store.jobs.claim("w"),
            store.jobs.heartbeat(job),
            write(store, "y", axis(1)),
            store.namespaces.ensure("new"),
        ):
            with pytest.raises(StoreUnavailable, match=r"locked|busy"):
                await call
        assert not store.has_rules("default")
        assert store.search("default", axis(0), POSITIVE, 3).hits == ()
    await store.jobs.apply(job, [draft("x", axis(0))])
    await consistent(tmp_path, store)
    await blocker.close()
    await store.close()


async def test_searches_during_a_rebuild_and_writes(store: RuleStore, tmp_path: Path) -> None:
    for number in range(30):
        await write(store, f"rule {number}", random_vector(number))

    async def search() -> None:
        for _ in range(200):
            assert len(store.search("default", axis(0), POSITIVE, 10).hits) == 10
            await asyncio.sleep(0)

    async def change() -> None:
        for number in range(30, 45):
            rule = await write(store, f"rule {number}", random_vector(number))
            if number % 3 == 0:
                await store.rules.retire(rule.id, change=Change("m", "r"))

    async def rebuild() -> None:
        for _ in range(5):
            await store.rebuild()

    await asyncio.gather(search(), change(), rebuild())
    assert len(await all_rules(store, state=RuleState.ACTIVE)) == 40
    await consistent(tmp_path, store)


async def test_the_watcher_brings_what_others_wrote(
    store: RuleStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = await open_store(tmp_path)
    watching = asyncio.create_task(store.watch(0.02))
    await write(other, "theirs", axis(0))
    async with asyncio.timeout(5):
        while not store.has_rules("default"):
            await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await other.close()


async def test_the_watcher_survives_an_outage(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def failing() -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise StoreUnavailable("away")

    # This store's alone: gateways of other tests watch theirs in this process.
    monkeypatch.setattr(store.context.caches, "catch_up", failing)
    watching = asyncio.create_task(store.watch(0.001))
    async with asyncio.timeout(5):
        while calls < 6:
            await asyncio.sleep(0.005)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert caplog.text.count("can't keep up") == 1
