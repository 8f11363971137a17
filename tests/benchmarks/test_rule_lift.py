"""What each rule of a run is worth, on questions whose every answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.exceptions import ConfigurationError
from app.settings import Settings
from benchmarks.journal import read_rows
from benchmarks.report.pages import write_report
from benchmarks.rule_lift import measure, read_rules
from benchmarks.rundir import load_config
from benchmarks.session import RunOptions, run
from tests.benchmarks.scripted import ADVICE, ScriptedBackend, name_of, number_in, write_data
from tests.benchmarks.test_runner import Silent
from tests.benchmarks.test_runner import go as go_run
from tests.fakes import HashEmbedder

ASKED, EVERY = 6, 16


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, similarity_floor=-1.0, **given)  # type: ignore[call-arg]


async def test_lift_is_that_of_the_questions_that_were_not_asked(tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "lift"
    await go_run(folder, ScriptedBackend(), count=ASKED, arms="paper")
    data = str(write_data(tmp_path / "every.jsonl", EVERY))
    backend = ScriptedBackend()
    more = {"questions": 4, "backend": backend, "embedder": HashEmbedder()}
    found = await measure(folder, data, out, settings(), **more)
    assert len(found) == len(read_rules(folder)) > 1
    asked = {number_in(call["text"]) for call in backend.history}
    assert asked <= set(range(ASKED, EVERY))
    for lift in found:
        assert lift.questions == 4
        # With any rule all answers are right, without one those to even numbers.
        assert lift.with_rule == 1
        assert lift.difference.mean == pytest.approx(1 - lift.without)
        assert lift.changed == round(4 * (1 - lift.without))
        assert lift.rule.written_by == "scripted"
        assert lift.rule.case in ("majority", "unanimous")
    assert {lift.without for lift in found} != {1.0}
    page = (out / "lift.md").read_text()
    for part in ("By case", "By written by", "By agreement", "By gate", "majority", "scripted"):
        assert part in page
    assert len((out / "lift.jsonl").read_text().splitlines()) == len(found)
    # Again: from the folder, without a call.
    made = len(backend.history)
    assert [each.difference for each in await measure(folder, data, out, settings(), **more)] == [
        each.difference for each in found
    ]
    assert len(backend.history) == made


async def test_what_the_gate_made_of_a_rule_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await go_run(folder, ScriptedBackend(), count=4, arms="paper")
    (first, *_) = read_rules(folder)
    head = {"arm": "paper", "seed": 0, "order": 0, "id": "q3", "position": 3}
    moved = {"polarity": first.polarity.value, "text": first.text, "trigger": first.trigger}
    row = {**head, "rules": [{**moved, "outcome": "promoted", "reason": "helped"}]}
    with (folder / "rules.jsonl").open("ab") as file:
        file.write(orjson.dumps(row) + b"\n")
    assert read_rules(folder)[0].outcome == "promoted"


async def test_nothing_to_measure_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await go_run(folder, ScriptedBackend(), count=4, arms="zero-shot")
    more = {"questions": 2, "backend": ScriptedBackend(), "embedder": HashEmbedder()}
    data = str(tmp_path / "data-4.jsonl")
    with pytest.raises(ConfigurationError, match="has written no rules"):
        await measure(folder, data, tmp_path / "lift", settings(), **more)
    await go_run(tmp_path / "paper", ScriptedBackend(), count=4, arms="paper")
    with pytest.raises(ConfigurationError, match="none is held out"):
        await measure(tmp_path / "paper", data, tmp_path / "lift", settings(), **more)


async def test_another_variant_is_another_run_and_its_arm_is_not(tmp_path: Path) -> None:
    """Prompts of a later variant count where they are read, so that older runs go on."""
    data = str(write_data(tmp_path / "data.jsonl", 4))

    async def go(arms: str, **given: Any) -> None:
        options = RunOptions(task="gsm8k", data=data, arms=arms, out=tmp_path / "run")
        await run(
            options, settings(**given), Silent(), backend=ScriptedBackend(), embedder=HashEmbedder()
        )

    await go("gated")
    before = load_config(tmp_path / "run")
    assert "cluster_prompt" not in before
    await go("gated,gated-cluster")
    after = load_config(tmp_path / "run")
    assert len(after["cluster_prompt"]) == 64
    assert after["prompts_sha256"] == before["prompts_sha256"]
    with pytest.raises(ConfigurationError, match="distiller"):
        await go("gated", distiller_variant="revised")


async def test_rules_of_another_model_are_its_calls(tmp_path: Path) -> None:
    """By the setting, on the same server: each rule names its writer."""
    data = str(write_data(tmp_path / "data.jsonl", 4))
    options = RunOptions(task="gsm8k", data=data, arms="paper", out=tmp_path / "run")
    given = settings(distiller_model="large", upstream_base_url="http://127.0.0.1:9")
    backend = ScriptedBackend()
    await run(options, given, Silent(), backend=backend, embedder=HashEmbedder())
    rules = [
        rule for _, row in read_rows(tmp_path / "run" / "rules.jsonl") for rule in row["rules"]
    ]
    assert {rule["written_by"] for rule in rules} == {"large"}
    assert any(ADVICE.format(name=name_of(1)) in json.dumps(rule) for rule in rules)
    calls = [row["request"] for _, row in read_rows(tmp_path / "run" / "calls.jsonl")]
    writers = {call["model"] for call in calls if "positive" in str(call.get("schema"))}
    assert writers == {"large"}
    assert load_config(tmp_path / "run")["distiller"]["model"] == "large"
    write_report(tmp_path / "run")
    assert "written by large" in (tmp_path / "run" / "report.md").read_text()
