"""Open tasks: corrections as feedback, and scores at matched length."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.domain.trajectory import Message
from app.exceptions import ConfigurationError
from app.settings import Settings
from app.upstream.types import Completion
from benchmarks.feedback import Feedback, FeedbackLevel
from benchmarks.report.lengths import first_words, lengths
from benchmarks.report.pages import write_report
from benchmarks.report.results import read_run
from benchmarks.rundir import load_results
from benchmarks.session import RunOptions, run
from tests.benchmarks.scripted import ScriptedBackend, _completion, name_of
from tests.benchmarks.test_feedback import turns_of
from tests.benchmarks.test_runner import Silent
from tests.fakes import HashEmbedder

COUNT = 6
ADVICE = "Name the season in which the plant is best watered."

TASK = """
name: garden
version: 1
about: Questions about plants.
sample: {question: 'When is a rose watered?', answer: In the evening.}
kind: open
grader: rouge
max_tokens: 64
"""


def reference(number: int) -> str:
    return f"Water the {name_of(number)} plant in the evening, once a week, and never at noon."


def question(number: int) -> str:
    return f"When is the {name_of(number)} plant to be watered in a hot and dry summer?"


class Gardener(ScriptedBackend):
    """Rambles; where earlier turns show how it is done, it says the same of this plant."""

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        await self._arrived({"kind": "answer"})
        asked = str(messages[-1]["content"])
        plant = re.findall(r"(\w+) plant", asked)[-1]
        if any("evening" in str(answer["content"]) for _, answer in turns_of(messages)):
            return _completion(f"Water the {plant} plant in the evening, once a week.", asked)
        said = "It depends on the soil, the wind, the pot and the weather, so look at the leaves. "
        return _completion(said * (1 if params["temperature"] == 0 else 2), asked)

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        await self._arrived({"kind": "structured"})
        value: dict[str, Any] = {"variants": []}
        if "positive" in schema["properties"]:
            value = {"positive": ADVICE, "negative": "", "trigger": "questions about watering"}
        return value, _completion(json.dumps(value), str(messages))


async def go(folder: Path, arms: str, feedback: FeedbackLevel, **more: Any) -> list[dict[str, Any]]:
    data, task = folder.parent / "garden.jsonl", folder.parent / "garden.yaml"
    rows = ({"id": f"q{n}", "question": question(n), "answer": reference(n)} for n in range(COUNT))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(more.pop("task", TASK))
    options = {"concurrency": 1, "arms": arms, "feedback": feedback, **more}
    await run(
        RunOptions(task=str(task), data=str(data), out=folder, **options),
        Settings(_env_file=None, feedback_calls_per_answer=4, students=2),  # type: ignore[call-arg]
        Silent(),
        backend=Gardener(),
        embedder=HashEmbedder(),
    )
    return list(load_results(folder))


def mean(rows: list[dict[str, Any]], arm: str) -> float:
    scores = [row["score"] for row in rows if row["arm"] == arm]
    assert len(scores) == COUNT
    return sum(scores) / COUNT


async def test_corrections_become_examples_and_closer_answers(tmp_path: Path) -> None:
    arms = "zero-shot,knn@2,experience,examples,rules"
    rows = await go(tmp_path / "run", arms, FeedbackLevel.CORRECTION)
    for arm in ("knn@2", "experience", "examples"):
        assert mean(rows, arm) > mean(rows, "zero-shot") + 0.2
    run = read_run(tmp_path / "run")
    assert {row.outcome for row in run.arms["examples"].examples[0, 0]} == {"kept"}
    # A correction teaches rules as well: from a verified contrast, by the served model.
    learned = [rule for each in _rules(tmp_path / "run") for rule in each]
    assert {(each["case"], each["written_by"]) for each in learned} == {("verified", "scripted")}
    write_report(tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    assert "a better answer, the reference" in text
    assert "## Length" in text


def _rules(folder: Path) -> list[list[dict[str, Any]]]:
    lines = (folder / "rules.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    created = [row["rules"] for row in rows if row["arm"] == "rules"]
    return [[rule for rule in each if rule["outcome"] == "created"] for each in created]


async def test_arms_without_feedback_answer_open_tasks(tmp_path: Path) -> None:
    rows = await go(tmp_path / "run", "zero-shot,empty-bank,paper,experience", FeedbackLevel.NONE)
    for arm in ("zero-shot", "empty-bank", "paper", "experience"):
        assert mean(rows, arm) > 0
    write_report(tmp_path / "run")


async def test_a_longer_answer_is_no_better_at_matched_length(tmp_path: Path) -> None:
    await go(tmp_path / "run", "zero-shot,empty-bank,knn@2", FeedbackLevel.CORRECTION)
    found = {each.arm: each for each in lengths(read_run(tmp_path / "run"))}
    assert found["zero-shot"].words.mean > found["knn@2"].words.mean
    assert found["knn@2"].matched.mean == pytest.approx(found["knn@2"].score.mean)
    assert found["zero-shot"].matched.mean < found["zero-shot"].score.mean
    assert found["zero-shot"].beside is None
    beside = found["knn@2"].beside
    assert beside is not None
    assert beside.difference.low > 0


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [("a b  c", 2, "a b"), ("a\n\nb c", 2, "a\n\nb"), ("a b", 5, "a b"), ("", 3, "")],
)
def test_an_answer_is_cut_between_words(text: str, most: int, cut: str) -> None:
    assert first_words(text, most) == cut


@pytest.mark.parametrize(
    ("task", "feedback", "arms", "said"),
    [
        (TASK, FeedbackLevel.LABEL, "knn@2", "correction"),
        (TASK, FeedbackLevel.BINARY, "zero-shot", "correction"),
        (TASK, FeedbackLevel.CORRECTION, "self-icl@2", "needs --feedback binary"),
        (
            TASK.replace("rouge", "exact").replace("open", "closed"),
            FeedbackLevel.CORRECTION,
            "zero-shot",
            "is for open answers",
        ),
    ],
)
async def test_what_cannot_be_told_is_refused(
    tmp_path: Path, task: str, feedback: FeedbackLevel, arms: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        await go(tmp_path / "run", arms, feedback, task=task)


def test_feedback_is_what_the_api_takes() -> None:
    assert Feedback(right=False, correction="So.").as_body() == {"correction": "So."}
    assert Feedback(right=True, label="4").as_body() == {"label": "4"}
    assert Feedback(right=True).as_body() == {"verified": True}
