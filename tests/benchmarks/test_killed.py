"""A run that is killed again and again ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.journal import read_rows
from benchmarks.rundir import load_results
from tests.benchmarks.test_runner import without_times

COUNT = 12
KILLS = 5
PARALLEL = 8


def start(out: Path, delay: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.benchmarks.killed_run", str(out), str(COUNT)]
    return subprocess.Popen(
        [*command, str(delay)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(process: subprocess.Popen[bytes], calls: Path, target: int) -> None:
    """SIGKILL once that many calls are on disk."""
    deadline = time.monotonic() + 60
    while lines(calls) < target:
        assert process.poll() is None, "the run ended before it was to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_killed_five_times_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole, 0).wait(120) == 0
    total = lines(whole / "calls.jsonl")
    rng = random.Random(5)
    for target in sorted(rng.sample(range(3, total - 20), KILLS)):
        kill_after(start(broken, 0.02), broken / "calls.jsonl", target)
    # As after a loss of power in the middle of a write.
    with (broken / "calls.jsonl").open("ab") as file:
        file.write(b'{"key": "00')
    with (broken / "results.jsonl").open("ab") as file:
        file.write(b'{"arm": "pap')
    assert start(broken, 0).wait(120) == 0

    assert without_times(list(load_results(broken))) == without_times(list(load_results(whole)))
    keys = Counter(row["key"] for _, row in read_rows(broken / "calls.jsonl"))
    assert set(keys.values()) == {1}
    assert len(keys) == total
    # Only what was under way at a kill was asked again.
    assert lines(tmp_path / "broken.log") <= total + KILLS * PARALLEL
