"""Which of the latest episodes a rule was injected into."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.tables import episodes

_LATEST = (
    select(episodes.c.created_at, episodes.c.trace)
    .where(episodes.c.namespace == bindparam("space"))
    .order_by(episodes.c.seq.desc())
    .limit(bindparam("among"))
    .subquery()
)
_USES = select(
    _LATEST.c.created_at,
    # Ids are random words of their own: as text of the JSON array they can't be part of another.
    _LATEST.c.trace["rules_injected"].as_string().contains(bindparam("rule", unique=False)),
)


async def of_rule(
    connection: AsyncConnection, namespace: str, rule_id: str, among: int
) -> list[tuple[datetime, bool]]:
    """(when, whether the rule was injected) of the namespace's `among` latest episodes."""
    rows = await connection.execute(_USES, {"space": namespace, "among": among, "rule": rule_id})
    return [(row[0], bool(row[1])) for row in rows]
