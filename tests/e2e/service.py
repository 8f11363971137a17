"""`ttcl serve` as its users start it: a process of its own, configured by its environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.engine.address import free_port
from tests.gateway import ADMIN_KEY, CLIENT_KEY, NO_TLS, Gateway

ROOT = Path(__file__).parents[2]


@contextmanager
def service(
    folder: Path, *, within: float = 60, status: str = "ready", **settings: str
) -> Iterator[tuple[Gateway, subprocess.Popen[bytes]]]:
    """The gateway once /readyz says `status`. `settings` are variables without their prefix."""
    port = free_port()
    given = {"port": str(port), "students": "3", "policy": "paper", **settings}
    log = folder / "serve.log"
    process = start(folder, log, "serve", **given)
    try:
        gateway = Gateway(f"http://127.0.0.1:{port}")
        wait_until(gateway, lambda: process.poll() is None, log, within, status)
        yield gateway, process
    finally:
        end(process)


@contextmanager
def learning_process(folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ttcl worker`, once it works."""
    folder.mkdir(exist_ok=True)
    log = folder / "worker.log"
    process = start(folder, log, "worker", **settings)
    try:
        deadline = time.monotonic() + 60
        while "jobs at a time" not in log.read_text():
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, log.read_text()[-2000:]
            time.sleep(0.05)
        yield process
    finally:
        end(process)


def start(folder: Path, log: Path, command: str, **settings: str) -> subprocess.Popen[bytes]:
    """`settings` are variables without their prefix."""
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", command],
            cwd=ROOT,
            env=environment(folder, **settings),
            stdout=sink,
            stderr=sink,
        )


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Of a process with its data in `folder`; of our own variables it gets none from here."""
    given = {"api_keys": CLIENT_KEY, "admin_api_key": ADMIN_KEY, "data_dir": str(folder)}
    given |= {"learn_sample_rate": "1"} | settings
    others = {name: v for name, v in os.environ.items() if not name.startswith("TTCL_")}
    return others | {f"TTCL_{name.upper()}": value for name, value in given.items()}


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(40)


def wait_until(
    gateway: Gateway, alive: Callable[[], bool], log: Path, within: float, status: str
) -> None:
    deadline = time.monotonic() + within
    last = ""
    while time.monotonic() < deadline:
        assert alive(), log.read_text()[-2000:]
        try:
            answer = httpx.get(f"{gateway.url}/readyz", timeout=5, verify=NO_TLS).json()
            if answer["status"] == status:
                return
            last = str(answer)
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not {status} within {within} s: {last}\n{log.read_text()[-2000:]}")
