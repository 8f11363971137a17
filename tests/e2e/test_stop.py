"""SIGTERM under load: answers end or say why not, the exit code is 0, every episode has an end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.compat.helpers import ask, check_error
from tests.compat.test_concurrency import SUBJECTS, question_about, script_learning
from tests.e2e.service import service
from tests.fakes import Reply, ScriptedUpstream, is_structured_step, is_student
from tests.gateway import SSE

SPACE = "stopped"
ENDLESS = SUBJECTS[:2]
QUICK = SUBJECTS[2:7]


@pytest.fixture
def settings(stored: dict[str, str], upstream: ScriptedUpstream) -> dict[str, str]:
    return {
        **stored,
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "students": "2",
        "stop_grace": "2",
        "job_lease": "1",
        "learn_concurrency": "4",
        "learn_call_concurrency": "8",
    }


def body(subject: str, mode: str = "steer") -> dict[str, Any]:
    return ask(mode, question_about(subject), ttcl={"namespace": SPACE})


async def test_streams_end_and_no_episode_is_left_open(
    tmp_path: Path, settings: dict[str, str], upstream: ScriptedUpstream
) -> None:
    upstream.when(lambda request: request.get("user") == "slow", Reply(delay=60))
    script_learning(upstream)
    words = "no end of words " * 400

    def streamed(request: dict[str, Any]) -> Reply:
        endless = any(subject in str(request["messages"]) for subject in ENDLESS)
        # The last words of the quick ones come well after the signal.
        text = words if endless else "one two three four five six"
        return Reply(text, chunk_delay=0.1)

    upstream.when(
        lambda request: not is_structured_step(request) and "temperature" not in request, streamed
    )
    upstream.when(is_student, Reply("\\boxed{7}", delay=0.05))
    upstream.default = Reply("\\boxed{9}", delay=0.05)
    with service(tmp_path, **settings) as (gateway, process):
        begun: list[SSE] = []

        async def client(subject: str) -> SSE:
            async with gateway.open_stream(body(subject)) as stream:
                begun.append(stream)
                await stream.read()
                return stream

        learned = await gateway.post(body(SUBJECTS[8]))  # its job is under way at the signal
        clients = [asyncio.create_task(client(subject)) for subject in (*ENDLESS, *QUICK)]
        whole = asyncio.create_task(gateway.post(body(SUBJECTS[9]) | {"user": "slow"}))
        await upstream.until(lambda: any(c.body.get("user") == "slow" for c in upstream.chats))
        await upstream.until(lambda: sum(bool(stream.raw) for stream in begun) == len(clients), 10)
        process.send_signal(signal.SIGTERM)
        streams = await asyncio.wait_for(asyncio.gather(*clients), 20)
        refused = await asyncio.wait_for(whole, 20)
        assert await asyncio.to_thread(process.wait, 20) == 0
        for stream in streams[: len(ENDLESS)]:
            (error,) = stream.errors()
            assert check_error({"error": error})["code"] == "stopping"
            assert (stream.done, stream.after_done, stream.finishes()) == (1, [], [])
            assert len(stream.text()) > 20
        for stream in streams[len(ENDLESS) :]:
            assert (stream.errors(), stream.done) == ([], 1)
            assert stream.text() == "one two three four five six"
        assert refused.status_code == 503
        assert check_error(refused.json())["code"] == "stopping"
        assert refused.headers["retry-after"]
        episodes = [stream.response.headers["x-ttcl-episode"] for stream in streams]
        episodes.append(learned.headers["x-ttcl-episode"])
        log = (tmp_path / "serve.log").read_text()
        assert "Traceback" not in log, log
    with service(tmp_path, **settings) as (gateway, _):
        for number, episode in enumerate(episodes):
            settled = await asyncio.to_thread(gateway.settled, episode, 30)
            if number < len(ENDLESS):
                assert (settled["status"], settled["reason"]) == ("skipped", "gateway_stopped")
            else:
                assert settled["status"] == "learned", settled["reason"]
        listed = gateway.admin("GET", "/episodes", params={"namespace": SPACE}).json()
        assert listed["total"] == len(episodes) + 1
        assert {each["status"] for each in listed["data"]} == {"skipped", "learned"}
        rules = gateway.rules(SPACE)
        assert len(rules) == 2 * (len(QUICK) + 1)
        assert {rule["frequency"] for rule in rules} == {1}
