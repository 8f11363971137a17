"""lm-eval against a gateway whose upstream is right where a rule is in the prompt.

Skipped where `make lm-eval` has not run; with REQUIRE_LM_EVAL=1 that is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Call, Reply, ScriptedUpstream, is_distiller, is_student, is_tutor, text_of
from tests.gateway import CLIENT_KEY, MODEL, Gateway, running_gateway
from tests.required import lacking

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-lm-eval" / "bin" / "lm_eval"
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
TASKS = Path(__file__).with_name("lm_eval")
TASK = "ttcl_subtraction"
SECONDS = 180
MODES = ("off", "steer", "explore")

QUESTIONS = [json.loads(line) for line in (TASKS / "questions.jsonl").read_text().splitlines()]
RULE = "Check every subtraction by adding the parts back together."
TRIGGER = "How many of them are left? End with 'Answer:' and the number."
TAUGHT = "Write the numbers down before taking one from the other."
KNOWN, RULED = 2, 4
"""Questions that the model gets right anyway, and with the rule; of the rest only Students know."""
SCORES = {"off": 0.4, "steer": 0.8, "explore": 1.0}


def position(body: dict[str, Any]) -> int:
    """Which question a call is about."""
    (found,) = (at for at, each in enumerate(QUESTIONS) if each["question"] in text_of(body))
    return found


def answer(body: dict[str, Any]) -> Reply:
    at = position(body)
    right = at < (RULED if RULE in text_of(body) else KNOWN) or is_student(body)
    return Reply(f"Let me see. Answer: {int(QUESTIONS[at]['answer']) + (not right)}")


def wordings(body: dict[str, Any]) -> Reply:
    question = QUESTIONS[position(body)]["question"]
    ends = ("in short", "with care", "step by step")
    return Reply.of_json(
        {"variants": [f"{question} End with 'Answer:' and the number, {end}." for end in ends]}
    )


LESSON = {"positive": TAUGHT, "negative": None, "trigger": "subtraction"}


@dataclass(frozen=True)
class Run:
    """What one run of lm-eval left behind."""

    results: dict[str, Any]
    samples: list[dict[str, Any]]
    log: str


@dataclass(frozen=True)
class Evaluation:
    """All modes' runs, each in a namespace of its own."""

    gateway: Gateway
    calls: list[Call]
    runs: dict[str, Run]

    def episodes(self, mode: str) -> list[dict[str, Any]]:
        page = self.gateway.admin("GET", "/episodes", params={"namespace": f"eval-{mode}"}).json()
        assert page["total"] == len(page["data"])
        return list(page["data"])


def command(gateway: Gateway, mode: str, folder: Path) -> list[str]:
    """That of docs/benchmarks.md. Only what `explore` is asked may teach."""
    (text,) = re.findall(r"^OPENAI_API_KEY=unused (lm_eval run .*?[^\\])$", PAGE, re.DOTALL | re.M)
    own = {
        "lm_eval run": f"{PROGRAM} run --log_samples",
        "SmolLM2-135M-Instruct+steer": f"{MODEL}+{mode}",
        "http://127.0.0.1:8080": gateway.url,
        '"evaluation"': f'"eval-{mode}"',
        "false": str(mode == "explore").lower(),
        "runs/lm-eval": str(folder / "out"),
    }
    for shown, used in own.items():
        assert text.count(shown) == 1, shown
        text = text.replace(shown, used)
    return shlex.split(text.replace("\\\n", ""))


def start(gateway: Gateway, mode: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "OPENAI_API_KEY": CLIENT_KEY,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command(gateway, mode, folder), cwd=ROOT, env=environment, stdout=log, stderr=log
        )


def finished(process: subprocess.Popen[bytes], folder: Path) -> Run:
    code = process.wait(SECONDS)
    log = (folder / "log").read_text()
    assert code == 0, log[-3000:]
    (results,) = (folder / "out").glob("*/results_*.json")
    (samples,) = (folder / "out").glob("*/samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return Run(json.loads(results.read_text()), lines, log)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluation]:
    """The three runs side by side: most of their time goes into reading lm-eval's own tasks."""
    if not PROGRAM.exists():
        lacking("REQUIRE_LM_EVAL", "there is no lm-eval (make lm-eval)")
    folders = {mode: tmp_path_factory.mktemp(f"lm-eval-{mode}") for mode in MODES}
    with ScriptedUpstream() as upstream, running_gateway(upstream) as gateway:
        upstream.when(is_tutor, wordings)
        upstream.when(is_distiller, Reply.of_json(LESSON))
        upstream.when(lambda body: True, answer)
        for mode in MODES:
            gateway.add_rule(f"eval-{mode}", RULE, TRIGGER)
        with ExitStack() as ending:
            processes = {mode: start(gateway, mode, folders[mode]) for mode in MODES}
            for process in processes.values():
                ending.callback(process.kill)
            runs = {mode: finished(processes[mode], folders[mode]) for mode in MODES}
        yield Evaluation(gateway, list(upstream.chats), runs)


@pytest.mark.parametrize("mode", MODES)
def test_the_score_is_what_the_mode_gives(evaluation, mode) -> None:
    run = evaluation.runs[mode]
    assert run.results["results"][TASK]["exact_match,number"] == SCORES[mode]
    assert run.results["n-samples"][TASK] == {"original": 5, "effective": 5}
    assert "Retry attempt" not in run.log


def plain(evaluation: Evaluation, *, ruled: bool) -> list[Call]:
    """The calls that are a client's request itself; an exploration's own are streamed."""
    asked = [call for call in evaluation.calls if not call.body.get("stream")]
    return [call for call in asked if (RULE in call.text) == ruled]


def test_off_is_what_lm_eval_sends(evaluation) -> None:
    calls = sorted(plain(evaluation, ruled=False), key=lambda call: position(call.body))
    assert [call.body for call in calls] == [
        {
            "model": MODEL,
            "messages": [
                {
                    "role": "user",
                    "content": f"{each['question']} End with 'Answer:' and the number.",
                }
            ],
            "max_tokens": 256,
            "temperature": 0,
            "stop": ["Question:"],
            "seed": 1234,
        }
        for each in QUESTIONS
    ]
    assert evaluation.episodes("off") == []


def test_steer_puts_the_rule_before_every_question(evaluation) -> None:
    calls = plain(evaluation, ruled=True)
    assert sorted(position(call.body) for call in calls) == list(range(len(QUESTIONS)))
    (rule,) = evaluation.gateway.rules("eval-steer")
    for episode in evaluation.episodes("steer"):
        assert (episode["mode"], episode["status"]) == ("steer", "skipped")
        assert [each["id"] for each in episode["rules_injected"]] == [rule["id"]]
    assert len(evaluation.episodes("steer")) == len(QUESTIONS)


def test_explore_learns_from_the_evaluation(evaluation) -> None:
    episodes = evaluation.episodes("explore")
    assert len(episodes) == len(QUESTIONS)
    ends = [evaluation.gateway.settled(episode["id"])["status"] for episode in episodes]
    assert "learned" in ends
    assert TAUGHT in {rule["text"] for rule in evaluation.gateway.rules("eval-explore")}


def test_the_answers_keep_their_order(evaluation) -> None:
    """With several requests under way at once."""
    for mode, run in evaluation.runs.items():
        for sample in run.samples:
            (text,) = sample["resps"][0]
            right = text == f"Let me see. Answer: {sample['target']}"
            assert right == (sample["doc_id"] < 5 * SCORES[mode])
