"""The product's own arms with feedback, on a stream whose every answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.trajectory import Message
from app.upstream.types import Completion
from benchmarks.feedback import FeedbackLevel
from benchmarks.journal import read_rows
from benchmarks.report.experience import experience
from benchmarks.report.pages import write_report
from benchmarks.report.results import read_run
from benchmarks.runner import RunStopped
from tests.benchmarks.scripted import _completion
from tests.benchmarks.test_feedback import COUNT, Sorter, go, label, number_of, turns_of
from tests.benchmarks.test_runner import accuracy, without_times

EXPERIENCED = "rules,examples,experience"
ASKED = {"variants": "tutor", "positive": "distiller", "negative": "distiller"}
"""Who asks for this field."""


class Writer(Sorter):
    """As `Sorter`; its distiller writes a rule of each wrong answer, which changes no answer."""

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        kind = next((kind for name, kind in ASKED.items() if name in schema["properties"]), "judge")
        await self._arrived({"kind": kind})
        if kind == "judge":
            return {}, _completion("I can't tell.", str(messages))  # and is not asked again
        tutor = kind == "tutor"
        said = str(messages)
        topic = next(word for word in ("door", "lamp", "pump") if f"The {word}" in said)
        value: dict[str, Any] = {"variants": []}
        if not tutor:
            value = {
                "positive": f"Sort every ticket about a {topic} under its trouble.",
                "negative": f"Do not leave a {topic} ticket without its label.",
                "trigger": f"tickets about a {topic}",
            }
        return value, _completion(json.dumps(value), said)

    def calls(self, kind: str) -> int:
        return sum(call["kind"] == kind for call in self.history)


async def test_labels_become_examples_and_examples_right_answers(tmp_path: Path) -> None:
    backend = Writer()
    rows = await go(
        tmp_path / "run", backend, f"zero-shot,knn@4,{EXPERIENCED}", FeedbackLevel.LABEL
    )
    assert accuracy(rows, "zero-shot") == 0.5
    assert accuracy(rows, "rules") == 0.5, "rules change no answer of this model"
    for arm in ("examples", "experience"):
        assert accuracy(rows, arm) > 0.85
    given = {row["id"]: row["given"] for row in rows if row["arm"] == "examples"}
    assert set(given.values()) <= {"none", "examples"}
    assert {row["given"] for row in rows if row["arm"] == "rules"} <= {"none", "rules"}
    for row in rows:
        if row["arm"] in ("examples", "experience"):
            own = int(row["id"][1:])
            shown = [int(each["id"][1:]) for each in row["examples"]]
            # Steps of two: nothing of its own step.
            assert all(n < own - own % 2 for n in shown)
            assert bool(shown) == (row["given"] in ("examples", "both"))


async def test_right_answers_alone_become_examples_without_labels(tmp_path: Path) -> None:
    backend = Writer()
    await go(tmp_path / "run", backend, "examples", FeedbackLevel.BINARY)
    for messages in backend.asked:
        for user, assistant in turns_of(messages):
            assert assistant["content"] == label(number_of(user)), "a wrong answer was kept"
    kept = {row["question"] for row in examples_of(tmp_path / "run", "examples")}
    assert len(kept) > 0
    assert backend.calls("distiller") == 0, "the right answer of a wrong one is not known"


async def test_without_feedback_there_is_nothing_to_show(tmp_path: Path) -> None:
    rows = await go(tmp_path / "run", Writer(), "zero-shot,examples", FeedbackLevel.NONE)
    assert accuracy(rows, "examples") == accuracy(rows, "zero-shot")
    assert {row["given"] for row in rows if row["arm"] == "examples"} == {"none"}


async def test_what_learning_costs_belongs_to_the_question(tmp_path: Path) -> None:
    backend = Writer()
    await go(tmp_path / "run", backend, "rules", FeedbackLevel.LABEL)
    write_report(tmp_path / "run")
    counted = sum(row.calls for row in read_run(tmp_path / "run").rows("rules"))
    assert counted == len(backend.history)
    assert counted > COUNT
    assert backend.calls("distiller") > 0


async def test_a_pass_that_was_broken_off_comes_out_the_same(tmp_path: Path) -> None:
    whole = await go(tmp_path / "whole", Writer(), "experience", FeedbackLevel.LABEL)
    backend = Writer()
    for limit in (7, COUNT):
        backend.fails_after = limit
        with pytest.raises(RunStopped, match="goes on from here"):
            await go(tmp_path / "broken", backend, "experience", FeedbackLevel.LABEL)
    backend.fails_after = None
    rows = await go(tmp_path / "broken", backend, "experience", FeedbackLevel.LABEL)
    assert without_times(rows) == without_times(whole)
    assert learned(tmp_path / "broken") == learned(tmp_path / "whole")


async def test_the_report_says_what_was_given_and_what_became_of_wrong_examples(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    rows = await go(folder, Writer(), "experience", FeedbackLevel.LABEL, label_noise=0.25)
    write_report(folder)
    (found,) = experience(read_run(folder))
    assert sum(found.given.values()) == pytest.approx(1)
    assert found.examples.kept == COUNT
    assert found.wrong.kept == sum("told" in row for row in rows) == COUNT // 4
    assert found.wrong.retired <= found.wrong.kept
    text = (folder / "report.md").read_text()
    assert "| share of the questions given | none | rules | examples | both |" in text
    assert "| examples | kept | retired | wrong ones kept | wrong ones retired |" in text


def examples_of(folder: Path, arm: str) -> list[dict[str, Any]]:
    rows = (row for _, row in read_rows(folder / "rules.jsonl") if row["arm"] == arm)
    return [each for row in rows for each in row.get("examples", ())]


def learned(folder: Path) -> list[Any]:
    """What the ledger says of each question, less ids and times that are made anew."""
    rows = [row for _, row in read_rows(folder / "rules.jsonl")]
    return [
        (
            row["arm"],
            row["id"],
            [(rule["text"], rule["outcome"]) for rule in row["rules"]],
            [(each["question"], each["outcome"]) for each in row.get("examples", ())],
            row.get("jobs"),
            (row.get("learning") or {}).get("calls"),
        )
        for row in rows
    ]
