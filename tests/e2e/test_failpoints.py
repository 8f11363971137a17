"""kill -9 at every step from an answer to its rules: each episode ends once, and none is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

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
from tests.e2e.doomed import ANSWERING, LEARNING, doomed
from tests.e2e.service import service
from tests.fakes import ScriptedUpstream


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


def queue_emptied(url: str, within: float) -> None:
    """An entry of a job that another entry has seen to may wait for its turn a little longer."""
    left = "SELECT id, status, scheduled_at FROM procrastinate_jobs WHERE status <> 'succeeded'"
    until = time.monotonic() + within
    while entries := postgres.query(url, left):
        assert time.monotonic() < until, entries
        time.sleep(0.1)
