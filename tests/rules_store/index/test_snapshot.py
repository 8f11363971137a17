"""The snapshot saves a rebuild and is never an error."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rules_store.index.caches import Caches
from rules_store.models.events import Change
from rules_store.models.rules import RuleState
from tests.rules_store.helpers import POSITIVE, axis, open_store, sql, write


def file(folder: Path) -> Path:
    return folder / "index" / "rules.index"


async def filled(folder: Path) -> None:
    store = await open_store(folder)
    await store.namespaces.ensure("default")
    await write(store, "first", axis(0), trigger="t", trigger_vector=axis(1))
    await write(store, "waiting", axis(2), state=RuleState.CANDIDATE)
    await store.close()


@pytest.fixture
def rebuilds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that an index is built from SQL."""
    seen: list[str] = []
    rebuild = Caches.rebuild

    async def counted(self: Caches) -> None:
        seen.append("rebuilt")
        await rebuild(self)

    monkeypatch.setattr(Caches, "rebuild", counted)
    return seen


async def check(folder: Path) -> None:
    store = await open_store(folder)
    hits = store.search("default", axis(1), POSITIVE, 5).hits
    assert [candidate.text for candidate in hits] == ["first"]
    assert (await store.parity()).ok
    # The index that was loaded can be changed.
    await write(store, "later", axis(3))
    assert len(store.search("default", axis(3), POSITIVE, 5).hits) == 2
    assert (await store.parity()).ok
    await store.close()


async def test_a_good_snapshot_is_used(tmp_path: Path, rebuilds: list[str]) -> None:
    await filled(tmp_path)
    rebuilds.clear()
    await check(tmp_path)
    assert rebuilds == []
    assert list(file(tmp_path).parent.iterdir()) == [file(tmp_path)]


async def test_it_is_written_only_when_something_changed(tmp_path: Path) -> None:
    await filled(tmp_path)
    before = file(tmp_path).stat().st_ino
    await (await open_store(tmp_path)).close()
    assert file(tmp_path).stat().st_ino == before


async def test_events_after_the_snapshot_are_caught_up(tmp_path: Path, rebuilds: list[str]) -> None:
    await filled(tmp_path)
    old = file(tmp_path).read_bytes()
    store = await open_store(tmp_path)
    (first,) = [r for r in (await store.rules.list()).items if r.text == "first"]
    await store.rules.retire(first.id, change=Change("me", "no"))
    await write(store, "newer", axis(4))
    await store.close()
    file(tmp_path).write_bytes(old)
    rebuilds.clear()
    store = await open_store(tmp_path)
    assert rebuilds == []
    hits = store.search("default", axis(4), POSITIVE, 5).hits
    assert [candidate.text for candidate in hits] == ["newer"]
    assert (await store.parity()).ok
    await store.close()


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign_bytes(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_flipped, _cut, _empty, _foreign_bytes, _a_folder])
async def test_a_damaged_file_is_rebuilt(
    tmp_path: Path,
    rebuilds: list[str],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    await filled(tmp_path)
    damage(file(tmp_path))
    rebuilds.clear()
    with caplog.at_level(logging.WARNING):
        await check(tmp_path)
    assert rebuilds == ["rebuilt"]
    assert "rebuilding from SQL" in caplog.text


async def test_one_of_another_database_is_ignored(tmp_path: Path, rebuilds: list[str]) -> None:
    for name in ("one", "two"):
        await filled(tmp_path / name)
    store = await open_store(tmp_path / "two")
    await write(store, "only here", axis(7))
    await store.close()
    file(tmp_path / "one").write_bytes(file(tmp_path / "two").read_bytes())
    rebuilds.clear()
    store = await open_store(tmp_path / "one")
    assert rebuilds == ["rebuilt"]
    assert len(store.search("default", axis(7), POSITIVE, 5).hits) == 1
    await store.close()


async def test_one_of_another_model_is_ignored(tmp_path: Path, rebuilds: list[str]) -> None:
    await filled(tmp_path)
    rebuilds.clear()
    store = await open_store(tmp_path, model="another")
    assert rebuilds == ["rebuilt"]
    assert store.search("default", axis(0), POSITIVE, 5).hits == ()
    await store.close()


@pytest.mark.sqlite
async def test_one_that_is_ahead_of_a_restored_database_is_ignored(
    tmp_path: Path, rebuilds: list[str]
) -> None:
    await filled(tmp_path)
    backup = (tmp_path / "store.db").read_bytes()
    store = await open_store(tmp_path)
    await write(store, "lost with the disk", axis(8))
    await store.close()
    for name in ("store.db-wal", "store.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "store.db").write_bytes(backup)
    # The restored database lives on, and its event numbers pass those of the snapshot.
    ahead = file(tmp_path).read_bytes()
    store = await open_store(tmp_path)
    await write(store, "another life", axis(9))
    await write(store, "and more", axis(10))
    await store.close()
    file(tmp_path).write_bytes(ahead)
    rebuilds.clear()
    store = await open_store(tmp_path)
    assert rebuilds == ["rebuilt"]
    texts = {c.text for c in store.search("default", axis(8), POSITIVE, 9).hits}
    assert texts == {"first", "another life", "and more"}
    await store.close()


async def test_a_folder_that_can_not_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_store(tmp_path)
    await store.namespaces.ensure("default")
    await write(store, "first", axis(0))
    (tmp_path / "index").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        await store.close()
    assert "snapshot not written" in caplog.text
    assert sql(tmp_path, "SELECT count(*) FROM rules") == [(1,)]
    with caplog.at_level(logging.WARNING):
        store = await open_store(tmp_path)
    assert len(store.search("default", axis(0), POSITIVE, 5).hits) == 1
    await store.close()
