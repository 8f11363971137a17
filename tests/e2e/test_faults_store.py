"""A database that is not there at the start, full, locked or slow: answers go on, and whatever was
to be learned is learned once when it is back. `test_database_away` has those that die and hang."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import postgres
from tests.compat.helpers import ask, script_majority
from tests.compat.test_concurrency import (
    SUBJECTS,
    check_index_parity,
    question_about,
    script_learning,
)
from tests.e2e.service import service, start
from tests.e2e.slow_line import slow_line
from tests.fakes import Reply, ScriptedUpstream, is_student
from tests.gateway import Gateway

SPACE = "faulty"
LONGEST = 8.0
"""Seconds that an answer may take, whatever the database does."""


@pytest.fixture
def settings(upstream: ScriptedUpstream) -> dict[str, str]:
    return {
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "students": "2",
        "job_lease": "1",
        "job_attempts": "10",
        "embedding_timeout": "10",
    }


async def answer(gateway: Gateway, number: int, **fields: Any) -> httpx.Response:
    """To the question of this number. It has to come in time and to be whole."""
    body = ask("steer", question_about(SUBJECTS[number]), ttcl={"namespace": SPACE}, **fields)
    begun = time.monotonic()
    response = await gateway.post(body)
    assert response.status_code == 200, response.text
    assert time.monotonic() - begun < LONGEST, "the answer waited for the database"
    assert response.json()["choices"][0]["message"]["content"]
    return response


def degraded(response: httpx.Response) -> list[str]:
    return response.json()["ttcl"]["degraded"] or []


async def whole_again(gateway: Gateway, number: int) -> httpx.Response:
    """The first answer that lacks nothing; the tries before it were not recorded."""
    deadline = time.monotonic() + 20
    while True:
        response = await answer(gateway, number)
        if not degraded(response):
            return response
        assert time.monotonic() < deadline, degraded(response)


@contextlib.asynccontextmanager
async def asked(
    gateway: Gateway, upstream: ScriptedUpstream, number: int
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """The question of this number is on its way: its episode has begun and the model server has
    it. The model's answer comes at the end of the block."""
    held = True
    upstream.when(lambda body: asks(body, number), Reply("\\boxed{7}", held=lambda: held))
    task = asyncio.create_task(answer(gateway, number))

    def begun() -> bool:
        listed = gateway.admin("GET", "/episodes", params={"limit": "100"}).json()["data"]
        return any(SUBJECTS[number] in episode["question"] for episode in listed)

    try:
        # The episode's first write goes on beside the call.
        await upstream.until(lambda: any(c.open and asks(c.body, number) for c in upstream.chats))
        await upstream.until(begun)
        yield task
    finally:
        held = False


async def check_learned(gateway: Gateway, *answers: httpx.Response) -> None:
    """Each of these, once; and nothing but these and the first question of all."""
    for response in answers:
        episode = response.headers["x-ttcl-episode"]
        settled = await asyncio.to_thread(gateway.settled, episode, 40)
        assert settled["status"] == "learned", settled["reason"]
        assert len(settled["rules_learned"]) == 2
    rules = gateway.rules(SPACE)
    assert len(rules) == len({rule["text"] for rule in rules})
    assert {rule["frequency"] for rule in rules} == {1}
    check_index_parity(gateway, 2 * len(answers))
    listed = gateway.admin("GET", "/episodes", params={"limit": "100"}).json()["data"]
    assert {each["status"] for each in listed} == {"learned"}


def script(upstream: ScriptedUpstream) -> None:
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")


# -- not there


def test_without_a_database_a_start_says_so_and_ends(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    """Whoever supervises the process starts it again (`restart:` in docker-compose.yml)."""
    url = "postgresql://ttcl:hunter2secret@127.0.0.1:1/ttcl"
    given = {**settings, "database_url": url, "port": "0", "log_level": "DEBUG"}
    logs = {command: tmp_path / f"{command}.log" for command in ("serve", "worker")}
    started = [start(tmp_path, log, command, **given) for command, log in logs.items()]
    for process, log in zip(started, logs.values(), strict=True):
        assert process.wait(40) == 2
        said = log.read_text()
        assert "ttcl: The database can't be used now" in said
        assert "Traceback" not in said
        assert "hunter2secret" not in said


# -- full


async def test_a_full_disk_costs_rules_and_no_answers(
    tmp_path: Path, settings: dict[str, str], upstream: ScriptedUpstream
) -> None:
    held = False
    upstream.when(lambda body: held and is_student(body), Reply("\\boxed{7}", delay=2))
    script(upstream)
    with service(tmp_path, **settings, learn_call_concurrency="8") as (gateway, process):
        first = await whole_again(gateway, 0)
        episode = first.headers["x-ttcl-episode"]
        assert (await asyncio.to_thread(gateway.settled, episode, 20))["status"] == "learned"
        # One job is under way when the disk is full.
        held = True
        second = await answer(gateway, 1)
        await upstream.until(lambda: any(c.open and is_student(c.body) for c in upstream.chats))
        held = False
        # No file may grow beyond two pages, not even one that is written from its start again.
        log = tmp_path / "serve.log"
        os.truncate(log, 0)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        for number in (2, 3):
            response = await answer(gateway, number)
            assert degraded(response) == ["store_unavailable"]
            assert response.headers["x-ttcl-rules"] == ""
        listed = gateway.admin("GET", "/rules", params={"namespace": SPACE})
        assert listed.json()["total"] == 2, "what can be read is read"
        written = gateway.admin("POST", "/rules", json=rule())
        assert written.status_code == 503, written.text
        assert written.json()["error"]["code"] == "store_unavailable"
        assert written.headers["retry-after"]
        # What it has learned meets a disk that is full.
        await upstream.until(lambda: "learning waits for the store" in log.read_text(), 15)
        limit = resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        third = await whole_again(gateway, 4)
        await check_learned(gateway, first, second, third)
        assert process.poll() is None


def rule() -> dict[str, str]:
    return {
        "namespace": SPACE,
        "polarity": "positive",
        "text": "Count what is left before answering. " * 50,
        "state": "active",
        "actor": "tests",
        "reason": "arranged by a test",
    }


# -- locked


async def test_a_locked_file_costs_rules_and_no_answers(
    tmp_path: Path, settings: dict[str, str], upstream: ScriptedUpstream
) -> None:
    script(upstream)
    with service(tmp_path, **settings) as (gateway, _):
        first = await whole_again(gateway, 0)
        other = sqlite3.connect(tmp_path / "ttcl.db", isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN EXCLUSIVE")
            assert degraded(await answer(gateway, 1)) == ["store_unavailable"]
            other.execute("ROLLBACK")
            second = await whole_again(gateway, 2)
            # Locked for a while, once the model is at work: that is waited for.
            async with asked(gateway, upstream, 3) as task:
                other.execute("BEGIN EXCLUSIVE")
            done, _ = await asyncio.wait({task}, timeout=0.3)
            assert not done, "the episode is recorded before its answer ends"
            other.execute("ROLLBACK")
            third = await task
            assert degraded(third) == []
        await check_learned(gateway, first, second, third)


def asks(body: dict[str, Any], number: int) -> bool:
    """Whether it is the client's own request."""
    return SUBJECTS[number] in str(body["messages"]) and "temperature" not in body


# -- slow


async def test_a_slow_database_delays_no_answer_for_long(
    tmp_path: Path,
    settings: dict[str, str],
    upstream: ScriptedUpstream,
    postgres_server: str,
) -> None:
    script(upstream)
    with (
        postgres.database(postgres_server) as url,
        slow_line(int(url.rsplit(":", 1)[1].split("/")[0])) as line,
        service(
            tmp_path,
            **{**settings, "job_lease": "5"},
            database_url=url.replace(url.rsplit(":", 1)[1].split("/")[0], str(line.port)),
        ) as (gateway, _),
    ):
        first = await whole_again(gateway, 0)
        line.delay = 0.05
        second = await answer(gateway, 1)
        assert degraded(second) == [], "slow is not away"
        line.delay = 60.0
        assert degraded(await answer(gateway, 2)) == ["store_unavailable"]
        line.delay = 0.0
        third = await whole_again(gateway, 3)
        # So slow only when the model has been asked.
        async with asked(gateway, upstream, 4) as task:
            line.delay = 60.0
        late = await task
        assert degraded(late) == ["episode_not_recorded"]
        line.delay = 0.0
        for response in (first, second, third):
            episode = response.headers["x-ttcl-episode"]
            settled = await asyncio.to_thread(gateway.settled, episode, 40)
            assert settled["status"] == "learned", settled["reason"]
        texts = [rule["text"] for rule in gateway.rules(SPACE)]
        assert len(texts) == len(set(texts))
        for subject in (SUBJECTS[number] for number in (0, 1, 3)):
            assert f"Write {subject} beside every {subject} figure." in texts
