"""API keys in the store: secrets are not kept, changes are events, other processes hear of them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rules_store.errors import InvalidCursor, InvalidTransition, UnknownKey
from rules_store.models.events import Change
from rules_store.models.keys import ApiKey, DailyKeyUsage, KeyUsage, NewKey, Permission
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, open_store, sql

CHAT, LEARN = Permission.CHAT, Permission.LEARN
WHO = Change("tester", "test")


async def make(store: RuleStore, *namespaces: str, **more: Any) -> tuple[ApiKey, str]:
    given = {"name": "a key", "permissions": (CHAT, LEARN), **more}
    return await store.keys.create(
        NewKey(namespaces=namespaces or ("default",), **given), change=WHO
    )


def events_of_keys(folder: Path) -> list[tuple[Any, ...]]:
    return sql(
        folder,
        "SELECT kind, namespace, actor, reason, before, after FROM events"
        " WHERE kind LIKE 'key.%' ORDER BY id",
    )


async def test_a_secret_is_long_random_and_found_without_sql(
    store: RuleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = await make(store)
    other, another = await make(store)
    assert secret.startswith("ttcl_")
    assert len(secret) >= 5 + 43
    assert secret != another
    assert key.id != other.id
    monkeypatch.setattr(store.context.database, "read", None)
    assert store.keys.find(secret) == key
    assert store.keys.find(another) == other
    for wrong in ("", "ttcl_", secret[:-1], f"{secret}x", secret.upper(), key.id, "\ud800"):
        assert store.keys.find(wrong) is None


async def test_neither_secret_nor_hash_can_be_read_again(store: RuleStore, tmp_path: Path) -> None:
    key, secret = await make(store)
    await store.keys.patch(key.id, {"name": "other"}, change=WHO)
    await store.keys.revoke(key.id, change=WHO)
    (digest,) = sql(tmp_path, "SELECT hash FROM api_keys")[0]
    everything = repr(sql(tmp_path, "SELECT * FROM events")) + repr(await store.keys.list())
    assert digest not in everything
    assert key.shown in everything
    assert secret[:20] not in everything
    assert secret.startswith(key.shown)
    assert len(key.shown) <= 12
    assert secret not in repr(sql(tmp_path, "SELECT * FROM api_keys"))


async def test_each_change_is_an_event_with_before_and_after(
    store: RuleStore, tmp_path: Path
) -> None:
    one, _ = await make(store, "a")
    await make(store, "*")
    await make(store, "a", "b")
    await store.keys.patch(one.id, {"permissions": (CHAT,), "tokens_per_day": 5}, change=WHO)
    await store.keys.revoke(one.id, change=WHO)
    rows = events_of_keys(tmp_path)
    kinds = ["key.created"] * 3 + ["key.patched", "key.revoked"]
    # Of no namespace: its readers must not learn from it of others that the key opens.
    assert [row[:4] for row in rows] == [(kind, "*", "tester", "test") for kind in kinds]
    before, after = json.loads(rows[3][4]), json.loads(rows[3][5])
    assert before["permissions"] == ["chat", "learn"]
    assert before["tokens_per_day"] is None
    assert after["permissions"] == ["chat"]
    assert after["tokens_per_day"] == 5
    assert json.loads(rows[4][5])["revoked"] is True


async def test_a_key_makes_no_namespace(store: RuleStore) -> None:
    await make(store, "nobody-was-here")
    assert not await store.namespaces.exists("nobody-was-here")
    await store.namespaces.ensure("nobody-was-here")
    assert await store.namespaces.exists("nobody-was-here")


async def test_pages_go_through_all_keys_once_newest_first(store: RuleStore) -> None:
    made = [(await make(store, name=f"key {number}"))[0].id for number in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await store.keys.list(limit=3, cursor=cursor)
        assert page.total == 7
        seen += [key.id for key in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made[::-1]
    with pytest.raises(InvalidCursor):
        await store.keys.list(cursor="nonsense")


async def test_what_is_patched_changes_and_the_rest_stays(store: RuleStore) -> None:
    key, secret = await make(store, "a", requests_per_minute=5, tokens_per_day=6)
    await store.keys.patch(key.id, {"namespaces": ("b", "c"), "tokens_per_day": None}, change=WHO)
    changed = await store.keys.get(key.id)
    assert changed == store.keys.find(secret)
    assert changed.namespaces == ("b", "c")
    assert changed.tokens_per_day is None
    assert (changed.name, changed.requests_per_minute) == ("a key", 5)
    assert changed.permissions == (CHAT, LEARN)


@pytest.mark.parametrize(
    ("namespaces_given", "permissions"),
    [((), (CHAT,)), (("a",), ()), (("*", "a"), (CHAT,))],
)
async def test_a_key_that_could_do_nothing_is_none(
    store: RuleStore, tmp_path: Path, namespaces_given: tuple[str, ...], permissions: Any
) -> None:
    with pytest.raises(ValueError, match="namespace"):
        await store.keys.create(NewKey("k", namespaces_given, permissions), change=WHO)
    key, _ = await make(store)
    with pytest.raises(ValueError, match="namespace"):
        await store.keys.patch(
            key.id, {"namespaces": namespaces_given, "permissions": permissions}, change=WHO
        )
    assert len(events_of_keys(tmp_path)) == 1


async def test_revoked_is_for_good(store: RuleStore, clock: Clock) -> None:
    key, secret = await make(store)
    revoked = await store.keys.revoke(key.id, change=WHO)
    assert revoked.revoked_at == clock.now
    assert store.keys.find(secret) is None
    assert store.keys.exist, "to revoke the last key must not open the service"
    with pytest.raises(InvalidTransition):
        await store.keys.revoke(key.id, change=WHO)
    with pytest.raises(InvalidTransition):
        await store.keys.patch(key.id, {"name": "again"}, change=WHO)


async def test_a_key_ends_at_its_time_and_can_be_given_more(store: RuleStore, clock: Clock) -> None:
    end = clock.now + timedelta(hours=1)
    key, secret = await make(store, expires_at=end)
    assert store.keys.find(secret) == key
    assert store.keys.expired_at(secret) is None
    clock.forward(3600)
    assert store.keys.find(secret) is None
    assert store.keys.expired_at(secret) == end
    assert store.keys.expired_at("ttcl_another") is None
    assert store.keys.exist, "a key that has expired must not open the service"
    assert store.context.caches.live_keys() == []
    await store.keys.patch(key.id, {"expires_at": end + timedelta(hours=1)}, change=WHO)
    assert store.keys.find(secret) is not None
    await store.keys.patch(key.id, {"expires_at": None}, change=WHO)
    clock.forward(10**9)
    assert store.keys.find(secret) is not None


async def test_a_rotated_key_has_two_secrets_for_a_while(
    store: RuleStore, clock: Clock, tmp_path: Path
) -> None:
    key, first = await make(store)
    other = await open_store(tmp_path, clock=clock)
    rotated, second = await store.keys.rotate(key.id, overlap=timedelta(hours=1), change=WHO)
    await other.catch_up()
    for process in (store, other):
        assert process.keys.find(first) == process.keys.find(second) == rotated
        assert (rotated.id, rotated.name) == (key.id, key.name)
        assert process.keys.count == len(process.context.caches.live_keys()) == 1
        assert not process.keys.is_rotated_away(first)
    await other.close()
    _, third = await store.keys.rotate(key.id, overlap=timedelta(0), change=WHO)
    assert store.keys.find(second) is None
    clock.forward(3600)
    assert store.keys.find(first) is None
    assert store.keys.is_rotated_away(first)
    assert store.keys.expired_at(first) == clock.now
    assert store.keys.find(third) is not None
    await store.keys.revoke(key.id, change=WHO)
    assert store.keys.find(third) is None
    with pytest.raises(InvalidTransition):
        await store.keys.rotate(key.id, overlap=timedelta(0), change=WHO)
    assert second[:20] not in repr(sql(tmp_path, "SELECT * FROM events"))


async def test_the_admin_key_is_rotated_into_the_store(store: RuleStore, clock: Clock) -> None:
    hour = timedelta(hours=1)
    key, second = await store.keys.rotate_admin("started-with", overlap=hour, change=WHO)
    assert key.id == "admin"
    assert store.keys.find(second) == key
    assert not store.keys.is_rotated_away("started-with")
    # It is nobody's key in particular: it neither closes the service nor counts as a voice.
    assert not store.keys.exist
    assert store.context.caches.live_keys() == []
    clock.forward(3600)
    assert store.keys.is_rotated_away("started-with")
    _, third = await store.keys.rotate_admin("started-with", overlap=timedelta(0), change=WHO)
    assert store.keys.is_rotated_away("started-with")
    assert store.keys.find(second) is None
    # A gateway that is started with the new one rotates as well.
    _, fourth = await store.keys.rotate_admin(third, overlap=timedelta(0), change=WHO)
    assert store.keys.find(third) is None
    assert store.keys.find(fourth) is not None
    for refused in (
        store.keys.revoke("admin", change=WHO),
        store.keys.patch("admin", {"permissions": (CHAT,)}, change=WHO),
    ):
        with pytest.raises(InvalidTransition):
            await refused


async def test_an_unknown_key_is_said_to_be_unknown(store: RuleStore) -> None:
    with pytest.raises(UnknownKey, match="key_none"):
        await store.keys.get("key_none")
    with pytest.raises(UnknownKey):
        await store.keys.revoke("key_none", change=WHO)
    with pytest.raises(UnknownKey):
        await store.keys.patch("key_none", {"name": "x"}, change=WHO)


async def test_another_process_hears_of_it_by_events(store: RuleStore, tmp_path: Path) -> None:
    other = await open_store(tmp_path)
    try:
        assert not other.keys.exist
        key, secret = await make(store)
        assert other.keys.find(secret) is None
        await other.catch_up()
        assert other.keys.find(secret) == key
        await store.keys.revoke(key.id, change=WHO)
        await other.catch_up()
        assert other.keys.find(secret) is None
    finally:
        await other.close()


async def test_a_restart_knows_its_keys_with_a_snapshot_and_without(tmp_path: Path) -> None:
    first = await open_store(tmp_path)
    key, secret = await make(first)
    await first.close()
    for _ in range(2):
        again = await open_store(tmp_path)
        assert again.keys.find(secret) == key
        await again.rebuild()
        assert again.keys.find(secret) == key
        await again.close()
        for snapshot in (tmp_path / "index").glob("*"):
            snapshot.unlink()


async def test_use_adds_up_by_day_and_the_last_use_never_goes_back(
    store: RuleStore, clock: Clock
) -> None:
    key, _ = await make(store)
    late, early = clock.now, clock.now.replace(hour=1)
    await store.keys.add_use([KeyUsage(key.id, 7, 2, 30, late), KeyUsage(key.id, 8, 1, 0, late)])
    await store.keys.add_use([KeyUsage(key.id, 7, 1, 12, early)])
    assert await store.keys.spend(7) == {key.id: DailyKeyUsage(3, 42)}
    assert await store.keys.spend(8) == {key.id: DailyKeyUsage(1, 0)}
    assert await store.keys.spend(9) == {}
    assert (await store.keys.get(key.id)).last_used_at == late
