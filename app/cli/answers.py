"""How answers of the admin API are shown: as a table, as a list of fields, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from app.cli.common import add_row, changed_fields, err, out, print_json, shortened, table

COLUMNS = {
    "Rule": "id namespace polarity state frequency exposures lift=lift.mean text",
    "NearRule": "id score polarity state text",
    "Example": "id namespace state trust exposures lift=lift.mean question answer",
    "NearExample": "id score state trust question answer",
    "Conflict": "similarity one=one.id answer=one.answer other=other.id answer=other.answer",
    "Episode": "id created_at namespace mode status reason question",
    "Event": "id at namespace kind actor reason change",
    "Job": "id kind namespace state attempts episode updated_at last_error",
    "Key": "id name shown namespaces permissions last_used_at expires_at revoked_at",
    "NamespaceSummary": "name rules=rules.active candidates=rules.candidate"
    " quarantined=rules.quarantined examples=examples.active frozen paused",
    "Snapshot": "event label at actor reason",
}
"""What a table has of each kind of row: fields, or `title=path.to.field`."""
SAME = {"WrittenRule": "Rule", "WrittenExample": "Example"}
WIDEST = 100
"""Characters of a text in a table; `show` and JSON have the whole."""


def show_list(kind: str, rows: list[dict[str, Any]], total: int, as_json: bool) -> None:
    """`rows`: as many of `total` as were asked for."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    if rows or kind in COLUMNS:
        _table(kind, rows)
    err.print(f"{len(rows)} of {total}")


def show_one(kind: str, answer: dict[str, Any], as_json: bool, *, whole: bool = False) -> None:
    """What an operation gave: one row, or (`whole`, and where no table is known) all its fields."""
    if as_json:
        print_json(answer)
        return
    kind = SAME.get(kind, kind)
    if kind in COLUMNS and not whole:
        _table(kind, [answer])
    else:
        _fields(answer)
    if answer.get("state") == "quarantined" and answer.get("reason"):
        err.print(f"in quarantine: {answer['reason']}", markup=False)
    elif answer.get("warnings"):
        err.print(f"but suspect: {', '.join(answer['warnings'])}", markup=False)


def _table(kind: str, rows: list[dict[str, Any]]) -> None:
    columns = COLUMNS.get(kind) or " ".join(name for name, _ in _scalars(rows[0]))
    pairs = [
        (title, path or title) for title, _, path in (c.partition("=") for c in columns.split())
    ]
    shown = table(" ".join(title for title, _ in pairs))
    for row in rows:
        add_row(shown, *(_cell(row, path) for _, path in pairs))
    out.print(shown)


def _cell(row: dict[str, Any], path: str) -> str:
    if path == "change":
        return changed_fields(row["before"], row["after"])
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if path == "lift.mean":
        return "" if value is None else f"{value:+.2f}"
    return shortened(_text(value), WIDEST)


def _text(value: Any) -> str:
    """One line."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case list() if all(isinstance(each, str) for each in value):
            return ", ".join(value)
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return " ".join(str(value).split())


def _fields(answer: dict[str, Any]) -> None:
    """Each field on a line, then a table for each list of things."""
    lists = {name: value for name, value in answer.items() if _is_table(value)}
    shown = table("field value")
    for name, value in _flat(answer, skip=lists):
        add_row(shown, name, value if isinstance(value, str) else _text(value))
    out.print(shown)
    for name, rows in lists.items():
        out.print(f"\n{name}")
        _table("Event" if {"before", "after", "kind"} <= rows[0].keys() else "", rows)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _flat(answer: dict[str, Any], prefix: str = "", skip: Any = ()) -> Iterator[tuple[str, Any]]:
    for name, value in answer.items():
        if name == "object" or name in skip or value is None or value in ([], {}):
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _scalars(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name != "object" and not isinstance(value, dict | list):
            yield name, value
