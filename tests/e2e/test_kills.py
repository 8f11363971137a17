"""kill -9 in the midst of learning, over and over: every episode ends once, with a reason."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import httpx

from tests.compat.helpers import ask
from tests.compat.test_concurrency import SUBJECTS, question_about, script_learning
from tests.e2e.service import service
from tests.fakes import Reply, ScriptedUpstream

KILLS = int(os.environ.get("TEST_KILLS", "8"))
"""`TEST_KILLS=20` takes its time."""
LEARNED_ONCE = {"learned", "skipped", "failed"}


async def test_kills_lose_nothing_and_double_nothing(tmp_path) -> None:
    chance = random.Random(7)
    settings = {
        "embedding_model": "hash-384",
        "job_lease": "1",
        "job_attempts": "30",
        "learn_concurrency": "3",
        "students": "2",
    }
    asked: dict[str, str] = {}
    with ScriptedUpstream() as upstream:
        script_learning(upstream)
        upstream.when(lambda body: body.get("temperature") == 0.7, Reply("\\boxed{7}", delay=0.03))
        upstream.default = Reply("\\boxed{9}")
        where = {
            "upstream_base_url": upstream.base_url,
            "embedding_base_url": upstream.base_url,
        }
        for number in range(KILLS):
            with service(tmp_path, **settings, **where) as (gateway, process):
                for subject in SUBJECTS[2 * number : 2 * number + 2]:
                    body = ask("steer", question_about(subject), ttcl={"namespace": "killed"})
                    answer = await gateway.post(body)
                    assert answer.status_code == 200, answer.text
                    asked[answer.headers["x-ttcl-episode"]] = subject
                await asyncio.sleep(chance.uniform(0.0, 0.25))
                os.kill(process.pid, signal.SIGKILL)
                process.wait(10)
        with service(tmp_path, **settings, **where) as (gateway, _):
            for episode, subject in asked.items():
                settled = await asyncio.to_thread(gateway.settled, episode, 60)
                assert settled["status"] in LEARNED_ONCE
                assert settled["status"] == "learned" or settled["reason"]
                if settled["status"] == "learned":
                    assert len(settled["rules_learned"]) == 2, subject
            rules = gateway.rules("killed")
            texts = [rule["text"] for rule in rules]
            assert len(texts) == len(set(texts))
            assert {rule["frequency"] for rule in rules} == {1}
            learned = [
                episode
                for episode in asked
                if (gateway.episode(episode) or {}).get("status") == "learned"
            ]
            assert len(rules) == 2 * len(learned)
            assert len(learned) >= KILLS, "most of the jobs must have been learned from"
            ready = httpx.get(f"{gateway.url}/readyz", timeout=10).json()
            assert ready["checks"]["index"]["indexed"] == ready["checks"]["index"]["stored"]
