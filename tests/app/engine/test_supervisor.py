"""The supervisor against a fake server: restarts, gives up, stops, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from app.engine.process import log_tail
from app.engine.supervisor import EngineState, EngineSupervisor, RestartPolicy, Supervisor
from app.exceptions import ConfigurationError, UpstreamUnavailable

FAKE = Path(__file__).with_name("fake_server.py")
QUICK = RestartPolicy(ready_within=20, attempts=3, steady_after=0, first_pause=0.01, grace=5)

Make = Callable[..., Supervisor]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Supervisor] = []

    def supervisor(*behaviour: str, policy: RestartPolicy = QUICK) -> Supervisor:
        def command(port: int) -> list[str]:
            return [sys.executable, str(FAKE), str(port), *behaviour]

        made.append(Supervisor(command, tmp_path / "engine.log", policy))
        return made[-1]

    yield supervisor
    for one in made:
        await one.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool], within: float = 20) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def test_becomes_ready_and_stops(make: Make) -> None:
    engine = make()
    assert engine.why_unavailable()
    await engine.start()
    assert engine.state is EngineState.STARTING
    assert engine.why_unavailable()
    await engine.wait_ready()
    assert engine.state is EngineState.READY
    assert engine.why_unavailable() is None
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{engine.base_url}/health")).status_code == 200
    pid = engine.pid
    assert pid is not None
    await engine.stop()
    assert engine.state is EngineState.STOPPED
    assert not alive(pid)
    await engine.stop()


async def test_killed_server_comes_back_on_the_same_port(make: Make) -> None:
    engine = make()
    await engine.start()
    await engine.wait_ready()
    url = engine.base_url
    for times in (1, 2, 3, 4):  # more often than quick failures are forgiven
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.restarts == times and engine.state is EngineState.READY)  # noqa: B023
    assert engine.base_url == url
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/health")).status_code == 200


async def test_restart_is_told_while_it_lasts(make: Make) -> None:
    engine = make(policy=RestartPolicy(ready_within=20, steady_after=0, first_pause=60))
    await engine.start()
    await engine.wait_ready()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.state is EngineState.RESTARTING)
    assert "restarting" in (engine.why_unavailable() or "")
    assert "killed by signal 9" in (engine.reason or "")
    await engine.stop()  # does not sit out the pause


async def test_gives_up_on_a_server_that_only_fails(make: Make) -> None:
    engine = make("die-at-once")
    await engine.start()
    with pytest.raises(UpstreamUnavailable) as raised:
        await engine.wait_ready()
    assert raised.value.status == 503
    assert "ended with code 3" in raised.value.message
    assert "the weights are mouldy" in raised.value.message
    assert engine.state is EngineState.FAILED
    assert engine.restarts == QUICK.attempts - 1
    assert str(engine.log_path) in (engine.why_unavailable() or "")


async def test_gives_up_on_a_server_that_never_answers(make: Make) -> None:
    engine = make("never-ready", policy=RestartPolicy(ready_within=0.3, attempts=1))
    await engine.start()
    await until(lambda: engine.state is EngineState.FAILED)
    assert "did not answer within 0.3 s" in (engine.reason or "")
    assert engine.pid is None


async def test_command_that_is_not_there(tmp_path: Path) -> None:
    policy = RestartPolicy(ready_within=1, attempts=1)
    engine = Supervisor(lambda port: ["/no/such/command"], tmp_path / "engine.log", policy)
    await engine.start()
    await until(lambda: engine.state is EngineState.FAILED)
    assert "can't be started" in (engine.reason or "")
    await engine.stop()


async def test_deaf_server_is_killed_after_the_grace(make: Make) -> None:
    engine = make("deaf", policy=RestartPolicy(ready_within=20, grace=0.2))
    await engine.start()
    await engine.wait_ready()
    pid = engine.pid
    assert pid is not None
    began = time.monotonic()
    await engine.stop()
    assert 0.2 <= time.monotonic() - began < 5
    assert not alive(pid)


async def test_stopped_while_starting_leaves_no_process(make: Make) -> None:
    engine = make("never-ready")
    await engine.start()
    await until(lambda: engine.pid is not None)
    pid = engine.pid
    assert pid is not None
    await engine.stop()
    assert not alive(pid)


async def test_a_model_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    engine = EngineSupervisor(backend="llama", model="/no/such.gguf", data_dir=tmp_path)
    with pytest.raises(ConfigurationError, match=r"/no/such\.gguf does not exist"):
        await engine.start()
    assert engine.state is EngineState.STOPPED


def test_back_off_doubles_up_to_a_limit() -> None:
    policy = RestartPolicy(ready_within=1, first_pause=0.5, longest_pause=3)
    assert [policy.pause(failures) for failures in (1, 2, 3, 4, 9)] == [0.5, 1, 2, 3, 3]


def test_log_tail_skips_empty_lines_and_reads_only_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == ""
    log.write_text("x" * 100_000 + "\none\n\n  \ntwo\nthree\n")
    assert log_tail(log, 3) == "one\ntwo\nthree"
