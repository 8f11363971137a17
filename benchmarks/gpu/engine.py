"""The model server of a sitting, in a process group that outlives this program until it is stopped.
Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.machine import Machine
from benchmarks.gpu.steps import Sitting

PORT = 8011
START_SECONDS = 150.0
"""For one attempt: compiling and capturing graphs takes a minute the first time."""
CONTEXT = 8192
"""Tokens of prompt and answer."""
FLAGS: tuple[tuple[str, ...], ...] = (
    # Streams in pieces of 16 tokens: one event a token for a thousand streams is more than the
    # process that writes them can send. Several such processes (`--api-server-count 4`) did not
    # answer within 150 seconds.
    ("--stream-interval", "16"),
    ("--enforce-eager",),
)
"""What vLLM is started with beside the flags of `ttcl engine`; where it ends with the first, the
next is tried."""
_DUMMY = ("--load-format", "dummy")


class NoEngine(Exception):
    """The model server did not come up; the message has its last lines."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A running model server."""

    pid: int
    url: str
    flags: tuple[str, ...]

    @property
    def dummy(self) -> bool:
        """Whether its weights are random."""
        return set(_DUMMY) <= set(self.flags)

    def stop(self) -> None:
        for signum, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signum)
            if _gone(self.pid, patience):
                return


def start(
    machine: Machine, *, backend: str, model: Path, dummy: bool, sitting: Sitting, log: Path
) -> Engine:
    """Start `ttcl engine` and wait until it answers. Raises `NoEngine`."""
    said = ""
    for flags in _attempts(machine, backend, dummy=dummy):
        with sitting.step("start engine") as row:
            row["flags"] = " ".join(flags)
            process = _spawn(machine, backend, model, flags, log)
            url = f"http://127.0.0.1:{PORT}"
            if _answers(url, process, sitting):
                engine = Engine(process.pid, url, flags)
                _remember(machine, engine)
                return engine
            row["failed"] = f"exit code {process.poll()}"
        Engine(process.pid, url, flags).stop()
        said = log.read_text(errors="replace")[-2000:]
        if sitting.left() == 0:
            break
    raise NoEngine(f"the model server did not come up:\n{said}")


def running(machine: Machine) -> Engine | None:
    """The engine that an earlier call left running."""
    engine = _last(machine)
    if engine is None:
        return None
    try:
        os.killpg(engine.pid, 0)
    except OSError:
        return None
    return engine


def _attempts(machine: Machine, backend: str, *, dummy: bool) -> list[tuple[str, ...]]:
    """The flags that worked last come first."""
    if backend != "vllm":
        return [()]
    last = _last(machine)
    worked = () if last is None else tuple(flag for flag in last.flags if flag not in _DUMMY)
    attempts = sorted(FLAGS, key=lambda flags: flags != worked)
    return [(*flags, *_DUMMY) if dummy else flags for flags in attempts]


def _remember(machine: Machine, engine: Engine) -> None:
    (machine.work / "engine.json").write_text(json.dumps(asdict(engine)), encoding="utf-8")


def _last(machine: Machine) -> Engine | None:
    try:
        told = json.loads((machine.work / "engine.json").read_text(encoding="utf-8"))
        return Engine(told["pid"], told["url"], tuple(told["flags"]))
    except (OSError, ValueError):
        return None


def _spawn(
    machine: Machine, backend: str, model: Path, flags: Sequence[str], log: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "app.engine", "serve", "--backend", backend]
    command += ["--model", str(model), "--alias", machine.model_name, "--port", str(PORT)]
    command += ["--data-dir", str(machine.work / "engine"), "--ctx", str(CONTEXT)]
    environment = machine.environment("vllm", os.environ)
    if backend == "vllm":
        environment.setdefault("TTCL_VLLM_PYTHON", sys.executable)
        # Sampling by FlashInfer is the default on Hopper, and the pack leaves FlashInfer out.
        environment.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        command += ["--", *flags]
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _answers(url: str, process: subprocess.Popen[bytes], sitting: Sitting) -> bool:
    end = time.monotonic() + min(START_SECONDS, sitting.left())
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=2) as response:
                if response.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    return False


def _gone(pid: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
