"""Which of the latest episodes a rule was injected into."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.schema import episodes

# By number alone, which an index answers; traces are read of these only.
_LATEST = (
    select(episodes.c.seq)
    .where(episodes.c.namespace == bindparam("space"))
    .order_by(episodes.c.seq.desc())
    .limit(bindparam("among"))
)
_ESCAPE = "/"
_USES = select(
    episodes.c.created_at,
    # As text of the JSON array, in its quotation marks: no id is found within another.
    episodes.c.trace["rules_injected"].as_string().contains(bindparam("rule"), escape=_ESCAPE),
).where(episodes.c.seq.in_(_LATEST), episodes.c.created_at >= bindparam("since"))


async def of_rule(
    connection: AsyncConnection, namespace: str, rule_id: str, among: int, since: datetime
) -> list[tuple[datetime, bool]]:
    """(when, whether the rule was injected) of the namespace's `among` latest episodes, as far as
    they are not older than `since`."""
    rows = await connection.execute(
        _USES, {"space": namespace, "among": among, "rule": _quoted(rule_id), "since": since}
    )
    return [(row[0], bool(row[1])) for row in rows]


def _quoted(rule_id: str) -> str:
    """As a LIKE pattern finds it, and nothing else."""
    for special in (_ESCAPE, "%", "_"):
        rule_id = rule_id.replace(special, _ESCAPE + special)
    return f'"{rule_id}"'
