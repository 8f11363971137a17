"""What several of these tests stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Of an empty PostgreSQL database; None: the service makes an SQLite file of its own."""
    if request.param == "sqlite":
        yield None
        return
    with postgres.database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
def stored(database_url: str | None) -> dict[str, str]:
    """The same as settings of a service."""
    return {} if database_url is None else {"database_url": database_url}
