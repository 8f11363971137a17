"""Feedback after each answer, and the arms that recall examples, on a stream of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from app.domain.trajectory import Message
from app.exceptions import ConfigurationError
from app.settings import Settings
from app.upstream.types import Completion
from benchmarks import arms as arms_by_name
from benchmarks.arms.base import ArmAnswer, PassQuestion, Repeat, Setting
from benchmarks.arms.examples import Example, ExampleBank
from benchmarks.feedback import Feedback, FeedbackLevel
from benchmarks.journal import read_rows
from benchmarks.report.pages import write_report
from benchmarks.report.results import read_run
from benchmarks.rundir import RUN_FILE, load_config, load_results
from benchmarks.runner import RunStopped
from benchmarks.session import RunOptions, run
from tests.benchmarks.scripted import ScriptedBackend, _completion, name_of
from tests.benchmarks.test_runner import Silent, accuracy, without_times
from tests.fakes import HashEmbedder

TOPICS = ("door", "lamp", "pump")
COUNT = 24
ARMS = "zero-shot,knn@2,self-icl@2,neighbour"

TASK = """
name: tickets
version: 1
about: Short tickets, sorted.
sample: {question: 'The door squeaks.', answer: door_trouble}
labels: {from: data}
instructions: "One of: {{ labels | join(', ') }}"
domain: plain
grader: exact
max_tokens: 8
"""


def label(number: int) -> str:
    return f"{TOPICS[number % 3]}_trouble"


def question(number: int) -> str:
    return f"The {TOPICS[number % 3]} {TOPICS[number % 3]} of {name_of(number)} fails again"


class Sorter(ScriptedBackend):
    """Right where its number is even; where an earlier turn is about the same topic, it says
    whatever was said there. `asked` has the messages of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[Message]] = []

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
        self.asked.append(messages)
        number, topic = number_of(messages[-1]), topic_of(messages[-1])
        text = label(number) if number % 2 == 0 else "no idea"
        for user, assistant in turns_of(messages):
            if topic_of(user) == topic:
                text = str(assistant["content"])
        return _completion(text, str(messages))


def number_of(message: Message) -> int:
    return next(n for n in range(COUNT) if f" {name_of(n)} " in str(message["content"]))


def topic_of(message: Message) -> str:
    return str(message["content"]).split()[1]


def turns_of(messages: Sequence[Message]) -> list[tuple[Message, Message]]:
    """The earlier turns."""
    spoken = [message for message in messages if message["role"] != "system"][:-1]
    return list(zip(spoken[::2], spoken[1::2], strict=True))


async def go(
    folder: Path, backend: ScriptedBackend, arms: str, feedback: FeedbackLevel, **options: Any
) -> list[dict[str, Any]]:
    task, data = folder.parent / "tickets.yaml", folder.parent / "tickets.jsonl"
    task.write_text(options.pop("task", TASK))
    rows = ({"id": f"t{n}", "question": question(n), "answer": label(n)} for n in range(COUNT))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = {"concurrency": 2, **options}
    await run(
        RunOptions(
            task=str(task), data=str(data), out=folder, arms=arms, feedback=feedback, **chosen
        ),
        Settings(_env_file=None),  # type: ignore[call-arg]
        Silent(),
        backend=backend,
        embedder=HashEmbedder(),
    )
    return list(load_results(folder))


def expected(arm: str, concurrency: int) -> float:
    """Accuracy over the stream in the order of the file."""
    right: list[bool] = []
    for n in range(COUNT):
        earlier = [m for m in range(n - n % concurrency) if m % 3 == n % 3]
        by_itself = n % 2 == 0
        match arm.partition("@")[0]:
            case "zero-shot":
                right.append(by_itself)
            case "knn":
                right.append(bool(earlier) or by_itself)
            case "self-icl":
                right.append(any(right[m] for m in earlier) or by_itself)
            case "neighbour":
                right.append(bool(earlier))
    return sum(right) / COUNT


@pytest.mark.parametrize("concurrency", [1, 2, 8])
async def test_every_arm_has_the_known_accuracy(tmp_path: Path, concurrency: int) -> None:
    rows = await go(tmp_path / "run", Sorter(), ARMS, FeedbackLevel.LABEL, concurrency=concurrency)
    for arm in ARMS.split(","):
        assert accuracy(rows, arm) == expected(arm, concurrency), arm


async def test_right_or_wrong_is_enough_for_own_answers(tmp_path: Path) -> None:
    binary = await go(tmp_path / "b", Sorter(), "self-icl@2", FeedbackLevel.BINARY)
    told = await go(tmp_path / "l", Sorter(), "self-icl@2", FeedbackLevel.LABEL)
    assert without_times(binary) == without_times(told)


async def test_examples_are_the_nearest_of_earlier_steps_and_the_nearest_comes_last(
    tmp_path: Path,
) -> None:
    backend = Sorter()
    await go(tmp_path / "run", backend, "knn@3", FeedbackLevel.LABEL, concurrency=4)
    shown = 0
    for messages in backend.asked:
        number, turns = number_of(messages[-1]), turns_of(messages)
        assert len(turns) == min(3, number // 4 * 4)
        for user, assistant in turns:
            shown += 1
            assert number_of(user) // 4 < number // 4
            assert assistant["content"] == label(number_of(user))
        if turns:
            assert topic_of(turns[-1][0]) == topic_of(messages[-1])
    assert shown == 3 * (COUNT - 4)


async def test_own_answers_are_shown_as_they_were_given_and_only_right_ones(
    tmp_path: Path,
) -> None:
    backend = Sorter()
    await go(tmp_path / "run", backend, "self-icl@4", FeedbackLevel.BINARY)
    said = {str(a["content"]) for messages in backend.asked for _, a in turns_of(messages)}
    assert said == {label(n) for n in range(3)}


async def test_before_any_label_the_question_is_put_as_zero_shot_puts_it(tmp_path: Path) -> None:
    backend = Sorter()
    await go(tmp_path / "run", backend, "zero-shot,knn@2", FeedbackLevel.LABEL, concurrency=COUNT)
    assert len(backend.asked) == COUNT, "knn@2 found every call made"


async def test_copying_the_neighbour_asks_no_model(tmp_path: Path) -> None:
    backend = Sorter()
    rows = await go(tmp_path / "run", backend, "neighbour", FeedbackLevel.LABEL)
    assert not backend.history
    assert {row["calls"] for row in rows} == {0}
    assert [row["text"] for row in rows[:2]] == ["", ""]
    assert {row["failure"] for row in rows[2:]} == {None}


@dataclass(frozen=True)
class Spy:
    """An arm that says the same always and keeps what it was told."""

    told: list[ArmAnswer] = field(default_factory=list)
    name: str = "spy"
    stateful: bool = True

    async def start(self, setting: Setting, repeat: Repeat) -> Spy:
        self.calls.append(setting)
        return self

    calls: list[Setting] = field(default_factory=list)

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        assert not any(label(n) in repr(asked) for n in range(3))
        return ArmAnswer(asked, "door_trouble", self.calls[-1].calls.scoped(asked.id))

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        self.told.extend(outcomes)
        return []

    async def close(self) -> None:
        return None


@pytest.mark.parametrize("level", [FeedbackLevel.NONE, FeedbackLevel.BINARY, FeedbackLevel.LABEL])
async def test_an_arm_is_told_what_the_level_allows_and_nothing_else(
    tmp_path: Path, level: FeedbackLevel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setitem(arms_by_name._FIXED, "spy", spy)
    await go(tmp_path / "run", Sorter(), "spy", level)
    expected_told = {
        FeedbackLevel.NONE: [None] * COUNT,
        FeedbackLevel.BINARY: [Feedback(n % 3 == 0) for n in range(COUNT)],
        FeedbackLevel.LABEL: [Feedback(n % 3 == 0, label(n)) for n in range(COUNT)],
    }
    assert [outcome.feedback for outcome in spy.told] == expected_told[level]
    if level is not FeedbackLevel.LABEL:
        assert not any(word in repr(spy.told) for word in ("lamp_trouble", "pump_trouble"))


async def test_a_share_of_the_labels_is_told_wrong_and_graded_by_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setitem(arms_by_name._FIXED, "spy", spy)
    folder = tmp_path / "run"
    rows = await go(folder, Sorter(), "spy", FeedbackLevel.LABEL, label_noise=0.25)
    wrong = {row["id"]: row["told"] for row in rows if "told" in row}
    assert len(wrong) == COUNT // 4
    for n, outcome in enumerate(spy.told):
        said = wrong.get(outcome.asked.id, label(n))
        # Who was told a wrong label believes it: the arm says door_trouble to everything.
        assert outcome.feedback == Feedback(said == "door_trouble", said)
        assert said in {label(m) for m in range(3)}
        assert (said == label(n)) == (outcome.asked.id not in wrong)
    assert [row["score"] for row in rows] == [float(n % 3 == 0) for n in range(COUNT)]
    assert "the right answer, 25% of them another one instead" in _report(folder)
    with pytest.raises(ConfigurationError, match="label_noise"):
        await go(folder, Sorter(), "spy", FeedbackLevel.LABEL, label_noise=0.5)


async def test_the_same_labels_are_wrong_in_every_arm_and_order(tmp_path: Path) -> None:
    rows = await go(
        tmp_path / "run", Sorter(), ARMS, FeedbackLevel.LABEL, label_noise=0.1, orders=2
    )
    told = {(row["id"], row["told"]) for row in rows if "told" in row}
    assert len(told) == round(0.1 * COUNT)
    assert sum("told" in row for row in rows) == len(told) * 4 * 2


@pytest.mark.parametrize(
    ("level", "task", "sentence"),
    [
        (FeedbackLevel.BINARY, TASK, "--label-noise needs --feedback label"),
        (
            FeedbackLevel.LABEL,
            TASK.replace("{from: data}", "[door_trouble]"),
            "a task with more than one answer",
        ),
    ],
)
async def test_label_noise_needs_labels(
    tmp_path: Path, level: FeedbackLevel, task: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        await go(tmp_path / "run", Sorter(), "zero-shot", level, label_noise=1.0, task=task)


async def test_a_later_order_can_be_run_alone(tmp_path: Path) -> None:
    both = await go(tmp_path / "both", Sorter(), "knn@2", FeedbackLevel.LABEL, orders=2)
    second = await go(tmp_path / "second", Sorter(), "knn@2", FeedbackLevel.LABEL, first_order=1)
    assert without_times(second) == without_times([row for row in both if row["order"] == 1])


async def test_a_run_goes_on_where_it_stopped_and_recalls_the_same(tmp_path: Path) -> None:
    whole = await go(tmp_path / "whole", Sorter(), ARMS, FeedbackLevel.LABEL)
    backend = Sorter()
    for limit in (5, COUNT + 3, COUNT + 9, 2 * COUNT + 2):
        backend.fails_after = limit
        with pytest.raises(RunStopped, match="goes on from here"):
            await go(tmp_path / "broken", backend, ARMS, FeedbackLevel.LABEL)
    backend.fails_after = None
    rows = await go(tmp_path / "broken", backend, ARMS, FeedbackLevel.LABEL)
    assert without_times(rows) == without_times(whole)


@pytest.mark.parametrize(
    ("arms", "level", "sentence"),
    [
        ("knn@4", FeedbackLevel.NONE, "knn@4 needs --feedback label, not none"),
        ("zero-shot,knn@4", FeedbackLevel.BINARY, "knn@4 needs --feedback label, not binary"),
        ("neighbour", FeedbackLevel.BINARY, "neighbour needs --feedback label, not binary"),
        ("self-icl@4", FeedbackLevel.NONE, "self-icl@4 needs --feedback binary or label, not none"),
        ("knn@0", FeedbackLevel.LABEL, "'knn@0' is none of"),
        ("self-icl", FeedbackLevel.LABEL, "'self-icl' is none of"),
        ("knn@2,knn@2", FeedbackLevel.LABEL, "names knn@2 twice"),
    ],
)
async def test_feedback_that_is_too_weak_for_an_arm_is_one_sentence(
    tmp_path: Path, arms: str, level: FeedbackLevel, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        await go(tmp_path / "run", Sorter(), arms, level)
    assert not (tmp_path / "run").exists()


async def test_measures_are_no_feedback(tmp_path: Path) -> None:
    task = TASK.replace("grader: exact", "grader: rouge")
    with pytest.raises(ConfigurationError, match="right or wrong; rouge measures"):
        await go(tmp_path / "run", Sorter(), "zero-shot", FeedbackLevel.BINARY, task=task)


async def test_feedback_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await go(folder, Sorter(), "zero-shot", FeedbackLevel.BINARY)
    with pytest.raises(ConfigurationError, match=r"feedback \('binary', not 'label'\)"):
        await go(folder, Sorter(), "zero-shot", FeedbackLevel.LABEL)


async def test_a_folder_from_before_there_was_feedback_goes_on_without(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = await go(folder, Sorter(), "zero-shot", FeedbackLevel.NONE)
    config = load_config(folder)
    assert config.pop("feedback") == "none"
    (folder / RUN_FILE).write_bytes(orjson.dumps(config))
    assert "Feedback after each answer: none" in _report(folder)
    with pytest.raises(ConfigurationError, match="feedback"):
        await go(folder, Sorter(), "zero-shot", FeedbackLevel.LABEL)
    assert await go(folder, Sorter(), "zero-shot", FeedbackLevel.NONE) == first


async def test_a_box_is_shown_where_a_box_is_asked_for(tmp_path: Path) -> None:
    backend = Sorter()
    task = TASK.replace("domain: plain", "domain: default")
    await go(tmp_path / "run", backend, "knn@1", FeedbackLevel.LABEL, task=task)
    said = {str(a["content"]) for messages in backend.asked for _, a in turns_of(messages)}
    assert said == {f"\\boxed{{{label(n)}}}" for n in range(3)}


async def test_the_report_shows_the_stream_and_who_saw_examples(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await go(folder, Sorter(), ARMS, FeedbackLevel.LABEL)
    text = _report(folder)
    summary = write_report(folder)
    by_name = {arm.name: arm for arm in summary.arms}
    assert by_name["knn@2"].last_third.mean == 1
    assert by_name["zero-shot"].last_third.mean == 0.5
    assert by_name["knn@2"].saw_examples == (COUNT - 2) / COUNT
    assert by_name["zero-shot"].saw_examples == 0
    pairs = {(d.arm, d.baseline) for d in summary.differences}
    assert {("knn@2", "zero-shot"), ("knn@2", "neighbour"), ("knn@2", "self-icl@2")} <= pairs
    assert ("zero-shot", "knn@2") not in pairs
    assert summary.verdict.startswith("knn@2 does better than zero-shot")
    assert "| arm | first half | second half | last third |" in text
    assert "Feedback after each answer: the right answer" in text
    assert not (folder / "rules.png").exists()
    assert "no self-consistency arm" not in text
    assert all(not row["rules"] for _, row in read_rows(folder / "rules.jsonl"))
    assert read_run(folder).feedback == "label"


def _report(folder: Path) -> str:
    write_report(folder)
    return (folder / "report.md").read_text()


class TestExampleBank:
    def test_the_nearest_come_first_and_of_equals_the_newest(self) -> None:
        bank = ExampleBank()
        rows = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], dtype=np.float32)
        for name, row in zip("abcd", rows, strict=True):
            bank.add([Example(name, name, name)], row[None])
        found = bank.nearest(np.array([1, 0], dtype=np.float32), 3)
        assert [n.example.id for n in found] == ["c", "a", "d"]
        assert [n.similarity for n in found] == pytest.approx([1, 1, 0.6])

    def test_an_empty_bank_has_no_neighbours(self) -> None:
        bank = ExampleBank()
        bank.add([], np.empty((0, 2), dtype=np.float32))
        assert bank.nearest(np.array([1, 0], dtype=np.float32), 3) == []
