"""A process that learns from the jobs of a store, for tests that run several or kill one."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import event

from rules_store.errors import LeaseLost
from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import draft, open_store, random_vector

LEASE = 0.3
NAMESPACES = 3
WORDINGS = 4  # every job of a namespace learns one of these, so that most of them merge


def namespace_of(episode: int) -> str:
    return f"space_{episode % NAMESPACES}"


async def learn_all(store: RuleStore, name: str, crash_at: int) -> None:
    idle = 0
    while idle < 4:
        # As a process that has just started does, one that is to die leaves lost jobs to others.
        job = await store.jobs.claim(name, suspects=not crash_at)
        if job is None:
            idle += 1
            await asyncio.sleep(LEASE / 2)
            continue
        idle = 0
        number = job.payload["number"] // NAMESPACES % WORDINGS
        new = draft(f"wording {number}", random_vector(number), namespace=job.namespace)
        if crash_at:
            _crash_after(store, crash_at)
        try:
            await store.jobs.apply(job, [new])
        except LeaseLost:
            continue  # on a busy machine the lease is short: another process has taken it over


def _crash_after(store: RuleStore, statements: int) -> None:
    left = statements

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(store.context.database._writes.sync_engine, "before_cursor_execute", count)


def run(folder: Path, name: str, crash_at: int = 0, server: str | None = None) -> None:
    """Ends when no job is left, or by SIGKILL at the n-th statement inside `JobOperations.apply`.
    `server`: of the PostgreSQL that the test runs on."""
    if server is not None:
        os.environ[postgres.VARIABLE] = server
    asyncio.run(_main(folder, name, crash_at))


async def _main(folder: Path, name: str, crash_at: int) -> None:
    store = await open_store(folder, lease=LEASE, max_attempts=100)
    await learn_all(store, name, crash_at)
    assert (await store.parity()).ok
    await store.close()
