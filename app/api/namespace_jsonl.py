"""A namespace out of the store and into it as JSON lines; one line is a row of a table.

`{"table": "rules", "row": {"id": ..., ...}}`, as `store.namespaces.export` gives them.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import orjson
from pydantic import ValidationError

from app.api.examples_jsonl import ExampleLine
from app.api.jsonl import json_of
from app.api.rules_jsonl import RuleLine
from app.api.schemas.rules import Episode
from app.chat.request import param_name
from app.exceptions import InvalidRequest
from rules_store.models.episodes import Episode as StoredEpisode
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import Change
from rules_store.operations.namespace_import import ImportedNamespace
from rules_store.operations.namespace_rows import InvalidRow, Row, RowReader, Table
from rules_store.store import RuleStore

_IN_MEMORY = 8_000_000  # bytes of an export that wait for a slow reader there, not in a file
_PIECE = 65_536

Lines = Callable[[], Iterable[bytes]]
"""Gives the lines of a file from the first one on, each time that it is called."""


# -- out


async def export_lines(store: RuleStore, name: str) -> AsyncIterator[bytes]:
    """JSON lines, many at a time. The store has given them all before the first one is out: it
    waits for no reader. Raises UnknownNamespace."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
        async for line in store.namespaces.export(name):
            spool.write(orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS) + b"\n")
        spool.seek(0)
        while piece := await asyncio.to_thread(spool.read, _PIECE):
            yield piece


# -- in


async def import_lines(
    store: RuleStore,
    lines: Lines,
    *,
    name: str | None,
    trust: bool,
    change: Change,
) -> ImportedNamespace:
    """All of it or nothing; as `NamespaceOperations.import_` has it. Raises `InvalidRequest` with
    the number of a line that can't be taken, StoreError."""
    checked = await asyncio.to_thread(_checked, lines)
    return await store.namespaces.import_(
        checked, lambda: _rows(lines, RowReader()), name=name, trust=trust, change=change
    )


def _checked(lines: Lines) -> RowReader:
    reader = RowReader()
    for _ in _rows(lines, reader, _check):
        pass
    try:
        reader.end()
    except InvalidRow as error:
        raise InvalidRequest(f"body: {error}", param="body") from None
    return reader


def _rows(
    lines: Lines, reader: RowReader, check: Callable[[Table, Row], None] = lambda table, row: None
) -> Iterator[tuple[Table, Row]]:
    for number, line in enumerate(lines(), start=1):
        if not line.strip():
            continue
        try:
            table, row = reader.read(*_parts(line))
            if table.name == "rules":
                row |= _as_lines(row)
            check(table, row)
        except ValidationError as error:
            first = error.errors()[0]
            field = param_name(tuple(first["loc"])) or "row"
            raise _refused(number, f"{table.name}.{field}: {first['msg']}") from None
        except ValueError as error:
            raise _refused(number, str(error)) from None
        yield table, row


def _refused(number: int, why: str) -> InvalidRequest:
    return InvalidRequest(f"line {number}: {why}", param="body")


def _parts(line: bytes) -> tuple[Any, Any]:
    """Raises ValueError."""
    parsed = json_of(line)
    if not isinstance(parsed, dict) or set(parsed) != {"table", "row"}:
        raise ValueError('not {"table": ..., "row": ...}')
    return parsed["table"], parsed["row"]


def _check(table: Table, row: Row) -> None:
    """By the rules of the other ways in. Raises ValidationError."""
    if table.name == "examples":
        ExampleLine.model_validate(
            {name: row[name] for name in ("id", "question", "answer", "label")}
        )
    elif table.name == "episodes":
        named = {name: row[name] for name in StoredEpisode.__dataclass_fields__}
        Episode.of(StoredEpisode(**named | {"status": EpisodeStatus(row["status"])}))


def _as_lines(row: Row) -> Row:
    """Text and trigger of a rule, each one line, as everywhere else. Raises ValidationError."""
    given = {name: row[name] for name in ("id", "polarity", "text", "trigger")}
    read = RuleLine.model_validate(given)
    return {"text": read.text, "trigger": read.trigger}
