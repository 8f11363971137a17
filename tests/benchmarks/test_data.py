"""Questions from files of every kind, and what is said about wrong ones."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.exceptions import ConfigurationError
from benchmarks.data import load_questions, load_task_data, ordered
from benchmarks.taskfile import load_task, shipped_tasks

ROWS = [
    {"id": "a", "question": "What is 1 + 1?", "answer": "2"},
    {"id": "b", "question": 'What is "π", in words?', "answer": "pi"},
]


def load(path: Path | str, task: str = "gsm8k", limit: int | None = None) -> list[tuple[str, ...]]:
    found = load_questions(load_task(task), task_name=task, data=str(path), limit=limit)
    return [(q.id, q.prompt, q.gold) for q in found]


EXPECTED = [tuple(row.values()) for row in ROWS]


def test_json_jsonl_and_csv_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(ROWS))
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    with (tmp_path / "d.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    for name in ("d.json", "d.jsonl", "d.csv"):
        assert load(tmp_path / name) == EXPECTED, name


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet") == EXPECTED
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(ConfigurationError, match="is not a readable Parquet file"):
        load(tmp_path / "broken.parquet")


def test_parquet_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "d.parquet").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="bench-data"):
        load(tmp_path / "d.parquet")


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []
    module = ModuleType("datasets")

    def load_dataset(name: str, config: str | None, *, split: str) -> Any:
        asked.append((name, config, split))
        if isinstance(answer, Exception):
            raise answer
        return answer

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_a_data_set_by_hub_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_hub(monkeypatch, ROWS)
    assert load("hub:someone/sums:main:train") == EXPECTED
    assert load("hub:someone/sums") == EXPECTED
    task = load_task("gsm8k")
    load_questions(task, task_name="gsm8k", data=None, limit=None)
    assert asked == [
        ("someone/sums", "main", "train"),
        ("someone/sums", None, "test"),
        ("openai/gsm8k", "main", "test"),
    ]


def test_the_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, ConnectionError("no route to host\nmore lines"))
    with pytest.raises(ConfigurationError, match=r"can't be loaded: no route to host$"):
        load("hub:someone/sums")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match="give --data FILE"):
        load("hub:someone/sums")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.jsonl", None, "does not exist"),
        ("d.txt", "x", r"the ending '\.txt' is none of \.json, \.jsonl, \.csv, \.parquet"),
        ("d.jsonl", "", "holds no questions"),
        ("d.json", "[]", "holds no questions"),
        ("d.csv", "question,answer\n", "holds no questions"),
        ("d.json", "{}", "must hold a JSON list"),
        ("d.json", "[1]", "item 1 is not a JSON object"),
        ("d.json", "[", "can't be read"),
        ("d.jsonl", '{"question": "x", "answer": "1"}\nnonsense\n', "line 2 is not JSON"),
        ("d.jsonl", '{"query": "x", "answer": "1"}', "no question column 'question'"),
        ("d.jsonl", '{"question": "x", "gold": "1"}', "its columns are question, gold"),
        (
            "d.jsonl",
            '{"id": 1, "question": "x", "answer": "1"}\n{"id": 1, "question": "y", "answer": "2"}',
            "the id '1' occurs twice",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(
    tmp_path: Path, name: str, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigurationError, match="can't be read"):
        load(tmp_path / "d.jsonl")


def test_answers_are_taken_out_of_worked_solutions(tmp_path: Path) -> None:
    row = {"question": "x", "answer": "9 * 2 = 18\nShe makes 18.\n#### 1,018"}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    assert load(tmp_path / "d.jsonl") == [("gsm8k-0", "x", "1,018")]


def test_columns_of_other_copies_of_a_set_are_known(tmp_path: Path) -> None:
    row = {"problem": "p", "solution": "long", "answer": "2", "unique_id": "u/1"}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    assert load(tmp_path / "d.jsonl", "math500") == [("u/1", "p", "2")]
    row = {"id": 60, "problem": "p", "answer": "033"}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    assert load(tmp_path / "d.jsonl", "aime24") == [("60", "p", "33")]


def test_a_task_without_data_says_so() -> None:
    with pytest.raises(ConfigurationError, match="ships without data: give --data"):
        load_questions(load_task("medicine"), task_name="medicine", data=None, limit=None)


def test_the_limit_takes_the_first_and_orders_keep_all(tmp_path: Path) -> None:
    task = load_task("mixed")
    every = load_questions(task, task_name="mixed", data=None, limit=None)
    first = load_questions(task, task_name="mixed", data=None, limit=5)
    assert first == every[:5]
    assert ordered(every, 0) == every
    shuffled = ordered(every, 1)
    assert shuffled != every
    assert shuffled == ordered(every, 1)
    assert sorted(q.id for q in shuffled) == sorted(q.id for q in every)


def test_the_shipped_task_is_large_enough_and_varied() -> None:
    from benchmarks.taskfile import TASKS_DIR

    rows = [json.loads(line) for line in (TASKS_DIR / "mixed.jsonl").read_text().splitlines()]
    assert len(rows) >= 40
    assert {row["kind"] for row in rows} == {
        "integer", "fraction", "expression", "tuple", "interval", "text", "choice",
    }  # fmt: skip
    assert len({row["question"] for row in rows}) == len(rows)


def test_the_named_tasks_are_there() -> None:
    named = {"gsm8k", "math500", "minerva", "aime24", "agriculture", "medicine", "wealth", "mixed"}
    streams = {"banking77", "clinc150", "xbrl-formula"}
    hard = {
        "date_understanding", "disambiguation_qa", "geometric_shapes", "ruin_names",
        "salient_translation_error_detection", "snarks",
    }  # fmt: skip
    assert set(shipped_tasks()) == named | streams | {f"bbh-{name}" for name in hard}


TASK = """
name: own
version: 1
about: Mine.
sample: {question: 'What is 1 + 1?', answer: '2'}
source: {path: own.csv}
columns: {question: ask, answer: reply}
prompt: "{{ question }} Options: {{ options }}"
grader: exact
max_tokens: 9
"""


def test_a_new_task_is_a_yaml_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(TASK)
    (tmp_path / "own.csv").write_text("ask,reply,options\nRed or blue?,red,red blue\n")
    name = str(tmp_path / "own.yaml")
    (question,) = load_questions(load_task(name), task_name=name, data=None, limit=None)
    assert question.prompt == "Red or blue? Options: red blue"
    assert (question.gold, question.grader) == ("red", "exact")


def test_a_prompt_never_sees_the_answer(tmp_path: Path) -> None:
    leaking = TASK.replace("{{ options }}", "{{ reply }}")
    (tmp_path / "own.yaml").write_text(leaking)
    (tmp_path / "own.csv").write_text("ask,reply,options\nRed or blue?,red,red blue\n")
    name = str(tmp_path / "own.yaml")
    with pytest.raises(ConfigurationError, match="'reply' is undefined"):
        load_questions(load_task(name), task_name=name, data=None, limit=None)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("grader: exact", "grader: guess", "grader: 'guess' is none of math, exact"),
        ("version: 1", "version: one", "version: "),
        ("about: Mine.", "abuot: Mine.", "about: Field required"),
        ("max_tokens: 9", "max_tokens: 0", "max_tokens: "),
        ("max_tokens: 9", "max_tokens: 9\nkind: auto", "kind: must be closed or open"),
        ("max_tokens: 9", "max_tokens: 9\nanswer_pattern: '('", "is not a regular expression"),
        ("max_tokens: 9", "max_tokens: 9\nanswer_pattern: 'x'", "must have one group"),
        ("{{ options }}", "{{ options", "prompt: "),
        ("name: own", "name: [", "is not readable YAML"),
    ],
)
def test_a_wrong_task_file_is_one_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    (tmp_path / "own.yaml").write_text(TASK.replace(old, new))
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load_task(str(tmp_path / "own.yaml"))
    assert "\n" not in str(caught.value)


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no task 'gsm9k'.*gsm8k"):
        load_task("gsm9k")
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_task("nowhere.yaml")


LABELLED = """
name: own
version: 1
about: Mine.
sample: {question: 'Where is my card?', answer: card_arrival}
where: {column: answer, contains: [card, top_up]}
labels: {from: data}
instructions: "Sort under {{ labels | join('/') }}."
domain: plain
grader: exact
max_tokens: 9
"""
TICKETS = [
    {"question": "Where is my card?", "answer": "card_arrival"},
    {"question": "Why was my cash refused?", "answer": "cash_refused"},
    {"question": "My top-up is late.", "answer": "top_up_late"},
    {"question": "No card yet.", "answer": "card_arrival"},
]


def labelled(tmp_path: Path, task: str = LABELLED, limit: int | None = None) -> Any:
    (tmp_path / "own.yaml").write_text(task)
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in TICKETS))
    name = str(tmp_path / "own.yaml")
    data = str(tmp_path / "own.jsonl")
    return load_task_data(load_task(name), task_name=name, data=data, limit=limit)


def test_labels_are_those_of_the_rows_that_belong_to_the_task(tmp_path: Path) -> None:
    task, questions = labelled(tmp_path)
    assert [q.gold for q in questions] == ["card_arrival", "top_up_late", "card_arrival"]
    assert task.labels == ("card_arrival", "top_up_late")
    system, user = task.messages(questions[0].prompt)
    assert system == {"role": "system", "content": "Sort under card_arrival/top_up_late."}
    assert user == {"role": "user", "content": "Where is my card?"}


def test_a_limit_leaves_the_labels_as_they_are(tmp_path: Path) -> None:
    task, questions = labelled(tmp_path, limit=1)
    assert len(questions) == 1
    assert task.labels == ("card_arrival", "top_up_late")


def test_labels_may_be_listed_and_stand_in_the_prompt(tmp_path: Path) -> None:
    listed = LABELLED.replace("{from: data}", "[b, a]")
    listed += "prompt: \"{{ question }} {{ labels | join(', ') }}?\"\n"
    _, questions = labelled(tmp_path, listed)
    assert questions[0].prompt == "Where is my card? b, a?"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("column: answer", "column: label", "no where column 'label'; its columns are"),
        ("[card, top_up]", "[loan, visa]", "no row's answer contains 'loan' or 'visa'"),
        ("[card, top_up]", "[]", "where.contains: "),
        ("{from: data}", "{from: nowhere}", "labels: must be a list of texts"),
        ("{from: data}", "[yes, no]", "labels: must be a list of texts"),
        ("{from: data}", "[]", "labels: must be a list of texts"),
        ("labels: {from: data}", "", "instructions: 'labels' is undefined"),
        ("join('/') }}", "join('/')", "instructions: "),
    ],
)
def test_a_wrong_labelled_task_is_one_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        labelled(tmp_path, LABELLED.replace(old, new))
    assert "\n" not in str(caught.value)
