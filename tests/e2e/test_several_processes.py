"""`ttcl serve --workers 2`: one service to its clients, its operator and whoever stops it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import httpx

from tests import postgres
from tests.e2e.service import service, start
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import MODEL, Gateway

SLOW = "how long does a transfer take"


def children(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            # Another one helps multiprocessing to clean up.
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                found.add(child)
    return found


def counted(gateway: Gateway) -> int:
    """Answers, as whichever process is asked tells."""
    text = httpx.get(f"{gateway.url}/metrics").text
    found = re.search(r'^ttcl_requests_total\{mode="steer",status="200"\} (\S+)$', text, re.M)
    return int(float(found[1])) if found else 0


def opened(gateway: Gateway) -> float:
    text = httpx.get(f"{gateway.url}/metrics").text
    found = re.search(r"^ttcl_requests_open (\S+)$", text, re.M)
    assert found is not None, text
    return float(found[1])


async def ask(gateway: Gateway, text: str) -> httpx.Response:
    """On a connection of its own."""
    return await gateway.post({"model": MODEL, "messages": [{"role": "user", "content": text}]})


async def test_two_processes_are_one_service(
    tmp_path: Path, upstream: ScriptedUpstream, postgres_server: str
) -> None:
    upstream.when(SLOW, Reply("A day.", delay=1.0))
    with (
        postgres.database(postgres_server) as url,
        service(
            tmp_path,
            within=180,
            upstream_base_url=upstream.base_url,
            embedding_base_url=upstream.base_url,
            embedding_model="hash-384",
            learn="false",
            workers="2",
            database_url=url,
        ) as (gateway, process),
    ):
        log = tmp_path / "serve.log"
        assert log.read_text().count("admin key:") == 1
        answers = await asyncio.gather(*(ask(gateway, f"question {n}") for n in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert {await asyncio.to_thread(counted, gateway) for _ in range(6)} == {8}
        assert await asyncio.to_thread(opened, gateway) == 0
        # One that dies is replaced, and what it had counted stays.
        before = children(process.pid)
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        deadline = time.monotonic() + 90
        while len(children(process.pid) - {min(before)}) < 2:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            await asyncio.sleep(0.1)
        assert (await ask(gateway, "question 9")).status_code == 200
        assert await asyncio.to_thread(counted, gateway) == 9
        # What is under way when the service is told to stop is answered.
        slow = [asyncio.create_task(ask(gateway, f"{SLOW} {n}")) for n in range(4)]
        await upstream.until(lambda: sum(call.open for call in upstream.chats) == 4)
        process.terminate()
        assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}
        assert await asyncio.to_thread(process.wait, 60) == 0
        assert "Traceback" not in log.read_text()


def test_a_database_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    url = "postgresql://ttcl:secret@127.0.0.1:1/ttcl"
    log = tmp_path / "serve.log"
    process = start(
        tmp_path,
        log,
        "serve",
        port="0",
        workers="2",
        upstream_base_url="http://127.0.0.1:1",
        database_url=url,
    )
    # Not as long as one that is slow to start would be waited for.
    assert process.wait(60) == 2
    said = log.read_text()
    assert "ttcl: The database can't be used now" in said
    assert "Traceback" not in said
