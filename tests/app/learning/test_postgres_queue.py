"""In which order the queue of PostgreSQL hands jobs out."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.learning.postgres_queue import LearningQueue
from rules_store.database import migrate
from rules_store.options import StoreOptions
from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import DIMENSION, MODEL, new_job


@pytest.mark.sqlite
async def test_keys_take_turns_and_namespaces_those_of_their_key(
    postgres_server: str, tmp_path: Path
) -> None:
    with postgres.database(postgres_server) as url:
        await migrate.upgrade(url, StoreOptions())
        queue = LearningQueue(url, lease=5.0)
        await queue.prepare()
        store = await RuleStore.open(
            url, embedding_model=MODEL, dimension=DIMENSION, data_dir=tmp_path
        )
        try:
            store.jobs.hand_out_to(queue.put)
            for number in range(3):
                await store.namespaces.ensure(f"name-{number}")
                await new_job(store, f"flood-{number}", f"name-{number}", "flood")
            for number in range(2):
                await new_job(store, f"quiet-{number}", "name-0", "quiet")
        finally:
            await store.close()
        order = "SELECT queueing_lock FROM procrastinate_jobs ORDER BY priority DESC, id"
        told = [lock.removeprefix("learn:") for (lock,) in postgres.query(url, order)]
    assert told == ["flood-0", "quiet-0", "flood-1", "quiet-1", "flood-2"]
