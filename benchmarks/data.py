"""Questions from a file (JSON, JSONL, CSV, Parquet) or from a data set by hub name."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.exceptions import ConfigurationError
from benchmarks.taskfile import GRADERS, Columns, DataSource, FromData, TaskFile, Where, task_path

HUB = "hub:"


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    prompt: str
    """The user message, the same in every arm."""
    gold: str
    grader: str


def load_questions(
    task: TaskFile, *, task_name: str, data: str | None, limit: int | None
) -> list[Question]:
    """The questions of `load_task_data`."""
    return load_task_data(task, task_name=task_name, data=data, limit=limit)[1]


def load_task_data(
    task: TaskFile, *, task_name: str, data: str | None, limit: int | None
) -> tuple[TaskFile, list[Question]]:
    """The task with its labels filled in, and its first `limit` questions, in file order. `data`
    is a path, or `hub:NAME[:CONFIG[:SPLIT]]`, and overrides the task's own source. Raises
    `ConfigurationError` with one sentence."""
    source, label = _source(task, task_name, data)
    rows = _read(source, label)
    if task.where is not None:
        rows = _kept(rows, task.where, label)
    if isinstance(task.labels, FromData):
        task = task.model_copy(update={"labels": _labels(task, rows, label)})
    task.messages("")  # instructions that can't be rendered are refused here
    if limit is not None:
        rows = rows[:limit]
    if not rows:
        raise ConfigurationError(f"{label} holds no questions")
    questions = [_question(task, row, position, label) for position, row in enumerate(rows)]
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ConfigurationError(f"{label}: the id '{question.id}' occurs twice")
        seen.add(question.id)
    return task, questions


def ordered(questions: list[Question], order: int) -> list[Question]:
    """Order 0 is the file's; every other one is a shuffle whose seed is its number."""
    shuffled = list(questions)
    if order:
        random.Random(order).shuffle(shuffled)
    return shuffled


def _source(task: TaskFile, task_name: str, data: str | None) -> tuple[DataSource, str]:
    if data is not None and data.startswith(HUB):
        name, *rest = data.removeprefix(HUB).split(":")
        if not name:
            raise ConfigurationError("--data hub:NAME[:CONFIG[:SPLIT]] lacks the name")
        config = rest[0] if rest and rest[0] else None
        split = rest[1] if len(rest) > 1 else "test"
        return DataSource(hub=name, config=config, split=split), f"the data set {name}"
    if data is not None:
        return DataSource(path=str(Path(data).expanduser())), data
    if task.source is None:
        raise ConfigurationError(
            f"the task {task.name} ships without data: give --data FILE or --data hub:NAME"
        )
    if task.source.path is not None:
        path = task_path(task_name).parent / task.source.path
        return DataSource(path=str(path)), str(path)
    return task.source, f"the data set {task.source.hub}"


def _read(source: DataSource, label: str) -> list[dict[str, Any]]:
    if source.path is None:
        return _from_hub(source, label)
    path = Path(source.path)
    if not path.is_file():
        raise ConfigurationError(f"the data file {label} does not exist")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(
            f"{label}: the ending '{path.suffix}' is none of {', '.join(_READERS)}"
        )
    try:
        return list(reader(path))
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise ConfigurationError(f"{label} can't be read: {error}") from error


def _json(path: Path) -> Iterator[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ConfigurationError(f"{path} must hold a JSON list of objects")
    for number, row in enumerate(rows, 1):
        yield _object(row, f"{path}, item {number}")


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigurationError(f"{path}, line {number} is not JSON: {error}") from error
            yield _object(row, f"{path}, line {number}")


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            f"{path}: Parquet needs pyarrow: pip install 'ttcl[bench-data]'"
        ) from error
    try:
        yield from parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ConfigurationError(f"{path} is not a readable Parquet file: {error}") from error


_READERS = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigurationError(f"{where} is not a JSON object")
    return row


def _from_hub(source: DataSource, label: str) -> list[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise ConfigurationError(
            f"{label} needs datasets (pip install 'ttcl[bench-data]'), or give --data FILE"
        ) from error
    try:
        rows = datasets.load_dataset(source.hub, source.config, split=source.split)
        return [dict(row) for row in rows]
    except Exception as error:  # the library raises many kinds, network and name errors included
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError(f"{label} can't be loaded: {detail}") from error


def _kept(rows: list[dict[str, Any]], where: Where, label: str) -> list[dict[str, Any]]:
    kept = []
    for row in rows:
        text = str(row[_pick(row, (where.column,), label, "where")])
        if any(part in text for part in where.contains):
            kept.append(row)
    if rows and not kept:
        parts = " or ".join(f"'{part}'" for part in where.contains)
        raise ConfigurationError(f"{label}: no row's {where.column} contains {parts}")
    return kept


def _labels(task: TaskFile, rows: list[dict[str, Any]], label: str) -> tuple[str, ...]:
    answers = {_answer(task, row, position, label)[1] for position, row in enumerate(rows)}
    return tuple(sorted(answers))


def _question(task: TaskFile, row: dict[str, Any], position: int, label: str) -> Question:
    columns = task.columns
    answer_column, gold = _answer(task, row, position, label)
    question = str(row[_pick(row, columns.question, label, "question")])
    visible = {k: v for k, v in row.items() if k != answer_column} | {"question": question}
    return Question(
        id=str(_first(row, columns.id) or f"{task.name}-{position}"),
        prompt=task.render(visible),
        gold=gold,
        grader=_grader(task, row, columns, label),
    )


def _answer(task: TaskFile, row: dict[str, Any], position: int, label: str) -> tuple[str, str]:
    """The column that the gold answer stands in, and the answer."""
    column = _pick(row, task.columns.answer, label, "answer")
    return column, _gold(task, str(row[column]), f"{label}, row {position + 1}")


def _pick(row: dict[str, Any], names: tuple[str, ...], label: str, what: str) -> str:
    for name in names:
        if row.get(name) is not None:
            return name
    has = ", ".join(str(name) for name in row)
    raise ConfigurationError(
        f"{label} has no {what} column '{' or '.join(names)}'; its columns are {has}"
    )


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _gold(task: TaskFile, text: str, where: str) -> str:
    if task.answer_pattern is None:
        return text.strip()
    match = re.search(task.answer_pattern, text)
    if match is None:
        raise ConfigurationError(f"{where}: the answer does not match the task's answer_pattern")
    return match.group(1).strip()


def _grader(task: TaskFile, row: dict[str, Any], columns: Columns, label: str) -> str:
    if not columns.grader:
        return task.grader
    name = str(row[_pick(row, columns.grader, label, "grader")])
    if name not in GRADERS:
        raise ConfigurationError(f"{label}: the grader '{name}' is none of {', '.join(GRADERS)}")
    return name
