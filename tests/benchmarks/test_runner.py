"""The runner against a model whose answers are known."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import ConfigurationError
from app.settings import Settings
from benchmarks.arms.base import Repeat
from benchmarks.data import load_questions, ordered
from benchmarks.journal import read_rows
from benchmarks.rundir import RunDir, load_config, load_results
from benchmarks.runner import RunStopped
from benchmarks.session import RunOptions, run
from benchmarks.taskfile import load_task
from tests.benchmarks.scripted import (
    ScriptedBackend,
    expected,
    markers_in,
    name_of,
    number_in,
    write_data,
)
from tests.fakes import HashEmbedder

ALL_ARMS = "zero-shot,empty-bank,sc@5,random-rules,paper"


class Silent:
    def pass_begins(self, arm: str, repeat: Repeat, done: int, total: int) -> None: ...

    def answered(self, arm: str, score: float) -> None: ...


async def go(
    folder: Path, backend: ScriptedBackend, *, count: int = 18, **options: Any
) -> list[dict[str, Any]]:
    """One sitting over `count` questions; every row that is on disk afterwards."""
    data = write_data(folder.parent / f"data-{count}.jsonl", count)
    chosen = {"arms": ALL_ARMS, "concurrency": 1, **options}
    await run(
        RunOptions(task="gsm8k", data=str(data), out=folder, **chosen),
        Settings(_env_file=None, similarity_floor=-1.0),  # type: ignore[call-arg]
        Silent(),
        backend=backend,
        embedder=HashEmbedder(),
    )
    return list(load_results(folder))


def accuracy(rows: list[dict[str, Any]], arm: str) -> float:
    scores = [row["score"] for row in rows if row["arm"] == arm]
    return sum(scores) / len(scores)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{k: v for k, v in row.items() if k not in ("seconds", "model_seconds")} for row in rows]
    return sorted(kept, key=lambda r: (r["arm"], r["seed"], r["order"], r["position"]))


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_every_arm_has_exactly_the_known_accuracy(tmp_path: Path, concurrency: int) -> None:
    rows = await go(tmp_path / "run", ScriptedBackend(), concurrency=concurrency)
    numbers = list(range(18))
    for arm in ALL_ARMS.split(","):
        assert accuracy(rows, arm) == expected(arm, numbers, concurrency), arm


async def test_shuffled_orders_have_the_known_accuracy_too(tmp_path: Path) -> None:
    rows = await go(tmp_path / "run", ScriptedBackend(), arms="paper,sc@3", seeds=2, orders=2)
    data = load_questions(
        load_task("gsm8k"), task_name="gsm8k", data=str(tmp_path / "data-18.jsonl"), limit=None
    )
    for seed in (0, 1):
        for order in (0, 1):
            numbers = [int(q.id[1:]) for q in ordered(data, order)]
            part = [r for r in rows if (r["seed"], r["order"]) == (seed, order)]
            assert accuracy(part, "paper") == expected("paper", numbers)
            assert accuracy(part, "sc@3") == expected("sc@3", numbers)
    assert numbers != list(range(18))


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_question_sees_rules_of_earlier_steps_only(
    tmp_path: Path, concurrency: int
) -> None:
    backend = ScriptedBackend()
    await go(tmp_path / "run", backend, arms="paper,random-rules", concurrency=concurrency)
    place = {name_of(n): n for n in range(18)}
    seen = 0
    for call in backend.history:
        for marker in markers_in(call["text"]):
            seen += 1
            step = number_in(call["text"]) // concurrency
            assert place[marker] // concurrency < step
    assert seen > 50


async def test_empty_bank_and_the_bars_never_see_a_rule_nor_ask_for_one(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    rows = await go(tmp_path / "run", backend, arms="zero-shot,empty-bank,sc@5")
    assert not any("<advice>" in call["text"] for call in backend.history)
    assert "distiller" not in {call["kind"] for call in backend.history}
    assert not any(row.get("rules_injected") for row in rows)


@pytest.mark.parametrize("samples", [1, 3, 7])
async def test_self_consistency_makes_exactly_k_calls_a_question(
    tmp_path: Path, samples: int
) -> None:
    backend = ScriptedBackend()
    rows = await go(tmp_path / "run", backend, arms=f"sc@{samples}", count=5)
    assert len(backend.history) == 5 * samples
    assert {row["calls"] for row in rows} == {samples}
    seeds = Counter(call["params"]["seed"] for call in backend.history)
    assert set(seeds.values()) == {1}, "every sample has a seed of its own"


async def test_arms_ask_alike_and_share_calls_which_each_of_them_counts(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    rows = await go(tmp_path / "run", backend, arms="zero-shot,empty-bank,sc@4", count=6)
    by_arm = defaultdict(set)
    for row in rows:
        by_arm[row["arm"]].add(row["calls"])
    assert by_arm == {"zero-shot": {1}, "empty-bank": {6}, "sc@4": {4}}
    # The greedy call is the Teacher's, and the first sample is the first Student's.
    assert len(backend.history) == 6 * (1 + 6 + 4 - 2)


async def test_with_sharing_off_every_arm_makes_its_own_calls(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    first = await go(
        tmp_path / "run", backend, arms="zero-shot,empty-bank", count=6, share_calls=False
    )
    assert len(backend.history) == 6 * 7
    again = await go(
        tmp_path / "run", backend, arms="zero-shot,empty-bank", count=6, share_calls=False
    )
    assert len(backend.history) == 6 * 7
    assert again == first


async def test_tokens_are_those_that_the_server_reported(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    (row,) = await go(tmp_path / "run", backend, arms="zero-shot", count=1)
    (call,) = backend.history
    assert row["prompt_tokens"] == len(call["text"].split())
    assert row["completion_tokens"] == 2


async def test_a_run_goes_on_where_the_server_failed_and_repeats_no_call(tmp_path: Path) -> None:
    whole = ScriptedBackend()
    unbroken = await go(tmp_path / "whole", whole, concurrency=2)

    backend = ScriptedBackend()
    for limit in (7, 60, 61, 200):
        backend.fails_after = limit
        with pytest.raises(RunStopped, match="goes on from here"):
            await go(tmp_path / "broken", backend, concurrency=2)
        assert len(backend.history) == limit
    backend.fails_after = None
    rows = await go(tmp_path / "broken", backend, concurrency=2)
    assert without_times(rows) == without_times(unbroken)
    assert len(backend.history) == len(whole.history)


async def test_a_finished_run_makes_no_call_at_all(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    first = await go(tmp_path / "run", backend, count=6)
    made = len(backend.history)
    assert await go(tmp_path / "run", backend, count=6) == first
    assert len(backend.history) == made


async def test_arms_can_be_added_later(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    await go(tmp_path / "run", backend, arms="empty-bank", count=6)
    rows = await go(tmp_path / "run", backend, arms="zero-shot", count=6)
    assert {row["arm"] for row in rows} == {"empty-bank", "zero-shot"}
    assert load_config(tmp_path / "run")["arms"] == ["empty-bank", "zero-shot"]
    assert len(backend.history) == 6 * 6, "zero-shot had been asked by the Teacher"


async def test_a_folder_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    await go(tmp_path / "run", ScriptedBackend(), arms="zero-shot", count=3)
    with pytest.raises(ConfigurationError, match=r"concurrency \(1, not 2\)"):
        await go(tmp_path / "run", ScriptedBackend(), arms="zero-shot", count=3, concurrency=2)
    with pytest.raises(ConfigurationError, match=r"another data"):
        await go(tmp_path / "run", ScriptedBackend(), arms="zero-shot", count=4)


async def test_two_runs_cannot_write_one_folder(tmp_path: Path) -> None:
    await go(tmp_path / "run", ScriptedBackend(), arms="zero-shot", count=3)
    config = load_config(tmp_path / "run")
    with RunDir(tmp_path / "run", config), pytest.raises(ConfigurationError, match="another run"):
        await go(tmp_path / "run", ScriptedBackend(), arms="zero-shot", count=3)


async def test_calls_under_way_are_bounded(tmp_path: Path) -> None:
    backend = ScriptedBackend(delay=0.001)
    await go(tmp_path / "run", backend, arms="sc@8", count=8, concurrency=8, parallel=3)
    assert backend.most_open == 3


async def test_rules_and_trajectories_are_on_disk(tmp_path: Path) -> None:
    await go(tmp_path / "run", ScriptedBackend(), arms="paper", count=6)
    rules = [row for _, row in read_rows(tmp_path / "run" / "rules.jsonl")]
    assert [row["position"] for row in rules] == list(range(6))
    assert all(rule["outcome"] == "created" for row in rules for rule in row["rules"])
    samples = [row for _, row in read_rows(tmp_path / "run" / "trajectories.jsonl")]
    assert {len(row["trajectories"]) for row in samples} == {5}
    assert all(t["text"] for row in samples for t in row["trajectories"])


async def test_a_question_whose_gold_answer_is_damaged_is_left_out_and_named(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"id": "good", "question": "In it are 1 red tiles", "answer": "2"}\n'
        '{"id": "bad", "question": "In it are 2 red tiles", "answer": "{2}}{"}\n'
    )
    await run(
        RunOptions(task="gsm8k", data=str(data), arms="zero-shot", out=tmp_path / "run"),
        Settings(_env_file=None),  # type: ignore[call-arg]
        Silent(),
        backend=ScriptedBackend(),
        embedder=HashEmbedder(),
    )
    assert [row["id"] for row in load_results(tmp_path / "run")] == ["good"]
    (left_out,) = load_config(tmp_path / "run")["data"]["left_out"]
    assert left_out["id"] == "bad"


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        ("sc@0", "'sc@0' is none of"),
        ("best", "'best' is none of zero-shot"),
        ("paper,paper", "names paper twice"),
        ("http:ftp://x", "is none of"),
    ],
)
async def test_a_wrong_arm_is_one_sentence(tmp_path: Path, arms: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        await go(tmp_path / "run", ScriptedBackend(), arms=arms, count=2)
    assert not (tmp_path / "run").exists()


async def test_memory_does_not_grow_with_the_number_of_questions(tmp_path: Path) -> None:
    """Texts are on disk; what is kept for a call or a result is a key and a place."""
    import tracemalloc

    sizes: list[int] = []

    class Forgetful(ScriptedBackend):
        async def _arrived(self, call: dict[str, Any]) -> None:
            if len(sizes) < 2 and self.open % 600 == 599:
                sizes.append(tracemalloc.get_traced_memory()[0])
            self.open += 1

    tracemalloc.start()
    try:
        await go(tmp_path / "run", Forgetful(), arms="zero-shot,sc@2", count=450)
    finally:
        tracemalloc.stop()
    assert len(sizes) == 2
    assert sizes[1] - sizes[0] < 600 * 1000


async def test_another_limit_of_answers_makes_another_run(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    await go(tmp_path / "run", backend, arms="zero-shot", count=2, max_tokens=33)
    assert {call["params"]["max_tokens"] for call in backend.history} == {33}
    with pytest.raises(ConfigurationError, match=r"task.max_tokens \(33, not 512\)"):
        await go(tmp_path / "run", backend, arms="zero-shot", count=2)
