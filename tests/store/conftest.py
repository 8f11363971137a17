"""A real SQLite store in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rules_store.store import RuleStore
from tests.store.helpers import Clock, open_store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[RuleStore]:
    opened = await open_store(tmp_path, clock=clock)
    await opened.ensure_namespace("default")
    yield opened
    await opened.close()
