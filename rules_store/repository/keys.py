"""API keys and what they have used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import MOST, insert_or_add
from rules_store.database.json_codec import storable
from rules_store.database.schema import api_keys, key_spend, old_secrets
from rules_store.models.keys import (
    ApiKey,
    DailyKeyUsage,
    KeyUsage,
    NewKey,
    Permission,
    Secret,
)

_USED = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("used"),
        # Another gateway may have seen it later.
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("at")),
    )
    .values(last_used_at=bindparam("at"))
)


async def insert_key(
    connection: AsyncConnection, key_id: str, new: NewKey, shown: str, digest: str, at: datetime
) -> None:
    await connection.execute(
        insert(api_keys).values(
            id=key_id,
            name=storable(new.name),
            shown=shown,
            hash=digest,
            namespaces=list(new.namespaces),
            permissions=[permission.value for permission in new.permissions],
            requests_per_minute=new.requests_per_minute,
            tokens_per_day=new.tokens_per_day,
            expires_at=new.expires_at,
            created_at=at,
        )
    )


async def update_key(connection: AsyncConnection, key: ApiKey) -> None:
    """Writes what an operator can change of a key."""
    await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key.id)
        .values(
            name=storable(key.name),
            namespaces=list(key.namespaces),
            permissions=[permission.value for permission in key.permissions],
            requests_per_minute=key.requests_per_minute,
            tokens_per_day=key.tokens_per_day,
            revoked_at=key.revoked_at,
            expires_at=key.expires_at,
        )
    )


async def put_secret(connection: AsyncConnection, key_id: str, shown: str, digest: str) -> str:
    """Gives the key, which is there, another secret; the digest of the one that it had."""
    own = api_keys.c.id == key_id
    before = await connection.scalar(select(api_keys.c.hash).where(own))
    await connection.execute(update(api_keys).where(own).values(shown=shown, hash=digest))
    return str(before)


async def put_old_secret(
    connection: AsyncConnection, key_id: str, digest: str, valid_until: datetime
) -> None:
    """Where it is known for old already, that stays as it was."""
    known = select(old_secrets.c.hash).where(old_secrets.c.hash == digest)
    if await connection.scalar(known) is None:
        values = {"hash": digest, "key_id": key_id, "valid_until": valid_until}
        await connection.execute(insert(old_secrets).values(values))


async def by_hash(connection: AsyncConnection) -> dict[str, Secret]:
    """By their SHA-256, the secrets of all keys, revoked ones too, and their old secrets."""
    keys, found = {}, {}
    for row in await connection.execute(select(api_keys)):
        keys[row.id] = _key(row)
        found[row.hash] = Secret(row.hash, keys[row.id])
    for row in await connection.execute(select(old_secrets)):
        if row.key_id in keys:
            found.setdefault(row.hash, Secret(row.hash, keys[row.key_id], row.valid_until))
    return found


async def find(connection: AsyncConnection, key_id: str) -> ApiKey | None:
    row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).one_or_none()
    return None if row is None else _key(row)


async def page(
    connection: AsyncConnection, limit: int, before: int | None
) -> tuple[list[tuple[int, ApiKey]], int]:
    """Up to `limit` keys with a sequence number below `before`, newest first; and the total."""
    total = await connection.scalar(select(func.count()).select_from(api_keys))
    statement = select(api_keys).order_by(api_keys.c.seq.desc()).limit(limit)
    if before is not None:
        statement = statement.where(api_keys.c.seq < before)
    rows = await connection.execute(statement)
    return [(row.seq, _key(row)) for row in rows], total or 0


async def add_use(connection: AsyncConnection, uses: Sequence[KeyUsage]) -> None:
    if not uses:
        return
    # In one order everywhere: two gateways that lock the same rows must not wait for each other.
    uses = sorted(uses, key=lambda use: (use.key_id, use.day))
    spent = [
        {
            "key_id": use.key_id,
            "day": use.day,
            "requests": use.requests,
            "tokens": min(use.tokens, MOST),
        }
        for use in uses
    ]
    await connection.execute(insert_or_add(connection, key_spend, "requests", "tokens"), spent)
    await connection.execute(_USED, [{"used": use.key_id, "at": use.last_used_at} for use in uses])


async def spend_of_day(connection: AsyncConnection, day: int) -> dict[str, DailyKeyUsage]:
    """Key id -> what it used on that day, of the keys that used anything."""
    rows = await connection.execute(select(key_spend).where(key_spend.c.day == day))
    return {row.key_id: DailyKeyUsage(row.requests, row.tokens) for row in rows}


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        shown=row.shown,
        namespaces=tuple(row.namespaces),
        permissions=tuple(Permission(name) for name in row.permissions),
        requests_per_minute=row.requests_per_minute,
        tokens_per_day=row.tokens_per_day,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        expires_at=row.expires_at,
    )
