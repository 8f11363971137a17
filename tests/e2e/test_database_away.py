"""A PostgreSQL that dies in use, hangs and comes back: answers go on, and say what they lack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import postgres
from tests.compat.helpers import ask, script_majority
from tests.compat.test_concurrency import SUBJECTS, question_about, script_learning
from tests.e2e.service import learning_process, service
from tests.fakes import ScriptedUpstream
from tests.gateway import Gateway

SPACE = "away"


@pytest.fixture
def server(postgres_server: str) -> Iterator[postgres.Server]:
    """One that may be stopped, beside the one that other tests share."""
    with postgres.open_folder() as folder, postgres.server(folder) as made:
        yield made


def question(gateway: Gateway, number: int) -> httpx.Response:
    body = ask("steer", question_about(SUBJECTS[number]), ttcl={"namespace": SPACE})
    begun = time.monotonic()
    answer = httpx.post(
        f"{gateway.base_url}/chat/completions", json=body, headers=gateway.headers, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - begun < 8, "the answer waited for the database"
    return answer


def whole(gateway: Gateway, number: int) -> httpx.Response:
    """The first answer that lacks nothing: a busy machine's database may be late, too."""
    deadline = time.monotonic() + 20
    while degraded(answer := question(gateway, number)):
        assert time.monotonic() < deadline
    return answer


def degraded(answer: httpx.Response) -> list[str]:
    return answer.json()["ttcl"]["degraded"] or []


def send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def test_answers_go_on_and_learning_is_taken_up_again(
    tmp_path: Path, server: postgres.Server, upstream: ScriptedUpstream
) -> None:
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    settings = {
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "students": "2",
        "job_lease": "2",
    }
    with (
        postgres.database(server.url) as url,
        service(tmp_path, **settings, database_url=url) as (gateway, process),
    ):
        first = await asyncio.to_thread(whole, gateway, 0)
        episode = first.headers["x-ttcl-episode"]
        assert (await asyncio.to_thread(gateway.settled, episode, 30))["status"] == "learned"
        await asyncio.to_thread(server.stop)
        for number in (1, 2):
            answer = await asyncio.to_thread(question, gateway, number)
            assert degraded(answer) == ["store_unavailable"]
            assert answer.headers["x-ttcl-rules"] == ""
        ready = httpx.get(f"{gateway.url}/readyz", timeout=20)
        assert ready.status_code == 200
        assert "database" in ready.json()["degraded"]
        listed = await asyncio.to_thread(gateway.admin, "GET", "/rules")
        assert listed.status_code == 503
        assert listed.json()["error"]["message"]
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(whole, gateway, 3)
        after = await asyncio.to_thread(whole, gateway, 4)
        episode = after.headers["x-ttcl-episode"]
        settled = await asyncio.to_thread(gateway.settled, episode, 40)
        assert settled["status"] == "learned", settled["reason"]
        ready = httpx.get(f"{gateway.url}/readyz", timeout=20).json()
        assert ready["status"] == "ready"
        # Whoever is told to end while the database is away ends all the same.
        with learning_process(tmp_path / "worker", **settings, database_url=url) as worker:
            await asyncio.to_thread(server.stop)
            for each in (process, worker):
                each.terminate()
            for each in (process, worker):
                assert await asyncio.to_thread(each.wait, 30) == 0
        await asyncio.to_thread(server.start)


async def test_a_server_that_hangs_holds_no_answer_up(
    tmp_path: Path, server: postgres.Server, upstream: ScriptedUpstream
) -> None:
    settings = {
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "learn": "false",
    }
    with (
        postgres.database(server.url) as url,
        service(tmp_path, **settings, database_url=url) as (gateway, _),
    ):
        await asyncio.to_thread(whole, gateway, 0)
        backends = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        pids = [pid for (pid,) in postgres.query(url, backends)]
        send(signal.SIGSTOP, pids)
        try:
            answer = await asyncio.to_thread(question, gateway, 1)
            assert degraded(answer) == ["store_unavailable"]
        finally:
            send(signal.SIGCONT, pids)
        await asyncio.to_thread(whole, gateway, 2)
