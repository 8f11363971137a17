"""The run on a GPU machine, played through on this one: pack, unpack, run, merge."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import ConfigurationError
from benchmarks.arms import make_arms
from benchmarks.feedback import FeedbackLevel
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.pack import trim
from benchmarks.gpu.pieces import BrokenPack, Joiner, cut, read_manifest, write_manifest
from benchmarks.gpu.plan import PLANS, planned
from benchmarks.gpu.run import Command, _unpack_earlier, collect, lifts, side_by_side
from benchmarks.gpu.steps import Sitting
from benchmarks.rundir import load_results
from benchmarks.taskfile import load_task

SUMS = "".join(
    json.dumps(
        {"id": f"sum-{n}", "question": f"What is {n} plus {n + 1}?", "answer": str(2 * n + 1)}
    )
    + "\n"
    for n in range(8)
)
TICKETS = "".join(
    json.dumps({"id": f"ticket-{n}", "question": text, "answer": label}) + "\n"
    for n, (text, label) in enumerate(
        [
            ("When will my new card be here?", "card_arrival"),
            ("The card that I ordered has not come.", "card_arrival"),
            ("How do I cancel a transfer?", "cancel_transfer"),
            ("Please stop the transfer that I just made.", "cancel_transfer"),
        ]
    )
)

PLAN = """
tasks = ["banking77"]
step = 2

[[passes]]
arms = ["zero-shot,knn@2", "experience"]
feedback = "label"

[[passes]]
arms = ["neighbour"]
feedback = "label"
label_noise = 0.5
first_order = 1
"""


def run(*arguments: str | Path) -> None:
    """In a process of its own, as on that machine."""
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.engine
def test_a_sitting_from_pack_to_report(tmp_path: Path) -> None:
    data = [tmp_path / "gsm8k-test.jsonl", tmp_path / "banking77-dev.jsonl"]
    for file, text in zip(data, (SUMS, TICKETS), strict=True):
        file.write_text(text)
    pack, work, out = (tmp_path / name for name in ("pack", "work", "out"))
    sizes = ["--model", "smollm2", "--piece-mib", "30"]
    run("pack", "--dry", "--out", pack, "--data", *data, *sizes)
    run("unpack", "--pack", pack, "--work", work)
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    arms = ["--task", "gsm8k", "--arms", "zero-shot,sc@2", "--plan", plan, "--max-tokens", "8"]
    run("run", "--dry", "--work", work, "--out", out, "--checks", "--seconds", "360", *arms)

    checks = [json.loads(line) for line in (out / "checks.jsonl").read_text().splitlines()]
    assert [row for row in checks if not row["ok"]] == []
    assert len(checks) == 12
    steps = {row["step"]: row for row in map(json.loads, (out / "steps.jsonl").open())}
    assert steps["arms gsm8k-sc_2"]["exit"] == 0
    assert steps["arms banking77-label-zero-shot_knn_2"]["exit"] == 0
    assert steps["arms banking77-label-noise50-order1-neighbour"]["exit"] == 0

    merged = tmp_path / "merged"
    # The same sitting twice: nothing counts double.
    results = out / "results.tar.xz"
    run("merge", results, results, "--out", merged)
    rows = list(load_results(merged / "gsm8k"))
    assert {row["arm"] for row in rows} == {"zero-shot", "sc@2"}
    assert len(rows) == 16
    assert len(list(load_results(merged / "banking77-label"))) == 12
    noisy = list(load_results(merged / "banking77-label-noise50-order1"))
    assert len(noisy) == 4
    assert sum("told" in row for row in noisy) == 2
    with tarfile.open(out / "logs.tar.xz") as logs:
        assert "banking77-label-zero-shot_knn_2.log" in logs.getnames()
    assert "sc@2" in (merged / "gsm8k" / "report.md").read_text()


@pytest.mark.parametrize(("plan", "limits"), [("streams", {300}), ("evidence", {300, 200, 100})])
def test_the_shipped_plans_name_arms_and_tasks_that_there_are(plan: str, limits: set[int]) -> None:
    jobs = planned(PLANS / f"{plan}.toml", Path, limit=None, max_tokens=None)
    assert {job.limit for job in jobs} == limits
    for job in jobs:
        make_arms(job.arms, feedback=FeedbackLevel(job.feedback))
        load_task(job.task)
    assert jobs[0].name == "banking77-label-experience"
    assert len({job.name for job in jobs}) == len(jobs)


def test_rules_are_tried_of_finished_runs_that_have_written_some(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "tasks = ['banking77']\n[[passes]]\nfeedback = 'label'\n"
        "arms = ['rules', 'experience', 'zero-shot', 'examples']"
    )
    jobs = planned(plan, lambda name: tmp_path / name, limit=None, max_tokens=None)
    for job, (rules, done) in zip(jobs, [(1, 1), (1, 0), (0, 1), (0, 0)], strict=True):
        folder = tmp_path / job.name
        if rules or done:
            folder.mkdir()
            (folder / "rules.jsonl").write_text('{"outcome": "created"}\n' if rules else "")
        if done:
            (folder / "report.md").touch()
    (found,) = lifts(jobs, tmp_path, "http://gpu:1", 30)
    assert found.name == "lift-banking77-label-rules"
    given = " ".join(found.arguments)
    assert f"benchmarks.rule_lift {tmp_path / 'banking77-label-rules'} " in given
    assert f"--data {tmp_path / 'banking77-dev.jsonl'} --questions 30 " in given
    assert "--upstream http://gpu:1/v1 " in given


class UpWhenBadHasEnded(Sitting):
    """Its time is up once a process of that name has ended."""

    up = False

    def note(self, name: str, **row: Any) -> None:
        super().note(name, **row)
        self.up |= name == "arms bad"

    def left(self) -> float:
        return 0.0 if self.up else 1000.0


def test_processes_end_or_are_ended_and_each_is_told_of(tmp_path: Path) -> None:
    def python(code: str) -> list[str]:
        return [sys.executable, "-S", "-c", code]

    commands = [
        Command("bad", python("print('said', flush=True); raise SystemExit(3)")),
        Command("long", python("import time; time.sleep(600)")),
        Command("late", python("pass")),
    ]
    sitting = UpWhenBadHasEnded(0, tmp_path / "steps.jsonl")
    side_by_side(commands, 2, {}, tmp_path / "logs", sitting, "arms")
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").open()]
    assert [(row["step"], row["exit"]) for row in steps] == [
        ("arms bad", 3),
        ("arms long", "out of time"),
        ("arms late", "not begun"),
    ]
    assert (tmp_path / "logs" / "bad.log").read_text() == "said\n"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("tasks = [", "can't be read"),
        ("tasks = ['gsm8k']", "has no [[passes]]"),
        ("[[passes]]\narms = ['paper']", "a pass lacks tasks"),
        ("[[passes]]\narms = ['paper']\ntasks = [1]", "tasks must be of list"),
        ("[[passes]]\narm = 'paper'", "'arm' is none of"),
        ("arms = ['paper']\n[[passes]]\ntasks = ['gsm8k']", "'arms' is none of"),
        ("[[passes]]\narms = ['paper', 'paper']\ntasks = ['gsm8k']", "gsm8k-paper twice"),
    ],
)
def test_a_plan_that_cannot_be_run_is_one_sentence(plan: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(plan)
    with pytest.raises(ConfigurationError) as raised:
        planned(file, Path, limit=None, max_tokens=None)
    assert said in str(raised.value)


def test_calls_of_unfinished_runs_come_back_and_go_on_the_important_ones_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for name in ("a", "b", "done"):
        (runs / name).mkdir(parents=True)
        (runs / name / "run.json").write_text("{}")
        (runs / name / "calls.jsonl").write_bytes(random.Random(name).randbytes(1000))
    (runs / "done" / "report.md").touch()
    monkeypatch.setattr("benchmarks.gpu.run.CALLS_LIMIT", 1500)
    collect(runs, out, ["b", "a"])
    work = tmp_path / "work"
    shutil.copytree(out, work / "earlier")
    _unpack_earlier(Machine(work), work / "runs")
    assert sorted(path.parent.name for path in (work / "runs").glob("*/run.json")) == [
        "a",
        "b",
        "done",
    ]
    (calls,) = (work / "runs").glob("*/calls.jsonl*")
    assert calls == work / "runs" / "b" / "calls.jsonl"
    assert calls.read_bytes() == (runs / "b" / "calls.jsonl").read_bytes()


def test_pieces_arrive_in_any_order_and_are_taken_once(tmp_path: Path) -> None:
    pack, work, copied = (tmp_path / name for name in ("pack", "work", "copied"))
    for folder in (pack, copied):
        folder.mkdir()
    whole = bytes(range(256)) * 10
    (tmp_path / "source").write_bytes(whole)
    file = cut(tmp_path / "source", "model/weights.gguf", pack, 1000)
    write_manifest(pack, [file], {})
    files, _ = read_manifest(pack)
    assert files == [file]
    assert [piece.size for piece in file.pieces] == [1000, 1000, 560]
    for piece in reversed(file.pieces):
        joiner = Joiner(work, files)
        assert not joiner.complete(file)
        (pack / piece.name).rename(copied / piece.name)
        assert joiner.take(copied) == 1
        assert joiner.take(copied) == 0
        assert (work / file.name).stat().st_size == len(whole), "its whole size from the start"
        (copied / piece.name).unlink()
    joiner = Joiner(work, files)
    assert joiner.complete(file)
    assert joiner.missing() == []
    assert (work / file.name).read_bytes() == whole


def test_a_damaged_piece_is_named_and_can_be_copied_again(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100)
    file = cut(tmp_path / "source", "data/x", tmp_path, 60)
    damaged = tmp_path / file.pieces[1].name
    content = damaged.read_bytes()
    damaged.write_bytes(b"y" + content[1:])
    joiner = Joiner(tmp_path / "work", [file])
    with pytest.raises(BrokenPack, match=file.pieces[1].name):
        joiner.take(tmp_path)
    damaged.write_bytes(content)
    joiner.take(tmp_path)
    assert joiner.path(file).read_bytes() == b"x" * 100


def test_a_trimmed_wheel_lists_what_it_holds(tmp_path: Path) -> None:
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/__init__.py", "")
        archive.writestr("thing/_moe_C.abi3.so", "binary")
        archive.writestr(
            "thing-1.0.dist-info/RECORD", "thing/__init__.py,,\nthing/_moe_C.abi3.so,,\n"
        )
    trim(wheel, ["thing/_moe_C*"])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["thing/__init__.py", "thing-1.0.dist-info/RECORD"]
        assert archive.read("thing-1.0.dist-info/RECORD") == b"thing/__init__.py,,\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pack", "--out", "{}", "--dry", "--model", "no.gguf"], "no.gguf does not exist"),
        (["pack", "--out", "{}", "--dry", "--data", "no.jsonl"], "no.jsonl does not exist"),
        (["unpack", "--pack", "{}", "--work", "{}"], "manifest.json is missing or damaged"),
        (["run", "--work", "{}", "--out", "{}/out"], "holds 0 of *.gguf: unpack"),
        (["merge", "{}", "--out", "{}/merged"], "none of the sources holds a run"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(tmp_path) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
