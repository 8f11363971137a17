"""Episodes, and which of them a rule was injected into."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, func, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import compiled
from rules_store.database.dialect import contains, insert_unless_there
from rules_store.database.json_codec import storable
from rules_store.database.schema import arms, episodes, feedback, jobs, precedents
from rules_store.models.episodes import Episode, EpisodeFilter, EpisodeStatus, Verdict
from rules_store.models.jobs import JobState

LISTED = (
    *("rules_injected", "examples_injected", "given", "rules_learned"),
    *("cost", "milliseconds", "degraded"),
)
"""Entries of a trace that a list shows."""
_LISTED = [
    *(column for column in episodes.c if column.name != "trace"),
    *(episodes.c.trace[name].label(f"trace_{name}") for name in LISTED),
]
INTERRUPTED = "interrupted"
_UNCLAIMED: dict[str, Any] = {"request_id": None, "body_hash": None}
"""A request that got no answer leaves its id free: its retry is to be learned from."""
_FINISH = (
    update(episodes)
    .where(
        episodes.c.id == bindparam("finished"),
        # A sweep may have taken a slow request for a lost one.
        (episodes.c.status == EpisodeStatus.PENDING)
        | ((episodes.c.status == EpisodeStatus.SKIPPED) & (episodes.c.reason == INTERRUPTED)),
    )
    .values(
        status=bindparam("new_status"),
        reason=bindparam("new_reason"),
        answer=bindparam("new_answer"),
        trace=bindparam("new_trace"),
        updated_at=bindparam("at"),
    )
    .returning(episodes.c.namespace, episodes.c.key_id)
)
_FINISH_UNANSWERED = _FINISH.values(**_UNCLAIMED)


async def insert_episode(
    connection: AsyncConnection,
    episode: Episode,
    request_id: str | None,
    body_hash: str | None,
) -> bool:
    """False when its request id (or its own id) is taken."""
    values = {
        "id": episode.id,
        "namespace": episode.namespace,
        "mode": episode.mode,
        "status": episode.status,
        "reason": episode.reason,
        "question": episode.question,
        "answer": episode.answer,
        "model": episode.model,
        "request_id": request_id,
        "body_hash": body_hash,
        "trace": episode.trace,
        "created_at": episode.created_at,
        "updated_at": episode.updated_at,
        "key_id": episode.key_id,
    }
    statement = insert_unless_there(connection, episodes)
    return (await compiled.execute(connection, statement, values)).rowcount == 1


async def id_of_request(connection: AsyncConnection, namespace: str, request_id: str) -> str | None:
    return await connection.scalar(
        select(episodes.c.id).where(
            episodes.c.namespace == namespace, episodes.c.request_id == request_id
        )
    )


async def ids_of_requests(
    connection: AsyncConnection, namespace: str, request_ids: Sequence[str]
) -> dict[str, str]:
    """Request id -> episode id, of those that are known."""
    statement = select(episodes.c.request_id, episodes.c.id).where(
        episodes.c.namespace == namespace, episodes.c.request_id.in_(request_ids)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}


async def id_of_body(
    connection: AsyncConnection, namespace: str, body_hash: str, since: datetime
) -> str | None:
    """The latest episode with this body that began at or after `since`."""
    return await connection.scalar(
        select(episodes.c.id)
        .where(
            episodes.c.namespace == namespace,
            episodes.c.body_hash == body_hash,
            episodes.c.created_at >= since,
        )
        .order_by(episodes.c.seq.desc())
        .limit(1)
    )


async def find(connection: AsyncConnection, episode_id: str) -> Episode | None:
    statement = select(episodes).where(episodes.c.id == episode_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _episode(row)


async def finish(
    connection: AsyncConnection,
    episode_id: str,
    at: datetime,
    *,
    status: EpisodeStatus,
    reason: str | None,
    answer: str | None,
    trace: dict[str, Any],
) -> tuple[str, str | None] | None:
    """Namespace of the episode and whose it is; None when it was not open any more."""
    values = {
        "finished": episode_id,
        "new_status": status,
        "new_reason": reason,
        "new_answer": answer,
        "new_trace": trace,
        "at": at,
    }
    statement = _FINISH_UNANSWERED if answer is None else _FINISH
    found = (await compiled.execute(connection, statement, values)).fetchall()
    return (found[0][0], found[0][1]) if found else None


async def conclude(
    connection: AsyncConnection,
    episode_id: str,
    at: datetime,
    status: EpisodeStatus,
    reason: str | None,
    trace: dict[str, Any],
) -> None:
    """What learning made of it; `trace` entries replace those of the same name."""
    before = await connection.scalar(select(episodes.c.trace).where(episodes.c.id == episode_id))
    await connection.execute(
        update(episodes)
        .where(episodes.c.id == episode_id)
        .values(status=status, reason=reason, trace={**(before or {}), **trace}, updated_at=at)
    )


async def annotate(connection: AsyncConnection, episode_id: str, entries: dict[str, Any]) -> None:
    """More entries of a trace, in place of those of the same name."""
    mine = episodes.c.id == episode_id
    before = await connection.scalar(select(episodes.c.trace).where(mine).with_for_update())
    await connection.execute(
        update(episodes).where(mine).values(trace={**(before or {}), **entries})
    )


async def sweep(connection: AsyncConnection, before: datetime, at: datetime) -> int:
    """Pending episodes that began before `before` and have no job."""
    has_job = select(jobs.c.id).where(jobs.c.episode_id == episodes.c.id).exists()
    result = await connection.execute(
        update(episodes)
        .where(
            episodes.c.status == EpisodeStatus.PENDING,
            episodes.c.created_at < before,
            ~has_job,
        )
        .values(status=EpisodeStatus.SKIPPED, reason=INTERRUPTED, updated_at=at, **_UNCLAIMED)
    )
    return result.rowcount


async def expired(
    connection: AsyncConnection, namespace: str, before: datetime, limit: int
) -> list[str]:
    """Ids of episodes that began before `before` and have no job that is still to be done; locked
    where the database locks rows, without those that somebody else has locked."""
    waiting = (
        select(jobs.c.id)
        .where(
            jobs.c.episode_id == episodes.c.id,
            jobs.c.state.in_([JobState.PENDING, JobState.RUNNING]),
        )
        .exists()
    )
    return list(
        await connection.scalars(
            select(episodes.c.id)
            .where(episodes.c.namespace == namespace, episodes.c.created_at < before, ~waiting)
            .order_by(episodes.c.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )


async def remove(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """Deletes episodes with their jobs, the feedback on them, what would replay them, and what
    was drawn for them. What they said about rules, and about steering, stays: numbers and ids, no
    text."""
    await connection.execute(delete(arms).where(arms.c.episode_id.in_(ids)))
    await connection.execute(delete(precedents).where(precedents.c.episode_id.in_(ids)))
    await connection.execute(delete(feedback).where(feedback.c.episode_id.in_(ids)))
    await connection.execute(delete(jobs).where(jobs.c.episode_id.in_(ids)))
    await connection.execute(delete(episodes).where(episodes.c.id.in_(ids)))


async def page(
    connection: AsyncConnection, where: EpisodeFilter, limit: int, before: int | None
) -> tuple[list[tuple[int, Episode]], int]:
    """Up to `limit` episodes with a sequence number below `before`, newest first; the total.

    Of each trace what `LISTED` names: of a whole page of them the database reads what a process
    that answers requests should not."""
    condition = and_(true(), *_conditions(connection.dialect.name, where))
    total = await connection.scalar(select(func.count()).select_from(episodes).where(condition))
    statement = select(*_LISTED).where(condition).order_by(episodes.c.seq.desc()).limit(limit)
    if before is not None:
        statement = statement.where(episodes.c.seq < before)
    rows = await connection.execute(statement)
    return [(row.seq, _listed(row)) for row in rows], total or 0


async def counts(
    connection: AsyncConnection, within: Collection[str] | None = None
) -> dict[str, int]:
    """Status -> episodes, of these namespaces or of all."""
    statement = select(episodes.c.status, func.count()).group_by(episodes.c.status)
    if within is not None:
        statement = statement.where(episodes.c.namespace.in_(sorted(within)))
    return {row[0]: row[1] for row in await connection.execute(statement)}


def _conditions(dialect: str, where: EpisodeFilter) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (episodes.c.namespace, where.namespace),
        (episodes.c.status, where.status),
        (episodes.c.mode, where.mode),
        (episodes.c.reason, where.reason),
    ):
        if value is not None:
            yield column == value
    if where.namespaces is not None:
        yield episodes.c.namespace.in_(sorted(where.namespaces))
    if where.text is not None:
        part = storable(where.text)
        texts = (episodes.c.question, episodes.c.answer)
        yield or_(*(contains(dialect, column, part) for column in texts))
    if where.created_after is not None:
        yield episodes.c.created_at >= where.created_after
    if where.created_before is not None:
        yield episodes.c.created_at < where.created_before
    if where.feedback is not None:
        said = select(feedback.c.seq).where(feedback.c.episode_id == episodes.c.id)
        yield said.where(*_SAID[where.feedback]).exists()


_FOUND = feedback.c.effect["right"].as_boolean()
_RIGHT = or_(feedback.c.verified.is_(True), feedback.c.score >= 0.5, _FOUND.is_(True))
_WRONG = or_(feedback.c.verified.is_(False), feedback.c.score < 0.5, _FOUND.is_(False))
_SAID: dict[Verdict, tuple[ColumnElement[bool], ...]] = {
    Verdict.GOOD: (_RIGHT,),
    Verdict.BAD: (_WRONG,),
    Verdict.ANY: (),
}


def _listed(row: Row[Any]) -> Episode:
    told = {name: getattr(row, f"trace_{name}") for name in LISTED}
    trace = {name: value for name, value in told.items() if value is not None}
    return _episode(row, trace)


def _episode(row: Row[Any], trace: dict[str, Any] | None = None) -> Episode:
    return Episode(
        id=row.id,
        namespace=row.namespace,
        mode=row.mode,
        status=EpisodeStatus(row.status),
        reason=row.reason,
        question=row.question,
        answer=row.answer,
        model=row.model,
        trace=row.trace if trace is None else trace,
        created_at=row.created_at,
        updated_at=row.updated_at,
        key_id=row.key_id,
    )


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
