"""A namespace out of its export and in again: all of it or nothing, whoever wrote the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table

from rules_store.errors import DuplicateNamespace, DuplicateRows
from rules_store.models.events import Change, EventFilter, RollbackTarget
from rules_store.models.examples import NewExample, Trust
from rules_store.operations.namespace_import import ImportedNamespace
from rules_store.operations.namespace_rows import InvalidRow, Row, RowReader
from rules_store.store import RuleStore
from tests.rules_store.helpers import (
    POSITIVE,
    all_rules,
    axis,
    between,
    claimed,
    open_store,
    write,
)

BY = Change("keeper", "moving house")
Lines = list[dict[str, Any]]


async def exported(store: RuleStore, name: str = "default") -> Lines:
    return [json.loads(json.dumps(line)) async for line in store.namespaces.export(name)]


def rows(lines: Lines, reader: RowReader) -> Iterator[tuple[Table, Row]]:
    for line in lines:
        yield reader.read(line["table"], line["row"])


async def imported(store: RuleStore, lines: Lines, **more: Any) -> ImportedNamespace:
    reader = RowReader()
    for _ in rows(lines, reader):
        pass
    return await store.namespaces.import_(
        reader, lambda: rows(lines, RowReader()), change=BY, **more
    )


async def filled(store: RuleStore) -> str:
    """The id of a rule that a person vouched for."""
    rule = await write(
        store, "Count what is left.", axis(1), trigger="counting", trigger_vector=axis(2)
    )
    await store.history.snapshot("default", "before", change=BY)
    await write(store, "Add the parts.", axis(3))
    new = NewExample("default", "How many?", "Four.", Trust.LABEL, label="4")
    await store.examples.create(new, axis(4), change=BY)
    await claimed(store, "episode-1")
    return rule.id


def nameless(lines: Lines) -> list[str]:
    """Without what the database numbers, and what the import itself has written."""
    numbers = ("seq", "id", "rule_seq", "item_seq", "at")
    kept = []
    for line in lines:
        row = {
            name: value
            for name, value in line["row"].items()
            if name not in numbers or (name == "id" and line["table"] not in ("events", "jobs"))
        }
        if row.get("kind") not in ("namespace.created", "namespace.imported", "namespace.deleted"):
            kept.append(json.dumps([line["table"], row], sort_keys=True))
    return sorted(kept)


async def test_what_was_exported_comes_in_again_and_steers_at_once(
    store: RuleStore, tmp_path: Path
) -> None:
    rule = await filled(store)
    lines = await exported(store)
    with pytest.raises(DuplicateNamespace):
        await imported(store, lines)
    with pytest.raises(DuplicateRows):
        await imported(store, lines, name="another")
    assert not await store.namespaces.exists("another")
    await store.namespaces.delete("default", change=BY)
    other = await open_store(tmp_path)
    done = await imported(store, lines, trust=True)
    assert (done.trusted, done.left_out) == (True, {})
    assert done.rows["rules"] == 2
    assert nameless(await exported(store)) == nameless(lines)
    await other.catch_up()
    for process in (store, other):
        assert process.search("default", between(1, 9, 0.9), POSITIVE, 1).hits[0].id == rule
        assert process.search_examples("default", axis(4), 1)[0].label == "4"
        known = process.evidence.standing_of(rule)
        assert known is not None
        assert known.proven
    await other.close()
    (last,) = (await store.history.events(EventFilter(kind="namespace.imported"))).items
    assert (last.actor, last.reason) == ("keeper", "moving house")
    assert last.after["trusted"] is True
    plan = await store.history.plan_rollback("default", RollbackTarget(snapshot="before"))
    assert [each.after.text for each in plan.changes] == ["Add the parts."]
    # A rule by a new number, and jobs that go on.
    await write(store, "Take away.", axis(7))
    assert await store.jobs.claim("worker", key="episode-1") is None, "its lease is another's"


async def test_without_trust_it_proves_itself_anew_under_any_name(store: RuleStore) -> None:
    rule = await filled(store)
    lines = await exported(store)
    await store.namespaces.delete("default", change=BY)
    done = await imported(store, lines, name="moved")
    assert done.left_out == {"standings": 2}
    assert store.search("moved", axis(1), POSITIVE, 1).hits[0].id == rule
    assert await store.evidence.standings_of([rule]) == {}
    assert await store.history.plan_rollback("moved", RollbackTarget(snapshot="before"))
    assert not await store.namespaces.exists("default")


async def test_what_fails_in_the_middle_leaves_nothing(store: RuleStore) -> None:
    await filled(store)
    lines = await exported(store)
    await store.namespaces.delete("default", change=BY)
    reader = RowReader()
    for _ in rows(lines, reader):
        pass

    def broken() -> Iterator[tuple[Table, Row]]:
        yield from list(rows(lines, RowReader()))[:-2]
        raise InvalidRow("the disk is gone")

    with pytest.raises(InvalidRow, match="the disk"):
        await store.namespaces.import_(reader, broken, change=BY)
    assert not await store.namespaces.exists("default")
    assert await all_rules(store) == []
    assert (await imported(store, lines)).rows["rules"] == 2


SPACE = {
    "name": "a",
    "created_at": "2026-01-01T00:00:00+00:00",
    "frozen": False,
    "settings": {},
    "control_share": None,
    "suspension": None,
}
EVENT = {
    "id": 1,
    "at": "2026-01-01T00:00:00+00:00",
    "namespace": "a",
    "kind": "rule.created",
    "rule_id": "r",
    "example_id": None,
    "actor": "kim",
    "reason": "",
    "before": None,
    "after": {},
    "key": None,
    "key_id": None,
}


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("table", "row", "said"),
    [
        ("api_keys", {}, "table: none"),
        ("alembic_version", {}, "table: none"),
        (["rules"], {}, "table: none"),
        ("namespaces", [], "row is no object"),
        ("namespaces", {**SPACE, "secret": 1}, "namespaces.secret"),
        ("namespaces", {**SPACE, "name": None}, "namespaces.name: missing"),
        ("namespaces", {**SPACE, "name": "a" * 200}, "at most 128"),
        ("namespaces", {**SPACE, "frozen": "no"}, "namespaces.frozen"),
        ("namespaces", {**SPACE, "settings": None}, "namespaces.settings"),
        ("namespaces", {**SPACE, "settings": {"capacity": -1}}, "namespaces.settings"),
        ("namespaces", {**SPACE, "suspension": {"since": "x"}}, "namespaces.suspension"),
        ("namespaces", {**SPACE, "created_at": "yesterday"}, "namespaces.created_at"),
        ("namespaces", {**SPACE, "created_at": "2026-01-01T00:00:00"}, "time zone"),
        ("namespaces", {**SPACE, "control_share": 1e400}, "control_share"),
        ("namespaces", {**SPACE, "control_share": 10**400}, "control_share"),
        ("namespaces", {**SPACE, "control_share": True}, "control_share"),
        ("events", {**EVENT, "id": 2**40}, "events.id"),
        ("events", {**EVENT, "id": True}, "events.id"),
        ("events", {**EVENT, "after": 5}, "events.after"),
        ("events", {**EVENT, "after": {"rules": 5}}, "events.after: rules"),
        ("events", {**EVENT, "after": {"examples": [{}]}}, "events.after: examples"),
        ("embeddings", {"rule_seq": 1, "model": "m", "kind": "text", "vector": "?"}, "base64"),
        ("embeddings", {"rule_seq": 1, "model": "m", "kind": "text", "vector": "AAA="}, "float32"),
        ("embeddings", {"rule_seq": 1, "model": "m", "kind": "x", "vector": "AACAPw=="}, "kind"),
        ("embeddings", {"rule_seq": 1, "model": "m", "kind": "text", "vector": "AADAfw=="}, "1"),
        (
            "embeddings",
            {"rule_seq": 1, "model": "m", "kind": "text", "vector": "AACAPw=="},
            "no rule",
        ),
        (
            "effects",
            {
                "namespace": "a",
                "signal": "label",
                "state": {"a": "1"},
                "started_at": SPACE["created_at"],
                "updated_at": SPACE["created_at"],
            },
            "effects.state",
        ),
    ],
)
def test_a_row_that_no_table_takes_is_refused(table: Any, row: Any, said: str) -> None:
    with pytest.raises(InvalidRow) as refused:
        RowReader().read(table, row)
    assert said in str(refused.value)


@pytest.mark.sqlite
def test_rows_that_do_not_go_together_are_refused() -> None:
    reader = RowReader()
    with pytest.raises(InvalidRow, match="is not there"):
        reader.end()
    reader.read("namespaces", SPACE)
    with pytest.raises(InvalidRow, match="more than one"):
        reader.read("namespaces", SPACE)
    with pytest.raises(InvalidRow, match="not 'a'"):
        reader.read("events", {**EVENT, "namespace": "b"})
    assert reader.end() == "a"
