"""All that is stored about a namespace, on its way out: for whoever asks what there is."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, inspect, select

from rules_store.database.schema import embeddings, metadata, namespaces, rules
from rules_store.errors import UnknownNamespace
from rules_store.operations.base import StoreCore
from rules_store.repository import namespaces as repository


class ArchiveOperations(StoreCore):
    async def export_namespace(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Every row of every table that is of this namespace, as JSON: `table` and `row`; vectors
        are in base64. All as of one moment: a transaction is open until the end.

        Raises UnknownNamespace.
        """
        async with self._database.read() as connection:
            if await repository.find(connection, name) is None:
                raise UnknownNamespace(name)
            for table, wanted in _selections(name):
                rows = await connection.stream(wanted)
                async for row in rows:
                    values = {column: _plain(value) for column, value in row._mapping.items()}
                    yield {"table": table.name, "row": values}


def _selections(name: str) -> Iterator[tuple[Table, Select[Any]]]:
    for table in metadata.sorted_tables:
        if table is embeddings:
            own = select(rules.c.seq).where(rules.c.namespace == name)
            chosen: ColumnElement[bool] = embeddings.c.rule_seq.in_(own)
        elif table is namespaces:
            chosen = namespaces.c.name == name
        elif "namespace" in table.c:
            chosen = table.c.namespace == name
        else:
            continue  # of the whole store: its identity, keys and what they have used
        yield table, select(table).where(chosen).order_by(*inspect(table).primary_key)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
