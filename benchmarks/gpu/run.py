"""One sitting on the GPU machine: engine, checks, arms, and what comes back. Standard library only;
checks and arms run in processes that have ttcl's packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu import engine as engines
from benchmarks.gpu.machine import Machine, convert
from benchmarks.gpu.steps import Sitting

PACKING = 20.0
"""Seconds that are kept for packing the results."""
STOPPING = 10.0
"""Seconds that an arm has to end after it was told."""
RESULTS = "results.tar.xz"
CALLS_LIMIT = 15 << 20
"""Bytes of one file that comes back."""
_REPORTED = ("run.json", "questions.jsonl", "results.jsonl", "rules.jsonl")
"""Files of a run that its report is made of."""
_BENCH = "from benchmarks.cli import app; app()"
STREAM_ARMS = "zero-shot,neighbour,knn@4,self-icl@4"


@dataclass(frozen=True, slots=True)
class Job:
    """One process: some arms of a task, in a run folder of their own."""

    name: str
    task: str
    data: Path
    arms: str
    step: int
    """Questions of a step."""
    feedback: str = "none"
    limit: int | None = None
    max_tokens: int | None = None

    def command(self, url: str, folder: Path) -> list[str]:
        # The engine's processes come first where cores are short.
        command = ["nice", "-n", "5", sys.executable, "-c", _BENCH, "run", "--task", self.task]
        command += ["--data", str(self.data), "--arms", self.arms, "--feedback", self.feedback]
        command += ["--concurrency", str(self.step), "--parallel", "1024"]
        command += ["--upstream", f"{url}/v1", "--out", str(folder)]
        if self.limit is not None:
            command += ["--limit", str(self.limit)]
        if self.max_tokens is not None:
            command += ["--max-tokens", str(self.max_tokens)]
        return command


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sitting does. `dummy`: with random weights, for checks before the weights came."""

    backend: str
    checks: bool
    jobs: Sequence[Job]
    dummy: bool
    small: bool
    keep_engine: bool


def sit(machine: Machine, plan: Plan, out: Path, sitting: Sitting) -> None:
    """Everything in turn; results so far are packed into `out` however it ends. Raises `NoEngine`,
    `CalledProcessError`."""
    runs = machine.work / "runs"
    _unpack_earlier(machine, runs)
    try:
        with _engine(machine, plan, out, sitting) as engine:
            if plan.checks:
                _check(machine, plan, engine.url, out, sitting)
            if plan.jobs:
                _jobs(machine, plan, engine.url, runs, out, sitting)
    finally:
        with sitting.step("pack results") as row:
            row["bytes"] = collect(runs, out)


@contextmanager
def _engine(machine: Machine, plan: Plan, out: Path, sitting: Sitting) -> Iterator[engines.Engine]:
    """The running engine of the plan's weights; one with others is replaced."""
    model = machine.model_file
    if plan.backend == "vllm":
        model = convert(machine, sitting, dummy=plan.dummy)
    engine = engines.running(machine)
    if engine is not None and engine.dummy != plan.dummy:
        with sitting.step("stop engine"):
            engine.stop()
        engine = None
    if engine is None:
        engine = engines.start(
            machine,
            backend=plan.backend,
            model=model,
            dummy=plan.dummy,
            sitting=sitting,
            log=out / "engine.log",
        )
    try:
        yield engine
    finally:
        if not plan.keep_engine:
            with sitting.step("stop engine"):
                engine.stop()


def _check(machine: Machine, plan: Plan, url: str, out: Path, sitting: Sitting) -> None:
    name = "checks-dummy.jsonl" if plan.dummy else "checks.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu.checks", "--url", url]
    command += ["--model", machine.model_name, "--out", str(out / name)]
    if plan.small:
        command.append("--small")
    with sitting.step("checks") as row, (out / "checks.log").open("wb") as log:
        environment = machine.environment("ttcl", os.environ)
        # A group of its own: what is out of time leaves no gateway behind.
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            row["exit"] = process.wait(max(1.0, sitting.left() - PACKING))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            row["exit"] = "out of time"


def _jobs(machine: Machine, plan: Plan, url: str, runs: Path, out: Path, sitting: Sitting) -> None:
    """All side by side, until they end or the time is up."""
    environment = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}
    environment |= machine.environment("ttcl", os.environ)
    started = time.monotonic()

    def ended(name: str, how: int | str) -> None:
        sitting.note(f"arms {name}", seconds=round(time.monotonic() - started, 1), exit=how)

    running: dict[str, subprocess.Popen[bytes]] = {}
    for job in plan.jobs:
        with (out / f"{job.name}.log").open("wb") as log:
            running[job.name] = subprocess.Popen(
                job.command(url, runs / job.name),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    while running and sitting.left() > PACKING + STOPPING:
        time.sleep(0.5)
        for name, process in list(running.items()):
            if process.poll() is not None:
                ended(name, process.returncode)
                del running[name]
    for process in running.values():
        process.send_signal(signal.SIGINT)
    end = time.monotonic() + STOPPING
    for name, process in running.items():
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        ended(name, "out of time")


def collect(runs: Path, out: Path) -> int:
    """`results.tar.xz` with what reports are made of; and the calls of each run that is not
    finished, where they fit, so that a later sitting goes on. Returns the bytes of all."""
    out.mkdir(parents=True, exist_ok=True)
    folders = sorted(path for path in runs.glob("*") if (path / "run.json").is_file())
    packed = out / RESULTS
    with tarfile.open(packed, "w:xz", preset=1) as tar:
        for folder in folders:
            for name in _REPORTED:
                if (folder / name).is_file():
                    tar.add(folder / name, f"{folder.name}/{name}")
    size = packed.stat().st_size
    for folder in folders:
        if (folder / "report.md").is_file() or not (folder / "calls.jsonl").is_file():
            continue
        calls = out / f"calls-{folder.name}.tar.xz"
        with tarfile.open(calls, "w:xz", preset=0) as tar:
            tar.add(folder / "calls.jsonl", f"{folder.name}/calls.jsonl")
        if calls.stat().st_size > CALLS_LIMIT:
            calls.unlink()
        else:
            size += calls.stat().st_size
    return size


def _unpack_earlier(machine: Machine, runs: Path) -> None:
    """What earlier sittings brought back and `earlier/` of the work folder holds."""
    for packed in sorted((machine.work / "earlier").glob("*.tar.xz")):
        with tarfile.open(packed) as tar:
            tar.extractall(runs, filter="data")
        packed.rename(packed.with_suffix(".done"))
