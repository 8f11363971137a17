"""API keys: made, listed, changed, revoked; and looked up without SQL.

Every process keeps all keys in memory, by the hash of their secrets. Each change is an event, so
a process learns of the others' changes as it learns of their rules: when it catches up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import InvalidTransition, UnknownKey
from rules_store.models import paging
from rules_store.models.events import Change
from rules_store.models.keys import (
    ADMIN,
    ALL,
    ANYONE,
    ApiKey,
    DailyKeyUsage,
    KeyChanges,
    KeyUsage,
    NewKey,
    Withdrawal,
)
from rules_store.models.paging import Page
from rules_store.operations.context import StoreContext
from rules_store.operations.withdrawal import withdraw
from rules_store.repository import events, keys

PREFIX = "ttcl_"
_SECRET_BYTES = 32
_OUTSIDE = re.compile(rf"{ADMIN}|{ANYONE}|environment-[1-9][0-9]{{0,5}}")
"""Who is no key of the store: see `app.access.callers`."""
_SHOWN = len(PREFIX) + 6


class KeyOperations:
    """`store.keys`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    # -- without SQL

    def find(self, secret: str) -> ApiKey | None:
        """The live key of this secret; no I/O. None for an unknown and for a revoked one."""
        digest = _digest(secret)
        found = self._context.caches.keys.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1] if found[1].revoked_at is None else None

    def live(self, key_id: str) -> ApiKey | None:
        """The live key of this id; no I/O. None for an unknown and for a revoked one."""
        found = (key for _, key in self._context.caches.keys.values() if key.id == key_id)
        return next((key for key in found if key.revoked_at is None), None)

    @property
    def exist(self) -> bool:
        """Whether there is any key. A revoked one counts: to revoke the last key must not open
        the service to everybody."""
        return bool(self._context.caches.keys)

    @property
    def ids(self) -> set[str]:
        """Of all keys, revoked ones too; no I/O."""
        return {key.id for _, key in self._context.caches.keys.values()}

    @property
    def count(self) -> int:
        """Keys that there are, revoked ones too; no I/O."""
        return len(self._context.caches.keys)

    # -- reading

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page:
        """Keys, newest first, revoked ones too. Raises InvalidCursor."""
        before = paging.decode("keys", cursor)
        async with self._context.database.read() as connection:
            found, total = await keys.page(connection, limit + 1, before)
        return paging.page("keys", found, total, limit)

    async def get(self, key_id: str) -> ApiKey:
        """Raises UnknownKey."""
        async with self._context.database.read() as connection:
            return await _find(connection, key_id)

    async def spend(self, day: int) -> dict[str, DailyKeyUsage]:
        """Key id -> what it used on that UTC day (since the epoch)."""
        async with self._context.database.read() as connection:
            return await keys.spend_of_day(connection, day)

    # -- changing

    async def create(self, new: NewKey, *, change: Change) -> tuple[ApiKey, str]:
        """The key and its secret, which is kept nowhere and can't be read again.

        Raises ValueError without a namespace or permission.
        """
        _check(new.namespaces, new.permissions)
        key_id = f"key_{secrets.token_hex(12)}"
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        now = self._context.clock()

        async def create(connection: AsyncConnection) -> ApiKey:
            await self._context.database.order_events(connection)
            await keys.insert_key(connection, key_id, new, secret[:_SHOWN], _digest(secret), now)
            key = await _find(connection, key_id)
            await self._note(connection, "key.created", None, key, change)
            return key

        key = await self._context.database.transact(create)
        await self._context.take_up()
        return key, secret

    async def patch(self, key_id: str, changes: KeyChanges, *, change: Change) -> ApiKey:
        """Raises UnknownKey; InvalidTransition for a revoked key; ValueError without a namespace
        or permission."""

        async def patch(connection: AsyncConnection) -> ApiKey:
            await self._context.database.order_events(connection)
            before = await _live(connection, key_id)
            after = replace(before, **changes)
            _check(after.namespaces, after.permissions)
            await keys.update_key(connection, after)
            await self._note(connection, "key.patched", before, after, change)
            return after

        key = await self._context.database.transact(patch)
        await self._context.take_up()
        return key

    async def revoke(self, key_id: str, *, change: Change) -> ApiKey:
        """For good. Raises UnknownKey; InvalidTransition for a revoked key."""
        now = self._context.clock()

        async def revoke(connection: AsyncConnection) -> ApiKey:
            await self._context.database.order_events(connection)
            before = await _live(connection, key_id)
            after = replace(before, revoked_at=now)
            await keys.update_key(connection, after)
            await self._note(connection, "key.revoked", before, after, change)
            return after

        key = await self._context.database.transact(revoke)
        await self._context.take_up()
        return key

    async def withdraw(self, key_id: str, *, change: Change) -> Withdrawal:
        """Takes back all that was said with this key (feedback, votes, outcomes, trials on its
        labels, exposures of its requests, what it taught) and judges anew what stood on it, in
        many small transactions (`rules_store.operations.withdrawal`). Done again it goes on where
        it ended. The key stays as it is: revoke it first where it must not go on. `key_id` may
        also be a key of the environment's. Raises UnknownKey."""
        if not _OUTSIDE.fullmatch(key_id):
            await self.get(key_id)
        return await withdraw(self._context, key_id, change)

    async def add_use(self, uses: Sequence[KeyUsage]) -> None:
        """Adds up what keys have used, and when they were last used: one transaction for all."""

        async def add(connection: AsyncConnection) -> None:
            await keys.add_use(connection, uses)

        await self._context.database.transact(add)

    async def _note(
        self,
        connection: AsyncConnection,
        kind: str,
        before: ApiKey | None,
        after: ApiKey,
        change: Change,
    ) -> None:
        await events.append(
            connection,
            self._context.clock(),
            # Never into a namespace: whoever may read that one's events would read there of other
            # namespaces that the key opens, or once opened.
            ALL,
            kind,
            change,
            before=None if before is None else _described(before),
            after=_described(after),
        )


def _digest(secret: str) -> str:
    # The secret has 256 random bits, so it needs no slow hash.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _check(namespaces: Sequence[str], permissions: Sequence[str]) -> None:
    if not namespaces or not permissions:
        raise ValueError("a key needs a namespace and a permission")
    if ALL in namespaces and len(namespaces) > 1:
        raise ValueError(f"'{ALL}' stands for every namespace, and alone")


async def _find(connection: AsyncConnection, key_id: str) -> ApiKey:
    key = await keys.find(connection, key_id)
    if key is None:
        raise UnknownKey(key_id)
    return key


async def _live(connection: AsyncConnection, key_id: str) -> ApiKey:
    key = await _find(connection, key_id)
    if key.revoked_at is not None:
        raise InvalidTransition(f"Key {key_id!r} is revoked.")
    return key


def _described(key: ApiKey) -> dict[str, Any]:
    """The key as an event keeps it."""
    return {
        "id": key.id,
        "name": key.name,
        "shown": key.shown,
        "namespaces": list(key.namespaces),
        "permissions": [permission.value for permission in key.permissions],
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_day": key.tokens_per_day,
        "revoked": key.revoked_at is not None,
    }
