"""A server that was told to end with its parent does, as do the workers of one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.engine.standalone import lifetime
from tests.app.engine.test_supervisor import FAKE

SERVER = """
import subprocess, sys, time
worker = subprocess.Popen(["sleep", "60"])
print(worker.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    (tmp_path / "server_with_worker.py").write_text(SERVER)
    process = subprocess.Popen(
        [sys.executable, lifetime.__file__, "server_with_worker"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.wait()


def running(pid: int) -> bool:
    """Not counting a process that is dead but not yet reaped by its new parent."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def gone(pid: int, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(pid)


def test_ends_with_its_workers_when_its_input_closes(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    process, worker = server
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert gone(worker)


def test_workers_of_a_killed_server_end(server: tuple[subprocess.Popen[str], int]) -> None:
    process, worker = server
    assert running(worker)
    process.kill()
    assert gone(worker)


PARENT = """
import asyncio, pathlib, sys
from app.engine.supervisor import RestartPolicy, Supervisor

async def main():
    fake, log = sys.argv[1:]
    command = lambda port: [sys.executable, fake, str(port)]
    engine = Supervisor(command, pathlib.Path(log), RestartPolicy(ready_within=20))
    await engine.start()
    await engine.wait_ready()
    print("pid", engine.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_killed_parent_takes_the_server_along(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(FAKE), str(tmp_path / "engine.log")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    line = next(line for line in parent.stdout if line.startswith("pid "))
    server = int(line.split()[1])
    assert running(server)
    parent.kill()
    parent.communicate()
    assert gone(server)
