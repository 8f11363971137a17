"""API keys: made, listed, changed, rotated, revoked; and looked up without SQL.

Every process keeps all keys in memory, by the hash of their secrets. Each change is an event, so
a process learns of the others' changes as it learns of their rules: when it catches up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
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
    Permission,
    Secret,
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
        """The live key of this secret; no I/O. None for one that is unknown, revoked, expired or
        rotated away."""
        found, now = self._known(secret), self._context.clock()
        if found is None or not found.key.live(now) or _is_over(found, now):
            return None
        return found.key

    def expired_at(self, secret: str) -> datetime | None:
        """When the key of this secret, or the secret itself, expired; None for any other one; no
        I/O."""
        found, now = self._known(secret), self._context.clock()
        if found is None or found.key.revoked_at is not None:
            return None
        ends = [end for end in (found.key.expires_at, found.valid_until) if end is not None]
        return min(ends) if ends and min(ends) <= now else None

    def is_rotated_away(self, secret: str) -> bool:
        """Whether another secret is valid in place of this one by now; no I/O."""
        return self.is_over(_digest(secret))

    def _known(self, secret: str) -> Secret | None:
        digest = _digest(secret)
        found = self._context.caches.secrets.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        return found

    def held_by(self, key_id: str, fits: Callable[[bytes], bool]) -> ApiKey | None:
        """The live key of this id of which `fits` knows a valid secret by its SHA-256; no I/O."""
        now = self._context.clock()
        for each in self._context.caches.secrets.values():
            if each.key.id == key_id and fits(bytes.fromhex(each.digest)):
                return each.key if each.key.live(now) and not _is_over(each, now) else None
        return None

    def is_over(self, digest: str) -> bool:
        """Whether another secret is valid in place of the one with this SHA-256 by now; no I/O."""
        found = self._context.caches.secrets.get(digest)
        return found is not None and _is_over(found, self._context.clock())

    @property
    def exist(self) -> bool:
        """Whether there is any key beside the admin key. A revoked one counts: to revoke the last
        key must not open the service to everybody."""
        return self.count > 0

    @property
    def ids(self) -> set[str]:
        """Of all keys, revoked ones too; no I/O."""
        return {key.id for key in self._context.caches.all_keys()}

    @property
    def count(self) -> int:
        """Keys that there are, revoked ones too, without the admin key; no I/O."""
        return len(self._context.caches.all_keys())

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
        """Raises UnknownKey; InvalidTransition for a revoked key and for the admin key; ValueError
        without a namespace or permission."""

        async def patch(connection: AsyncConnection) -> ApiKey:
            await self._context.database.order_events(connection)
            before = await _changeable(connection, key_id)
            after = replace(before, **changes)
            _check(after.namespaces, after.permissions)
            await keys.update_key(connection, after)
            await self._note(connection, "key.patched", before, after, change)
            return after

        key = await self._context.database.transact(patch)
        await self._context.take_up()
        return key

    async def rotate(
        self, key_id: str, *, overlap: timedelta, change: Change
    ) -> tuple[ApiKey, str]:
        """Gives the key a new secret, which is kept nowhere and can't be read again; the present
        one is valid for the `overlap` still. All else of the key stays.

        Raises UnknownKey; InvalidTransition for a revoked key.
        """

        async def live(connection: AsyncConnection) -> None:
            await _live(connection, key_id)

        return await self._rotate(key_id, overlap, change, live)

    async def rotate_admin(
        self, present: str, *, overlap: timedelta, change: Change
    ) -> tuple[ApiKey, str]:
        """As `rotate`, of the admin key, which this makes a key of the store. `present`: the secret
        that the gateway was started with; it stays known for old, whoever is started with it."""

        async def made(connection: AsyncConnection) -> None:
            now = self._context.clock()
            if await keys.find(connection, ADMIN) is None:
                new = NewKey(ADMIN, (ALL,), tuple(Permission))
                await keys.insert_key(connection, ADMIN, new, "", _digest(present), now)
            await keys.put_old_secret(connection, ADMIN, _digest(present), now + overlap)

        return await self._rotate(ADMIN, overlap, change, made)

    async def _rotate(
        self,
        key_id: str,
        overlap: timedelta,
        change: Change,
        prepare: Callable[[AsyncConnection], Coroutine[Any, Any, None]],
    ) -> tuple[ApiKey, str]:
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        until = self._context.clock() + overlap

        async def rotate(connection: AsyncConnection) -> ApiKey:
            await self._context.database.order_events(connection)
            await prepare(connection)
            before = await _find(connection, key_id)
            shown = secret[:_SHOWN]
            old = await keys.put_secret(connection, key_id, shown, _digest(secret))
            await keys.put_old_secret(connection, key_id, old, until)
            after = replace(before, shown=shown)
            await self._note(connection, "key.rotated", before, after, change)
            return after

        key = await self._context.database.transact(rotate)
        await self._context.take_up()
        return key, secret

    async def revoke(self, key_id: str, *, change: Change) -> ApiKey:
        """For good. Raises UnknownKey; InvalidTransition for a revoked key and for the admin
        key."""
        now = self._context.clock()

        async def revoke(connection: AsyncConnection) -> ApiKey:
            await self._context.database.order_events(connection)
            before = await _changeable(connection, key_id)
            after = replace(before, revoked_at=now)
            await keys.update_key(connection, after)
            await self._note(connection, "key.revoked", before, after, change)
            return after

        key = await self._context.database.transact(revoke)
        await self._context.take_up()
        return key

    async def withdraw(self, key_id: str, *, change: Change) -> Withdrawal:
        """Takes back all that was said with this key (feedback, votes, outcomes, trials on its
        questions and labels, exposures of its requests, what it taught) and judges anew what stood
        on it, in many small transactions (`rules_store.operations.withdrawal`). Done again it goes
        on where it ended. The key stays as it is: revoke it first where it must not go on. `key_id`
        may also be a key of the environment's. Raises UnknownKey."""
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


def _is_over(secret: Secret, now: datetime) -> bool:
    return secret.valid_until is not None and secret.valid_until <= now


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


async def _changeable(connection: AsyncConnection, key_id: str) -> ApiKey:
    if key_id == ADMIN:
        raise InvalidTransition("The admin key may do everything, for good: rotate it instead.")
    return await _live(connection, key_id)


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
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "revoked": key.revoked_at is not None,
    }
