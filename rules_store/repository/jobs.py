"""Learning jobs and what learning has cost."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import compiled
from rules_store.database.dialect import MOST, insert_or_add
from rules_store.database.schema import jobs, learn_spend, learning_pauses
from rules_store.models.jobs import Job, JobFilter, JobKind, JobRecord, JobState, Spend
from rules_store.policy.turns import Tenant
from rules_store.repository.namespaces import EVERY

SPEND_KEPT = 120
"""Minutes of spend that are kept."""
_INSERT = insert(jobs)
_PAUSED = (
    select(learning_pauses.c.namespace)
    .where(learning_pauses.c.namespace.in_([jobs.c.namespace, EVERY]))
    .exists()
)
_WHOSE = (func.coalesce(jobs.c.key_id, literal_column("''")), jobs.c.namespace)
"""Key and namespace of a job."""
_SHOWN = [jobs.c[name] for name in (each.name for each in fields(JobRecord))]


class HandOut(Protocol):
    """Whoever brings learning jobs to their workers. `connection`: the driver's own, in the midst
    of the transaction that makes the job due; `key`: the job's; `new`: it was not due before."""

    async def __call__(self, connection: Any, key: str, *, new: bool) -> None: ...


async def insert_job(
    connection: AsyncConnection,
    key: str,
    kind: JobKind,
    episode_id: str,
    namespace: str,
    payload: dict[str, Any],
    at: datetime,
    key_id: str | None,
) -> None:
    """`key`: what the job is about; there must be none about it yet. `key_id`: whose it is."""
    values = {
        "key": key,
        "kind": kind.value,
        "episode_id": episode_id,
        "namespace": namespace,
        "state": JobState.PENDING,
        "attempts": 0,
        "not_before": at,
        "payload": payload,
        "created_at": at,
        "updated_at": at,
        "key_id": key_id,
    }
    await compiled.execute(connection, _INSERT, values)


async def tenants_due(
    connection: AsyncConnection, now: datetime, farthest: timedelta, *, suspects: bool
) -> list[Tenant]:
    """Whose jobs `next_due` may find, those of the oldest job first."""
    statement = (
        select(*_WHOSE)
        .where(_due(now, farthest), ~_PAUSED, _trusted(suspects))
        .group_by(*_WHOSE)
        .order_by(func.min(jobs.c.id))
    )
    return [(row[0], row[1]) for row in await connection.execute(statement)]


async def next_due(
    connection: AsyncConnection,
    now: datetime,
    farthest: timedelta,
    *,
    key: str | None = None,
    tenant: Tenant | None = None,
    suspects: bool = True,
) -> Job | None:
    """The oldest job that waits or whose worker is lost, of a namespace whose learning is not
    paused; locked where the database locks rows. `farthest`: see `_due`. `suspects`: those too that
    wait after they were lost with a process."""
    statement = (
        select(jobs)
        .where(_due(now, farthest), ~_PAUSED, _trusted(suspects))
        .order_by(jobs.c.id)
        .limit(1)
    )
    if key is not None:
        statement = statement.where(jobs.c.key == key)
    if tenant is not None:
        statement = statement.where(*map(operator.eq, _WHOSE, tenant))
    statement = statement.with_for_update(skip_locked=True)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _job(row)


async def handed_out(connection: AsyncConnection, key: str) -> Job | None:
    """The job of this key, if it is not ended or paused; locked where the database locks
    rows."""
    statement = (
        select(jobs)
        .where(
            jobs.c.key == key,
            jobs.c.state.in_([JobState.PENDING, JobState.RUNNING]),
            ~_PAUSED,
        )
        .with_for_update()
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _job(row)


def _trusted(suspects: bool) -> ColumnElement[bool]:
    # What runs is looked at in any case: that it was lost is to be written down.
    return true() if suspects else or_(jobs.c.lost == 0, jobs.c.state == JobState.RUNNING)


def _due(at: datetime, farthest: timedelta) -> ColumnElement[bool]:
    """What runs without a lease is always due: who handed it out knows better.

    No delay and no lease ends later than `farthest` from now: where one does, the clock has been
    put back since, and nobody waits for it to catch up."""
    end = at + farthest
    starts, ends = jobs.c.not_before, jobs.c.lease_until
    return or_(
        and_(jobs.c.state == JobState.PENDING, or_(starts <= at, starts > end)),
        and_(jobs.c.state == JobState.RUNNING, or_(ends.is_(None), ends < at, ends > end)),
    )


async def due(
    connection: AsyncConnection, since: datetime, farthest: timedelta, limit: int
) -> list[str]:
    """Keys of the oldest jobs that have been due since then and are not paused."""
    found = (
        select(jobs.c.key).where(_due(since, farthest), ~_PAUSED).order_by(jobs.c.id).limit(limit)
    )
    return list(await connection.scalars(found))


async def waiting(connection: AsyncConnection) -> dict[Tenant, int]:
    """Pending jobs, by whose they are."""
    pending = (
        select(*_WHOSE, func.count()).where(jobs.c.state == JobState.PENDING).group_by(*_WHOSE)
    )
    return {(row[0], row[1]): row[2] for row in await connection.execute(pending)}


async def find(connection: AsyncConnection, job_id: int) -> Job | None:
    statement = select(jobs).where(jobs.c.id == job_id).with_for_update()
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _job(row)


async def set_state(
    connection: AsyncConnection,
    job_id: int,
    state: JobState,
    at: datetime,
    **values: Any,
) -> None:
    """State and whichever of attempts, lost, owner, lease_until, not_before, last_error are given.
    A job that no longer runs has no lease."""
    if state is not JobState.RUNNING:
        values = {"owner": None, "lease_until": None, **values}
    await connection.execute(
        update(jobs).where(jobs.c.id == job_id).values(state=state, updated_at=at, **values)
    )


async def renew(connection: AsyncConnection, job: Job, lease_until: datetime, at: datetime) -> bool:
    """False when the lease is no longer this worker's."""
    result = await connection.execute(
        update(jobs)
        .where(
            jobs.c.id == job.id,
            jobs.c.state == JobState.RUNNING,
            jobs.c.owner == job.owner,
            jobs.c.attempts == job.attempts,
            jobs.c.lost == job.lost,
        )
        .values(lease_until=lease_until, updated_at=at)
    )
    return result.rowcount == 1


async def page(
    connection: AsyncConnection, where: JobFilter, limit: int, before: int | None
) -> tuple[list[JobRecord], int]:
    """Up to `limit` jobs with an id below `before`, newest first; and the total."""
    wanted: list[ColumnElement[bool]] = [true()]
    if where.state is not None:
        wanted.append(jobs.c.state == where.state)
    if where.namespace is not None:
        wanted.append(jobs.c.namespace == where.namespace)
    if where.within is not None:
        wanted.append(jobs.c.namespace.in_(where.within))
    condition = and_(*wanted)
    total = await connection.scalar(select(func.count()).select_from(jobs).where(condition))
    statement = select(*_SHOWN).where(condition).order_by(jobs.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(jobs.c.id < before)
    return [_record(row) for row in await connection.execute(statement)], total or 0


async def record(connection: AsyncConnection, job_id: int) -> JobRecord | None:
    statement = select(*_SHOWN).where(jobs.c.id == job_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _record(row)


async def counts(
    connection: AsyncConnection, within: Collection[str] | None = None
) -> dict[str, int]:
    """State -> jobs, of these namespaces or of all."""
    statement = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    if within is not None:
        statement = statement.where(jobs.c.namespace.in_(sorted(within)))
    return {row[0]: row[1] for row in await connection.execute(statement)}


def _record(row: Row[Any]) -> JobRecord:
    return JobRecord(**{**row._mapping, "kind": JobKind(row.kind), "state": JobState(row.state)})


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        key=row.key,
        kind=JobKind(row.kind),
        episode_id=row.episode_id,
        namespace=row.namespace,
        state=JobState(row.state),
        attempts=row.attempts,
        lost=row.lost,
        payload=row.payload,
        owner=row.owner,
        last_error=row.last_error,
        created_at=row.created_at,
        updated_at=row.updated_at,
        key_id=row.key_id,
    )


# -- spend, in minutes since the epoch


def minute_of(moment: datetime) -> int:
    """Since the epoch."""
    return int(moment.timestamp()) // 60


async def add_spend(
    connection: AsyncConnection,
    namespace: str,
    minute: int,
    spend: Spend,
    oldest: int,
    *,
    answers_judged: int = 0,
    lesson_calls: int = 0,
) -> None:
    """Adds to the minute's row and drops this namespace's rows from before `oldest`.
    `lesson_calls`: those of `spend` that learned from feedback."""
    await connection.execute(
        insert_or_add(connection, learn_spend, "calls", "tokens", "answers_judged", "lesson_calls"),
        {
            "namespace": namespace,
            "minute": minute,
            "calls": spend.calls,
            "tokens": min(spend.tokens, MOST),
            "answers_judged": answers_judged,
            "lesson_calls": lesson_calls,
        },
    )
    await connection.execute(
        delete(learn_spend).where(
            learn_spend.c.namespace == namespace, learn_spend.c.minute < oldest
        )
    )


async def lessons_since(
    connection: AsyncConnection, namespace: str, minute: int
) -> tuple[int, int]:
    """(answers that feedback judged, calls of learning from it) from that minute on."""
    statement = select(
        func.coalesce(func.sum(learn_spend.c.answers_judged), 0),
        func.coalesce(func.sum(learn_spend.c.lesson_calls), 0),
    ).where(learn_spend.c.namespace == namespace, learn_spend.c.minute >= minute)
    row = (await connection.execute(statement)).one()
    return int(row[0]), int(row[1])


async def spend_since(connection: AsyncConnection, namespace: str, minute: int) -> Spend:
    """Of an hour and of the next one, which a clock that was put back may have begun already; what
    lies farther ahead must not stop learning until it has caught up."""
    statement = select(
        func.coalesce(func.sum(learn_spend.c.calls), 0),
        func.coalesce(func.sum(learn_spend.c.tokens), 0),
    ).where(
        learn_spend.c.namespace == namespace,
        learn_spend.c.minute.between(minute, minute + 2 * 60 - 1),
    )
    row = (await connection.execute(statement)).one()
    return Spend(calls=int(row[0]), tokens=int(row[1]))
