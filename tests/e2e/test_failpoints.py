"""kill -9 at every step from an answer to its rules: each episode ends once, and none is lost."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import closing, suppress
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
from tests.e2e.doomed import ANSWERING, LEARNING, TELLING, doomed
from tests.e2e.service import service
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import NO_TLS, Gateway


@pytest.fixture
def settings(stored: dict[str, str], upstream: ScriptedUpstream) -> dict[str, str]:
    return {
        **stored,
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "students": "2",
        "job_lease": "1",
        "job_attempts": "20",
    }


async def test_every_episode_ends_once_wherever_the_process_dies(
    tmp_path: Path, settings: dict[str, str], upstream: ScriptedUpstream
) -> None:
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    steps = dict(zip((*ANSWERING, *LEARNING), SUBJECTS, strict=False))
    for step, subject in steps.items():
        with doomed(tmp_path, step, f"at-{step}", **settings) as (gateway, process):
            body = ask("steer", question_about(subject), ttcl={"namespace": f"at-{step}"})
            try:
                answer = await gateway.post(body)
                assert answer.status_code == 200, answer.text
            except httpx.TransportError:
                assert step in ANSWERING
            await asyncio.to_thread(process.join, 20)
            assert process.exitcode == -signal.SIGKILL, step
    # Learned from or not, its client never had an answer: that is the only one to be lost.
    steps.pop("answered")
    with service(tmp_path, **settings) as (gateway, _):
        for step, subject in steps.items():
            where = {"namespace": f"at-{step}"}
            (episode,) = gateway.admin("GET", "/episodes", params=where).json()["data"]
            settled = await asyncio.to_thread(gateway.settled, episode["id"], 30)
            assert settled["status"] == "learned", (step, settled["reason"])
            rules = gateway.rules(f"at-{step}")
            assert {(rule["text"], rule["frequency"]) for rule in rules} == {
                (f"Write {subject} beside every {subject} figure.", 1),
                (f"Avoid mixing {subject} with strangers.", 1),
            }, step
            assert len(settled["rules_learned"]) == 2
        (cut,) = gateway.admin("GET", "/episodes", params={"namespace": "at-answered"}).json()[
            "data"
        ]
        if "database_url" in settings:
            # Another gateway may be at it: it is given an hour.
            assert cut["status"] == "pending"
        else:
            assert (cut["status"], cut["reason"]) == ("skipped", "interrupted")
        assert gateway.rules("at-answered") == []
        jobs = gateway.admin("GET", "/jobs", params={"limit": "100"}).json()
        assert jobs["total"] == len(steps)
        assert {job["state"] for job in jobs["data"]} == {"done"}
        check_index_parity(gateway, 2 * len(steps))
        if "database_url" in settings:
            await asyncio.to_thread(queue_emptied, settings["database_url"], 30)


WORK = "First I count what is there, and then what was lost of it. " * 5


async def test_feedback_teaches_once_wherever_the_process_dies(
    tmp_path: Path, settings: dict[str, str], upstream: ScriptedUpstream
) -> None:
    script_learning(upstream)
    script_majority(upstream, teacher=f"{WORK}\\boxed{{7}}", students=f"{WORK}\\boxed{{7}}")
    upstream.default = Reply(f"{WORK}\\boxed{{9}}")
    settings = {**settings, "learn_sample_rate": "0", "feedback_calls_per_answer": "20"}
    steps = dict(zip((*TELLING, *LEARNING), SUBJECTS, strict=False))
    for step, subject in steps.items():
        with doomed(tmp_path, step, f"at-{step}", **settings) as (gateway, process):
            body = ask("steer", question_about(subject), ttcl={"namespace": f"at-{step}"})
            answer = await gateway.post(body, x_request_id="r-1")
            assert answer.status_code == 200, answer.text
            # It may die before it has told the client, at whichever step.
            with suppress(httpx.TransportError):
                told = await tell(gateway, f"at-{step}")
                assert (told.status_code, step in TELLING) == (201, False), told.text
            await asyncio.to_thread(process.join, 20)
            assert process.exitcode == -signal.SIGKILL, step
    with service(tmp_path, **settings) as (gateway, _):
        for step, subject in steps.items():
            # A client that was not told sends it again, under the same key.
            again = await tell(gateway, f"at-{step}")
            assert again.status_code == 201, again.text
            assert again.json()["effect"]["lesson"]
            where = {"namespace": f"at-{step}"}
            (episode,) = gateway.admin("GET", "/episodes", params=where).json()["data"]
            shown = await asyncio.to_thread(taught, gateway, episode["id"], 30)
            assert len(shown["feedback"]) == 1, step
            rules = gateway.rules(f"at-{step}")
            assert {(rule["text"], rule["frequency"]) for rule in rules} == {
                (f"Write {subject} beside every {subject} figure.", 1),
                (f"Avoid mixing {subject} with strangers.", 1),
            }, step
            assert len(shown["rules_learned"]) == 2
        jobs = gateway.admin("GET", "/jobs", params={"limit": "100"}).json()
        assert {(job["kind"], job["state"]) for job in jobs["data"]} == {("feedback", "done")}
        assert jobs["total"] == len(steps)
        check_index_parity(gateway, 2 * len(steps))
    examples = "SELECT answer, label, state FROM examples"
    right = (f"{WORK}\\boxed{{7}}", "7", "active")
    assert stored_rows(tmp_path, settings, examples) == [right] * len(steps)
    paid = "SELECT CAST(SUM(answers_judged) AS INTEGER) FROM learn_spend"
    assert stored_rows(tmp_path, settings, paid) == [(len(steps),)]


async def tell(gateway: Gateway, namespace: str) -> httpx.Response:
    """The label of the request, under a key."""
    async with httpx.AsyncClient(timeout=30, verify=NO_TLS) as http:
        return await http.post(
            f"{gateway.base_url}/feedback",
            json={"request_id": "r-1", "label": "7", "key": "k"},
            headers={**gateway.headers, "X-TTCL-Namespace": namespace},
        )


def taught(gateway: Gateway, episode_id: str, within: float) -> dict[str, Any]:
    """The episode once its lesson is over."""
    until = time.monotonic() + within
    while True:
        shown = gateway.episode(episode_id)
        assert shown is not None
        if shown["status"] == "learned":
            return shown
        assert time.monotonic() < until, shown
        time.sleep(0.05)


def stored_rows(folder: Path, settings: dict[str, str], statement: str) -> list[tuple[Any, ...]]:
    if "database_url" in settings:
        return postgres.query(settings["database_url"], statement)
    with closing(sqlite3.connect(folder / "ttcl.db", timeout=5)) as connection:
        return connection.execute(statement).fetchall()


def queue_emptied(url: str, within: float) -> None:
    """An entry of a job that another entry has seen to may wait for its turn a little longer."""
    left = "SELECT id, status, scheduled_at FROM procrastinate_jobs WHERE status <> 'succeeded'"
    until = time.monotonic() + within
    while entries := postgres.query(url, left):
        assert time.monotonic() < until, entries
        time.sleep(0.1)
