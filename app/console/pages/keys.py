"""Keys: who may come in, where, and how often; made, changed, revoked, taken back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi.responses import RedirectResponse, Response

from app.api.admin.keys import (
    create_key,
    patch_key,
    revoke_key,
    rotate_key,
    spend_today,
    withdraw_key,
)
from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.keys import KeyCreate, KeyPatch, KeyRotate
from app.api.schemas.rules import Write
from app.console.access import At, Form, Id, Posted, SignedInRequest, Text, console_router
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError
from rules_store.models.keys import ADMIN, ALL, DailyKeyUsage, Permission

router = console_router()

PAGE = 50
HERE = "/console/keys"
MEANINGS = {
    Permission.CHAT: "ask, and give feedback",
    Permission.LEARN: "what it asks may teach, and make its namespace",
    Permission.ADMIN_READ: "see everything in its namespaces, here too",
    Permission.ADMIN_WRITE: "change everything in its namespaces, here too",
}


@router.get("/keys")
async def keys(desk: At, cursor: Text = "") -> Response:
    return await _page(desk, cursor=cursor)


@router.post("/keys")
async def create(desk: At, form: Posted) -> Response:
    """The secret is on the page that this answers with, and nowhere else."""
    try:
        body = validated(KeyCreate, **_fields(form), actor=desk.actor, reason=form.reason)
        made = await create_key(body, desk.state, desk.caller)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, status=known.status, typed=form)
    return await _page(desk, status=201, made=made)


@router.post("/keys/{key_id}/change")
async def change(key_id: Id, desk: At, form: Posted) -> Response:
    try:
        fields, key = _fields(form), await desk.state.store.keys.get(key_id)
        if key.expires_at is not None and form.get("expires") == key.expires_at.date().isoformat():
            # As it is, with its time of day.
            del fields["expires_at"]
        body = validated(KeyPatch, **fields, actor=desk.actor, reason=form.reason)
        await patch_key(key_id, body, desk.state, desk.caller)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, status=known.status)
    return desk.go(HERE, f"Changed: {body.name}.")


@router.post("/keys/{key_id}/rotate")
async def rotate(key_id: Id, desk: At, form: Posted) -> Response:
    """`key_id` may be `admin`. The new secret is on the page that this answers with."""
    hours = form.number("overlap_hours")
    body = validated(
        KeyRotate,
        **({} if hours is None else {"overlap_hours": hours}),
        actor=desk.actor,
        reason=form.reason,
    )
    return await _page(desk, made=await rotate_key(key_id, body, desk.state, desk.caller))


@router.post("/keys/{key_id}/revoke")
async def revoke(key_id: Id, desk: At, form: Posted) -> RedirectResponse:
    body = validated(Write, actor=desk.actor, reason=form.reason)
    key = await revoke_key(key_id, body, desk.state, desk.caller)
    return desk.go(HERE, f"Revoked: {key.name} opens nothing any more.")


@router.post("/keys/{key_id}/withdraw")
async def withdraw(key_id: Id, desk: At, form: Posted) -> RedirectResponse:
    body = validated(Write, actor=desk.actor, reason=form.reason)
    done = await withdraw_key(key_id, body, desk.state, desk.caller)
    told = sum(done.counts.values())
    return desk.go(HERE, f"Taken back: {told} things that were said or taught with it.")


def _fields(form: Form) -> dict[str, Any]:
    """What the form of a key says, for `KeyCreate` and `KeyPatch`."""
    names = form.get("namespaces").replace(",", " ").split()
    return {
        "name": form.get("name"),
        "namespaces": tuple(names),
        "permissions": tuple(each for each in Permission if form.get(f"may:{each.value}")),
        "requests_per_minute": form.number("requests_per_minute"),
        "tokens_per_day": form.number("tokens_per_day"),
        "expires_at": f"{day}T00:00:00Z" if (day := form.get("expires")) else None,
    }


async def _page(
    desk: SignedInRequest,
    *,
    status: int = 200,
    cursor: str = "",
    typed: Form | None = None,
    made: Any = None,
) -> Response:
    desk.caller.demand_everywhere()
    store = desk.state.store
    return desk.page(
        "keys.html",
        status=status,
        page=await store.keys.list(limit=PAGE, cursor=cursor or None),
        used=await spend_today(desk.state),
        nothing=DailyKeyUsage(),
        cursor=cursor,
        permissions=[each for each in Permission if desk.caller.may(each)],
        meanings=MEANINGS,
        everywhere=ALL,
        typed=typed.fields if typed else None,
        made=made,
        fixed=[name for name in desk.state.keys.fixed if name != ADMIN],
        now=datetime.now(UTC),
    )
