"""CPU time and memory of other processes (Linux), and the processes that are measured."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.exceptions import ConfigurationError
from benchmarks.serving.processes import Client, free_port

_TICK = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).parents[2]


def cpu(pid: int, thread: int | None = None) -> float:
    """Seconds of CPU that a process, or one of its threads, has had; in steps of a tick (10 ms)."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    fields = Path(path).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def loop_cpu(pid: int) -> float:
    """Of the event loop, which is a gateway's main thread."""
    return cpu(pid, pid)


def family(pid: int) -> list[int]:
    """A process and those that descend from it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


class FamilyCpu:
    """Seconds of CPU of a process and its descendants since this was made. One that ends takes the
    time since the last look with it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before: dict[int, float] = {}
        self._before = self._now()

    def since(self) -> float:
        now = self._now()
        return sum(value - self._before.get(pid, 0.0) for pid, value in now.items())

    def _now(self) -> dict[int, float]:
        known: dict[int, float] = {}
        for pid in family(self._pid):
            try:
                known[pid] = cpu(pid)
            except OSError:
                continue
        return known


@contextmanager
def running(arguments: list[str], variables: dict[str, str]) -> Iterator[int]:
    """A Python process with these TTCL_ variables alone; yields its id."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TTCL_")}
    named = {f"TTCL_{name}": value for name, value in variables.items()}
    # Away from the checkout, where a .env file may lie.
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**inherited, **named, "PYTHONPATH": str(_ROOT)},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def model_server() -> Iterator[int]:
    """Yields the port of `benchmarks.scaling.model`."""
    port = free_port()
    with running(["-m", "benchmarks.scaling.model", "--port", str(port)], {}):
        deadline = time.monotonic() + 60
        while True:
            try:
                Client(port).send("GET", "/health")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise ConfigurationError("the scripted model server did not start") from None
                time.sleep(0.1)
        yield port


def quiet(pid: int, seconds: float = 3.0, timeout: float = 90.0) -> None:
    """Returns when a process has used hardly any CPU for so long."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        used = FamilyCpu(pid)
        time.sleep(seconds)
        if used.since() < 0.1 * seconds:
            return
    raise ConfigurationError(f"process {pid} did not come to rest within {timeout:.0f} s")
