"""A database of an older version: looked at without a change, and brought to the schema when nobody
is left who needs the old one."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine

from rules_store.database import migrate
from rules_store.database.postgresql import schema_needed
from rules_store.errors import DatabaseMissing, OlderProcesses, SchemaOutdated
from rules_store.options import DEFAULT_OPTIONS
from rules_store.store import RuleStore
from tests import postgres

pytestmark = pytest.mark.sqlite
"""Each test names its database itself."""
OLDER = "0007"


def make_older(url: str) -> None:
    """An empty database as an earlier version made it."""
    engine = create_engine(url)
    with engine.begin() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    engine.dispose()


async def test_opening_as_it_is_makes_and_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with pytest.raises(DatabaseMissing, match=r"store\.db"):
        await RuleStore.open(url, embedding_model="m", upgrade=False)
    assert list(tmp_path.iterdir()) == []
    make_older(url)
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(SchemaOutdated, match=f"has schema {OLDER}"):
        await RuleStore.open(url, embedding_model="m", upgrade=False)
    assert (tmp_path / "store.db").read_bytes() == before
    await migrate.upgrade(url, DEFAULT_OPTIONS)
    store = await RuleStore.open(url, embedding_model="m", data_dir=tmp_path, upgrade=False)
    await store.namespaces.ensure("default")
    await store.close()
    assert not (tmp_path / "index").exists()


async def test_what_is_missing_is_told_in_its_order(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    make_older(url)
    found = await migrate.status(url, DEFAULT_OPTIONS)
    assert (found.revision, found.is_current) == (OLDER, False)
    revisions = [each.revision for each in found.pending]
    assert revisions == sorted(revisions)
    assert revisions[0] > OLDER
    assert revisions[-1] == found.head == schema_needed()
    assert all(each.summary.endswith(".") for each in found.pending)


async def test_processes_of_an_older_version_stop_an_upgrade(postgres_server: str) -> None:
    with postgres.database(postgres_server) as url:
        make_older(url.replace("postgresql:", "postgresql+psycopg:"))
        with (
            psycopg.connect(url, application_name="ttcl") as first_version,
            psycopg.connect(url, application_name=f"ttcl schema {OLDER}"),
            psycopg.connect(url, application_name=f"ttcl schema {schema_needed()}"),
            psycopg.connect(url, application_name="psql"),
        ):
            with pytest.raises(OlderProcesses) as raised:
                await migrate.upgrade(url, DEFAULT_OPTIONS)
            assert str(raised.value).count("process ") == 2
            assert f"process {first_version.info.backend_pid} " in str(raised.value)
            assert (await migrate.status(url, DEFAULT_OPTIONS)).revision == OLDER
            await migrate.upgrade(url, DEFAULT_OPTIONS, force=True)
        assert (await migrate.status(url, DEFAULT_OPTIONS)).is_current
