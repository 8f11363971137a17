"""The gated arms against a model that does what rules tell it to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from benchmarks.journal import read_rows
from benchmarks.poison import wrong_rules
from benchmarks.report.pages import write_report
from benchmarks.report.poisoned import poisoned
from benchmarks.report.results import read_run
from benchmarks.rundir import load_results
from benchmarks.runner import RunStopped
from benchmarks.session import RunOptions, run
from tests.benchmarks.scripted import ScriptedBackend, number_in, write_data
from tests.benchmarks.test_runner import Silent, accuracy, without_times
from tests.fakes import HashEmbedder

COUNT = 60


class Obedient(ScriptedBackend):
    """Its Teacher is wrong on every third question without advice, its Students now and then.
    Advice to count again helps; any wrong rule makes every answer wrong."""

    @staticmethod
    def _answer(text: str, params: dict[str, Any]) -> int:
        n = number_in(text)
        block = text.partition("<advice>")[2].partition("</advice>")[0]
        if any(wrong.text[:40] in block for wrong in wrong_rules()):
            return 2 * n + 7
        if "Count every" in block:
            return 2 * n
        if params["temperature"] == 0:
            return 2 * n + (n % 3 == 0)
        seed = hashlib.sha256(f"{n}/{params['seed']}".encode()).digest()[0]
        return 2 * n + (3 if seed < 40 else 0)


async def go(folder: Path, backend: ScriptedBackend, arms: str, **settings: Any) -> Any:
    data = write_data(folder.parent / "data.jsonl", COUNT)
    await run(
        RunOptions(task="gsm8k", data=str(data), out=folder, arms=arms, concurrency=4),
        Settings(_env_file=None, similarity_floor=-1.0, **settings),  # type: ignore[call-arg]
        Silent(),
        backend=backend,
        embedder=HashEmbedder(),
    )
    return list(load_results(folder))


def rules_of(folder: Path, arm: str) -> list[dict[str, Any]]:
    rows = (row for _, row in read_rows(folder / "rules.jsonl") if row["arm"] == arm)
    return [rule for row in rows for rule in row["rules"]]


async def test_rules_steer_only_after_they_have_proven_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rows = await go(folder, Obedient(), "gated", gate_calls_per_answer=4)
    promoted = {r["text"] for r in rules_of(folder, "gated") if r["outcome"] == "promoted"}
    used = {rule["text"] for row in rows for rule in row["rules_injected"]}
    assert promoted
    assert used
    assert used <= promoted
    late = [row for row in rows if row["position"] >= COUNT // 2]
    assert sum(row["score"] for row in late) / len(late) > 0.9


async def test_the_price_of_replays_is_counted_and_exploring_costs_less(tmp_path: Path) -> None:
    backend = Obedient()
    rows = await go(tmp_path / "run", backend, "paper,gated", gate_calls_per_answer=1)
    calls = {arm: sum(r["calls"] for r in rows if r["arm"] == arm) for arm in ("paper", "gated")}
    replays = sum(row.get("replays", 0) for row in rows)
    assert replays > 0
    assert calls["paper"] == 7 * COUNT
    assert calls["gated"] < 0.8 * calls["paper"]
    assert any(row["calls"] - row.get("replays", 0) == 2 for row in rows if row["arm"] == "gated")


async def test_a_run_that_is_taken_up_again_comes_out_the_same(tmp_path: Path) -> None:
    whole = await go(tmp_path / "whole", Obedient(), "gated", gate_calls_per_answer=2)
    broken = Obedient()
    broken.fails_after = 150
    with pytest.raises(RunStopped):
        await go(tmp_path / "parts", broken, "gated", gate_calls_per_answer=2)
    parts = await go(tmp_path / "parts", Obedient(), "gated", gate_calls_per_answer=2)
    assert without_times(whole) == without_times(parts)
    assert rules_of(tmp_path / "whole", "gated") == rules_of(tmp_path / "parts", "gated")


async def test_poison_leaves_a_gated_base(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arms = "paper+poison,gated+poison"
    rows = await go(folder, Obedient(), arms, gate_calls_per_answer=4)
    wrong = {rule.text for rule in wrong_rules()}
    gone = {
        rule["text"]
        for rule in rules_of(folder, "gated+poison")
        if rule["outcome"] == "demoted" and rule["text"] in wrong
    }
    shown = {
        arm: [
            sum(rule["text"] in wrong for rule in row["rules_injected"])
            for row in sorted(rows, key=lambda r: r["position"])
            if row["arm"] == arm
        ]
        for arm in arms.split(",")
    }
    assert gone
    assert sum(shown["gated+poison"][:16]) < sum(shown["paper+poison"][:16]) / 4
    assert max(shown["gated+poison"]) == 1
    assert {rule["outcome"] for rule in rules_of(folder, "paper+poison")} <= {"created", "merged"}
    assert accuracy(rows, "gated+poison") > accuracy(rows, "paper+poison")
    by_arm = {each.arm: each for each in poisoned(read_run(folder))}
    assert by_arm["paper+poison"].left == 0
    assert by_arm["gated+poison"].left >= len(gone)
    assert by_arm["gated+poison"].most_exposures <= 60
    write_report(folder)
    assert "## Poison" in (folder / "report.md").read_text()


async def test_a_part_taken_out_is_out(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await go(folder, Obedient(), "gated-no-gate,gated-no-hold-out", gate_calls_per_answer=1)
    outcomes = {rule["outcome"] for rule in rules_of(folder, "gated-no-gate")}
    assert "promoted" not in outcomes
    rows = [row for row in load_results(folder) if row["arm"] == "gated-no-gate"]
    assert any(row["rules_injected"] for row in rows)
