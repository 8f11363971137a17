"""One sitting on the GPU machine: engine, checks, arms, and what comes back. Standard library only;
checks and arms run in processes that have ttcl's packages."""

from __future__ import annotations

import io
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu import engine as engines
from benchmarks.gpu.machine import Machine, convert
from benchmarks.gpu.plan import Job
from benchmarks.gpu.steps import Sitting

PACKING = 20.0
"""Seconds that are kept for packing the results."""
STOPPING = 10.0
"""Seconds that an arm has to end after it was told."""
RESULTS = "results.tar.xz"
CALLS_LIMIT = 15 << 20
"""Bytes of the file of calls that comes back."""
LIFT = "lift"
"""Folder in that of a run with what its rules are worth."""
_REPORTED = (
    *("run.json", "questions.jsonl", "results.jsonl", "rules.jsonl"),
    *(f"{LIFT}/lift.jsonl", f"{LIFT}/lift.md"),
)
"""Files of a run that its report is made of."""
CALLS = "calls.tar"
LOGS = "logs.tar.xz"
NICENESS = (5, 15)
"""Of the first job and of the last: the engine's processes come first where cores are short."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sitting does. `dummy`: with random weights, for checks before the weights came."""

    backend: str
    checks: bool
    jobs: Sequence[Job]
    """The most important first."""
    processes: int
    """Jobs side by side at most."""
    dummy: bool
    small: bool
    keep_engine: bool
    lift: int = 0
    """Held-out questions on which each rule is measured afterwards; 0: rules are not."""


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
                _jobs(machine, plan, engine.url, runs, sitting)
    finally:
        with sitting.step("pack results") as row:
            row["bytes"] = collect(runs, out, [job.name for job in plan.jobs])
            _pack_logs(machine, out)


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


def _jobs(machine: Machine, plan: Plan, url: str, runs: Path, sitting: Sitting) -> None:
    """As many side by side as the plan allows, until they end or the time is up; then, in what is
    left, what the rules are worth that they have written."""
    first, last = NICENESS
    commands = [
        Command(
            job.name,
            job.command(
                url,
                runs / job.name,
                niceness=first + (last - first) * place // len(plan.jobs),
            ),
        )
        for place, job in enumerate(plan.jobs)
    ]
    environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= machine.environment("ttcl", os.environ)
    logs = machine.work / "logs"
    side_by_side(commands, plan.processes, environment, logs, sitting, "arms")
    if plan.lift:
        written = lifts(plan.jobs, runs, url, plan.lift)
        side_by_side(written, plan.processes, environment, logs, sitting, "lift")


@dataclass(frozen=True, slots=True)
class Command:
    """A process of a sitting. `name`: of its log; plain characters only."""

    name: str
    arguments: Sequence[str]


def lifts(jobs: Sequence[Job], runs: Path, url: str, questions: int) -> list[Command]:
    """A process for each finished run that has written rules: what each rule is worth on so many
    held-out questions."""
    found = []
    for job in jobs:
        folder = runs / job.name
        rules = folder / "rules.jsonl"
        if not (folder / "report.md").is_file() or b'"created"' not in rules.read_bytes():
            continue
        arguments = ["nice", "-n", str(NICENESS[1]), sys.executable, "-m", "benchmarks.rule_lift"]
        arguments += [str(folder), "--data", str(job.data), "--questions", str(questions)]
        arguments += ["--parallel", "256", "--upstream", f"{url}/v1", "--out", str(folder / LIFT)]
        found.append(Command(f"lift-{job.name}", arguments))
    return found


def side_by_side(
    commands: Sequence[Command],
    processes: int,
    environment: dict[str, str],
    logs: Path,
    sitting: Sitting,
    what: str,
) -> None:
    """Runs them in their order, so many at a time; those that are not done when the time is up are
    told to end."""
    logs.mkdir(exist_ok=True)
    started = time.monotonic()

    def ended(name: str, how: int | str) -> None:
        sitting.note(f"{what} {name}", seconds=round(time.monotonic() - started, 1), exit=how)

    waiting = deque(commands)
    running: dict[str, subprocess.Popen[bytes]] = {}
    while (waiting or running) and sitting.left() > PACKING + STOPPING:
        while waiting and len(running) < processes:
            command = waiting.popleft()
            with (logs / f"{command.name}.log").open("wb") as log:
                running[command.name] = subprocess.Popen(
                    command.arguments,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        time.sleep(0.2)
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
    for command in waiting:
        ended(command.name, "not begun")


def collect(runs: Path, out: Path, important: Sequence[str] = ()) -> int:
    """`results.tar.xz` with what reports are made of; and the calls of the runs that are not
    finished, as far as they fit, so that a later sitting goes on. `important`: names of runs whose
    calls come first. Returns the bytes of both."""
    out.mkdir(parents=True, exist_ok=True)
    folders = sorted(path for path in runs.glob("*") if (path / "run.json").is_file())
    packed = out / RESULTS
    with tarfile.open(packed, "w:xz", preset=1) as tar:
        for folder in folders:
            for name in _REPORTED:
                if (folder / name).is_file():
                    tar.add(folder / name, f"{folder.name}/{name}")
    order = {name: place for place, name in enumerate(important)}
    folders.sort(key=lambda folder: order.get(folder.name, len(order)))
    unfinished = [
        folder / "calls.jsonl"
        for folder in folders
        if (folder / "calls.jsonl").is_file() and not (folder / "report.md").is_file()
    ]
    return packed.stat().st_size + _pack_calls(unfinished, out / CALLS)


def _pack_calls(files: Sequence[Path], packed: Path) -> int:
    """Each compressed by itself, so that one which does not fit can be left out. Returns the bytes
    of the archive."""
    size = 0
    # The compression runs outside of the interpreter's lock.
    with tarfile.open(packed, "w") as tar, ThreadPoolExecutor() as pool:
        for file, content in zip(files, pool.map(_compressed, files), strict=True):
            if size + len(content) > CALLS_LIMIT:
                continue
            entry = tarfile.TarInfo(f"{file.parent.name}/{file.name}.xz")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            size += len(content)
    return packed.stat().st_size


def _compressed(file: Path) -> bytes:
    return lzma.compress(file.read_bytes(), preset=0)


def _pack_logs(machine: Machine, out: Path) -> None:
    with tarfile.open(out / LOGS, "w:xz", preset=1) as tar:
        for log in sorted((machine.work / "logs").glob("*.log")):
            tar.add(log, log.name)


def _unpack_earlier(machine: Machine, runs: Path) -> None:
    """What earlier sittings brought back and `earlier/` of the work folder holds."""
    for packed in sorted((machine.work / "earlier").glob("*.tar*")):
        with tarfile.open(packed) as tar:
            tar.extractall(runs, filter="data")
        packed.rename(packed.with_suffix(".done"))
    for compressed in runs.glob("*/calls.jsonl.xz"):
        compressed.with_suffix("").write_bytes(lzma.decompress(compressed.read_bytes()))
        compressed.unlink()
