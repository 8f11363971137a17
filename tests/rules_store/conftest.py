"""A real store in a temporary folder: every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rules_store.store import RuleStore
from tests import postgres
from tests.rules_store.helpers import Clock, open_store


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    alone = metafunc.definition.get_closest_marker("sqlite")
    kinds = ["sqlite"] if alone else ["sqlite", "postgresql"]
    metafunc.parametrize("database_kind", kinds, indirect=True)


@pytest.fixture(autouse=True)
def database_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where `open_store` keeps what it stores."""
    if request.param == "sqlite":
        yield
        return
    # Not the test's own monkeypatch, which is undone before the store is closed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(postgres.VARIABLE, request.getfixturevalue("postgres_server"))
        yield
        postgres.drop_all()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[RuleStore]:
    opened = await open_store(tmp_path, clock=clock)
    await opened.namespaces.ensure("default")
    yield opened
    await opened.close()
