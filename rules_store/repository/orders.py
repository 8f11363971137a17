"""In which orders rules and examples are listed, and which have a measured lift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, or_, select

from rules_store.database.schema import standings
from rules_store.models.paging import Position
from rules_store.models.rules import RuleSort


@dataclass(frozen=True, slots=True)
class Order:
    """How a table is listed, and where in this order a row has its place."""

    by: tuple[ColumnElement[Any], ...]
    after: Callable[[Position], ColumnElement[bool]]
    """Whether a row comes after a place."""
    place: Callable[[Row[Any]], Position]


def orders(table: Table) -> dict[RuleSort, Order]:
    """Of a table with `seq` and `exposures`."""
    seq, exposures = table.c.seq, table.c.exposures

    def less_used(place: Position) -> ColumnElement[bool]:
        fewer = exposures < place[0]
        return or_(fewer, and_(exposures == place[0], seq < place[1]))

    return {
        RuleSort.NEWEST: Order((seq.desc(),), lambda place: seq < place[0], _by_number),
        RuleSort.OLDEST: Order((seq.asc(),), lambda place: seq > place[0], _by_number),
        RuleSort.USED: Order((exposures.desc(), seq.desc()), less_used, _by_use),
    }


def place_length(sort: RuleSort) -> int:
    """How many numbers tell a place in this order."""
    return 2 if sort is RuleSort.USED else 1


def lifted(namespace: str | None, least: float | None, most: float | None) -> Select[tuple[str]]:
    """Ids of the items whose measured lift is within these bounds; None: no bound."""
    evidence = (
        standings.c.with_hits
        + standings.c.with_misses
        + standings.c.without_hits
        + standings.c.without_misses
    )
    found = select(standings.c.item_id).where(evidence > 0)
    if namespace is not None:
        found = found.where(standings.c.namespace == namespace)
    if least is not None:
        found = found.where(standings.c.lift >= least)
    if most is not None:
        found = found.where(standings.c.lift <= most)
    return found


def _by_number(row: Row[Any]) -> Position:
    return (row.seq,)


def _by_use(row: Row[Any]) -> Position:
    return (row.exposures, row.seq)
