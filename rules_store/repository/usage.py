"""Which of the latest episodes a rule was injected into."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.tables import episodes

# By number alone, which an index answers; traces are read of these only.
_LATEST = (
    select(episodes.c.seq)
    .where(episodes.c.namespace == bindparam("space"))
    .order_by(episodes.c.seq.desc())
    .limit(bindparam("among"))
)
_USES = select(
    episodes.c.created_at,
    # Ids are random words of their own: as text of the JSON array they can't be part of another.
    episodes.c.trace["rules_injected"].as_string().contains(bindparam("rule"), autoescape=False),
).where(episodes.c.seq.in_(_LATEST), episodes.c.created_at >= bindparam("since"))


async def of_rule(
    connection: AsyncConnection, namespace: str, rule_id: str, among: int, since: datetime
) -> list[tuple[datetime, bool]]:
    """(when, whether the rule was injected) of the namespace's `among` latest episodes, as far as
    they are not older than `since`."""
    rows = await connection.execute(
        _USES, {"space": namespace, "among": among, "rule": rule_id, "since": since}
    )
    return [(row[0], bool(row[1])) for row in rows]
