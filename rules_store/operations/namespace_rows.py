"""A namespace as the rows that `NamespaceOperations.export` gives, read again: what each table and
column takes, whoever wrote the file. Rows come in the order of an export: what others point to
before these."""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Integer,
    LargeBinary,
)
from sqlalchemy import Table as Table

from rules_store.database.json_codec import storable
from rules_store.database.schema import UtcDateTime, embeddings, metadata, namespaces
from rules_store.models.effect import Purpose, Suspension
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.evidence import LinkKind, Reference, Signal
from rules_store.models.examples import Given, Trust
from rules_store.models.feedback import FeedbackSource
from rules_store.models.jobs import JobState
from rules_store.models.namespaces import NamespaceSettings
from rules_store.models.rules import Polarity, RuleState
from rules_store.operations import example_writes, rule_writes
from rules_store.policy.control import Arm
from rules_store.policy.effect import EffectState
from rules_store.policy.gate import Verdict
from rules_store.repository import copies
from rules_store.repository.embeddings import TEXT, TRIGGER

Row = dict[str, Any]
OWN_TABLES: dict[str, Table] = {
    table.name: table
    for table in metadata.sorted_tables
    if table in (namespaces, embeddings) or "namespace" in table.c
}
"""Those with rows that are a namespace's."""
EVIDENCE = frozenset(
    {
        "standings",
        "exposures",
        "outcomes",
        "trials",
        "choices",
        "arms",
        "effects",
        "effect_points",
        "judged_conversations",
    }
)
"""Tables of what was measured there: it counts here where the import is trusted."""
_MOST = {Integer: 2**31 - 1, BigInteger: 2**63 - 1}


class InvalidRow(ValueError):
    """The sentence names table and column."""


class RowReader:
    """Reads the rows of one namespace, one after the other; each call checks one more."""

    def __init__(self) -> None:
        self.namespace: Row | None = None
        """Its own row, once it has come."""
        self.counts: Counter[str] = Counter()
        self.ids: dict[str, set[str]] = {"rules": set(), "examples": set(), "episodes": set()}
        self.judged: set[str] = set()
        """Rules and examples that have a standing."""
        self._name: str | None = None
        self._numbers: set[int] = set()

    def read(self, name: Any, row: Any) -> tuple[Table, Row]:
        """The values of a row as its table takes them. Raises InvalidRow."""
        table = OWN_TABLES.get(name) if isinstance(name, str) else None
        if table is None:
            raise InvalidRow("table: none of a namespace's")
        if not isinstance(row, dict):
            raise InvalidRow(f"{table.name}: row is no object")
        unknown = sorted(set(row) - set(table.c.keys()))
        if unknown:
            raise InvalidRow(f"{table.name}.{unknown[0]}: this version has no such column")
        values = {column.name: _value(column, row.get(column.name)) for column in table.c}
        self._check(table, values)
        self.counts[table.name] += 1
        return table, values

    def end(self) -> str:
        """The namespace's name, when all have come. Raises InvalidRow."""
        if self._name is None or self.namespace is None:
            raise InvalidRow("namespaces: the row of the namespace itself is not there")
        return self._name

    def _check(self, table: Table, values: Row) -> None:
        """What several rows say of one another. Raises InvalidRow."""
        name = values.get("name") if table is namespaces else values.get("namespace")
        if table is not embeddings:
            if self._name not in (None, name):
                raise InvalidRow(f"{table.name}.namespace: not {self._name!r}, as in other rows")
            self._name = name
        if table is namespaces:
            if self.namespace is not None:
                raise InvalidRow("namespaces: there is more than one row")
            self.namespace = values
        elif table.name in self.ids:
            known = self.ids[table.name]
            if values["id"] in known:
                raise InvalidRow(f"{table.name}.id: {values['id']!r} is there twice")
            known.add(values["id"])
            if table.name == "rules":
                self._numbers.add(values["seq"])
        elif table is embeddings and values["rule_seq"] not in self._numbers:
            raise InvalidRow("embeddings.rule_seq: no rule of this number stands before it")
        elif table.name in ("jobs", "feedback"):
            if values["episode_id"] not in self.ids["episodes"]:
                raise InvalidRow(f"{table.name}.episode_id: no such episode stands before it")
        elif table.name == "standings":
            if values["item_id"] in self.judged:
                raise InvalidRow("standings.item_id: is there twice")
            self.judged.add(values["item_id"])


def _value(column: Column[Any], given: Any) -> Any:
    """Raises InvalidRow."""
    where = f"{column.table.name}.{column.name}"
    if given is None:
        if not column.nullable:
            raise InvalidRow(f"{where}: missing")
        return None
    try:
        value = _typed(column, given)
        check = _MEANINGS.get((column.table.name, column.name)) or _MEANINGS.get(("", column.name))
        return value if check is None else check(value)
    except InvalidRow:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise InvalidRow(f"{where}: {_why(error)}") from None
    except RecursionError as error:  # nested deeper than anything that was stored
        raise InvalidRow(f"{where}: {_why(error)}") from None


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "is not as it was stored"


def _typed(column: Column[Any], given: Any) -> Any:
    """Raises ValueError."""
    kind = column.type
    if isinstance(kind, JSON):
        return _object(given)
    if isinstance(kind, Boolean):
        return _of(given, bool, "true or false")
    if isinstance(kind, Integer):
        most = _MOST[BigInteger if isinstance(kind, BigInteger) else Integer]
        if isinstance(given, bool) or not isinstance(given, int) or abs(given) > most:
            raise ValueError("must be a whole number")
        return given
    if isinstance(kind, Float):
        if isinstance(given, bool) or not isinstance(given, int | float) or not _finite(given):
            raise ValueError("must be a number")
        return float(given)
    text: str = _of(given, str, "a text")
    if isinstance(kind, UtcDateTime):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("must have a time zone")
        return moment.astimezone(UTC)
    if isinstance(kind, LargeBinary):
        return _vector(text)
    most_characters = getattr(kind, "length", None)
    if most_characters is not None and len(text) > most_characters:
        raise ValueError(f"at most {most_characters} characters")
    return storable(text)


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _of(given: Any, kind: type, what: str) -> Any:
    if not isinstance(given, kind):
        raise ValueError(f"must be {what}")
    return given


def _vector(text: str) -> bytes:
    """Little-endian float32 of length 1. Raises ValueError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("must be base64") from None
    if not raw or len(raw) % 4:
        raise ValueError("must be float32 numbers")
    values = np.frombuffer(raw, dtype="<f4")
    # Infinities and what is no number fail here, too.
    if not abs(float(values.astype(np.float64) @ values.astype(np.float64)) - 1.0) < 1e-3:
        raise ValueError("must be a vector of length 1")
    return raw


def _among(*known: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    return check


def _read_by(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For JSON that `read` must understand."""

    def check(value: Any) -> Any:
        read(value)
        return value

    return check


def _object(value: Any) -> Any:
    return _of(value, dict, "an object")


def _numbers(value: Any) -> None:
    """Raises ValueError where there is anything else in it."""
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            _numbers(each)
        elif isinstance(each, bool) or not isinstance(each, int | float) or not _finite(each):
            raise ValueError("must be numbers")


def _effect_state(value: Any) -> Any:
    _numbers(value)
    EffectState.from_json(value)
    return value


def _of_event(value: Any) -> Any:
    """What an event keeps of before or after: caches read the ids in it."""
    for name in ("rules", "examples"):
        ids = value.get(name)
        if ids is not None and not (
            isinstance(ids, list) and all(isinstance(each, str) for each in ids)
        ):
            raise ValueError(f"{name} must be a list of ids")
    return value


_MEANINGS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("", "signal"): _among(*Signal),
    ("namespaces", "settings"): _read_by(NamespaceSettings.from_json),
    ("namespaces", "suspension"): _read_by(Suspension.from_json),
    ("rules", "polarity"): _among(*Polarity),
    ("rules", "state"): _among(*RuleState),
    ("embeddings", "kind"): _among(TEXT, TRIGGER),
    ("examples", "state"): _among(*RuleState),
    ("examples", "trust"): _among(*Trust),
    ("episodes", "status"): _among(*EpisodeStatus),
    ("jobs", "state"): _among(*JobState),
    ("jobs", "kind"): _among("episode", "feedback"),
    ("feedback", "source"): _among(*FeedbackSource),
    ("outcomes", "source"): _among(*Signal),
    ("trials", "reference"): _among(*Reference),
    ("standings", "verdict"): _among(*Verdict),
    ("precedents", "reference_kind"): _among(*Reference),
    ("links", "kind"): _among(*LinkKind),
    ("choices", "given"): _among(*Given),
    ("arms", "arm"): _among(*Arm),
    ("effects", "state"): _effect_state,
    ("spend_days", "purpose"): _among(*Purpose),
    ("events", "before"): _of_event,
    ("events", "after"): _of_event,
}


def fit_for(table: Table, row: Row, name: str, was: str) -> Row:
    """The row of the namespace that was called so, for one of this name; the database numbers it
    anew."""
    made = dict(row)
    if table is namespaces:
        made["name"] = name
    elif "namespace" in made:
        made["namespace"] = name
    if table.name == "rules":
        made["text_hash"] = rule_writes.text_hash(made["text"])
    elif table.name == "examples":
        made["text_hash"] = example_writes.text_hash(made["question"], made["answer"])
    elif table.name == "events" and (key := made.get("key")) is not None:
        prefix = f"snapshot:{was}:"
        if key.startswith(prefix):
            made["key"] = f"snapshot:{name}:{key.removeprefix(prefix)}"[:256]
    if table in copies.numbered_tables():
        made.pop(copies.number_of(table).name, None)
    return made


def in_batches(rows: Iterable[tuple[Table, Row]], most: int) -> Iterable[tuple[Table, list[Row]]]:
    """Rows of one table each, that came behind one another."""
    batch: list[Row] = []
    of: Table | None = None
    for table, row in rows:
        if of is not None and (table is not of or len(batch) >= most):
            yield of, batch
            batch = []
        of = table
        batch.append(row)
    if of is not None and batch:
        yield of, batch
