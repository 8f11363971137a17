"""Graders against answers that were checked by hand, right and wrong ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from app.exceptions import ConfigurationError
from app.upstream.embeddings import packaged_model
from benchmarks.data import load_questions
from benchmarks.grading import Graders, UnreadableGold
from benchmarks.grading.math import shape
from benchmarks.grading.overlap import sentences
from benchmarks.taskfile import BertScoreModel, load_task, shipped_tasks

PAIRS = yaml.safe_load(Path(__file__).with_name("grading_pairs.yaml").read_text(encoding="utf-8"))
OPTIONS = "Which number is prime? (A) 51 (B) 57 (C) 59 (D) 63"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def graders() -> AsyncIterator[Graders]:
    made = Graders()
    yield made
    await made.close()


def test_the_table_is_large_and_holds_wrong_answers() -> None:
    rows = [row for rows in PAIRS.values() for row in rows]
    assert len(rows) >= 150
    assert sum(not right for *_, right in rows) >= 50


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("name", "gold", "prediction", "right"),
    [(name, *row) for name, rows in PAIRS.items() for row in rows],
)
async def test_pair(graders: Graders, name: str, gold: str, prediction: str, right: bool) -> None:
    question = OPTIONS if name == "choice" else ""
    read = await graders.get(name).read(gold, question)
    assert (await read.grade(prediction)).score == float(right)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("name", "gold"),
    [
        ("math", ""),
        ("math", r"{2}}{\lambda^{5}\left[e^{h c}-1\right] d^{2}}"),
        ("math", r"left[P_{0}^{2 / 5}-\frac{2}{5} g z\right]^{5 / 2}"),
        ("math", r"rac{v_{0}}{r_{0}}"),
        ("math", r"\frac{1}{"),
        ("math", "word " * 60),
        ("choice", "59"),
        ("choice", ""),
        ("exact", "  "),
        ("rouge", ""),
    ],
)
async def test_a_gold_answer_that_cannot_be_read_is_reported(
    graders: Graders, name: str, gold: str
) -> None:
    with pytest.raises(UnreadableGold):
        await graders.get(name).read(gold, "")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", shipped_tasks())
async def test_the_sample_of_every_task_has_a_readable_answer(graders: Graders, name: str) -> None:
    task = load_task(name)
    await graders.get(task.grader).read(task.sample.answer, task.sample.question)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_shipped_gold_answer_is_right_by_its_own_grader(graders: Graders) -> None:
    task = load_task("mixed")
    for question in load_questions(task, task_name="mixed", data=None, limit=None):
        gold = await graders.get(question.grader).read(question.gold, question.prompt)
        assert (await gold.grade(f"So it is \\boxed{{{question.gold}}}.")).score == 1, question
        assert (await gold.grade("So it is \\boxed{-987}.")).score == 0, question


@pytest.mark.asyncio(loop_scope="module")
async def test_a_hostile_answer_costs_seconds_and_no_later_answer(graders: Graders) -> None:
    gold = await graders.get("math").read("18", "")
    assert (await gold.grade(r"\boxed{9^{9^{9^{9}}} + x}")).score == 0
    assert (await gold.grade(r"\boxed{2 \cdot 9}")).score == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("(1,2)", "()"),
        ("[1,2)", "[)"),
        ("1,2", "{}"),
        (r"\{1,2\}", "{}"),
        ("1,234", ""),
        ("x = (1,2)", "()"),
        ("(x+1)(x-2)", ""),
        ("(1,2),(3,4)", "{}"),
        (r"(-\infty,1)\cup(2,3)", ""),
        ("f(1,2)", ""),
    ],
)
def test_shape(answer: str, expected: str) -> None:
    assert shape(answer) == expected


@pytest.mark.asyncio(loop_scope="module")
async def test_rouge_is_one_for_the_reference_and_stems_words(graders: Graders) -> None:
    gold = await graders.get("rouge").read("Plants grow. They need water.", "")
    assert (await gold.grade("Plants grow. They need water.")).score == pytest.approx(1)
    stemmed = (await gold.grade("A plant grows. It needs watering.")).score
    assert 0.3 < stemmed < 1
    assert (await gold.grade("")).score == 0
    assert (await gold.grade("<think>Plants grow. They need water.</think>no")).score == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_rouge_lsum_takes_each_sentence_by_itself(graders: Graders) -> None:
    """Union LCS per sentence: swapping whole sentences costs nothing, unlike plain ROUGE-L."""
    gold = await graders.get("rouge").read("Water the plants. Cut old leaves.", "")
    assert (await gold.grade("Cut old leaves. Water the plants.")).score == pytest.approx(1)


def test_sentences_are_split_on_both_kinds_of_ends() -> None:
    assert sentences("One. Two!\nThree? four 3.5 m.") == "One.\nTwo!\nThree? four 3.5 m."


async def test_bertscore_with_a_model_of_ones_own() -> None:
    made = Graders(BertScoreModel(model=packaged_model(), layer=6))
    gold = await made.get("bertscore").read("The cat sat on the mat.", "Where was the cat?")
    same, near, far = [
        (await gold.grade(text)).score
        for text in (
            "The cat sat on the mat.",
            "A cat was sitting on the mat.",
            "Interest rates rose again.",
        )
    ]
    assert same == pytest.approx(1.0, abs=1e-5)
    assert same > near > far
    await made.close()


async def test_a_bertscore_model_that_is_not_there_is_one_sentence() -> None:
    made = Graders(BertScoreModel(model="./nowhere", layer=6))
    gold = await made.get("bertscore").read("The cat sat on the mat.", "Where was the cat?")
    with pytest.raises(ConfigurationError, match=r"./nowhere can't be loaded"):
        await gold.grade("On the mat.")
    await made.close()
