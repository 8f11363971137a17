"""`/admin/v1/keys`: who may come in, where, and how often. For keys of all namespaces only."""

from __future__ import annotations

from fastapi import APIRouter

from app.access.admin_key import keep_admin_key
from app.api.admin.common import Cursor, Limit
from app.api.dependencies import AdminRead, AdminWrite, State
from app.api.schemas.common import ListOf, refuses
from app.api.schemas.keys import (
    Key,
    KeyCreate,
    KeyPatch,
    KeyRotate,
    KeyWithSecret,
    Withdrawal,
)
from app.api.schemas.rules import Write
from app.wiring.container import AppState
from rules_store.models.keys import ADMIN, DailyKeyUsage, Permission

router = APIRouter(tags=["keys"])


@router.get("/keys", summary="List API keys, newest first, with what they used today")
async def list_keys(
    state: State, caller: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> ListOf[Key]:
    caller.demand_everywhere()
    spend = await spend_today(state)
    page = await state.store.keys.list(limit=limit, cursor=cursor)
    keys = [Key.of(key, used_today=spend.get(key.id, DailyKeyUsage())) for key in page.items]
    return ListOf[Key].of(page, data=keys)


@router.post("/keys", status_code=201, summary="Make an API key; its secret is shown this once")
async def create_key(body: KeyCreate, state: State, caller: AdminWrite) -> KeyWithSecret:
    caller.demand_everywhere()
    caller.demand_all_of(body.permissions)
    key, secret = await state.store.keys.create(body.as_new(), change=body.change)
    return KeyWithSecret.of(key, secret=secret)


@router.get("/keys/{key_id}", summary="One API key")
async def get_key(key_id: str, state: State, caller: AdminRead) -> Key:
    caller.demand_everywhere()
    spend = await spend_today(state)
    key = await state.store.keys.get(key_id)
    return Key.of(key, used_today=spend.get(key.id, DailyKeyUsage()))


@router.patch("/keys/{key_id}", summary="Change what an API key may do", responses=refuses(409))
async def patch_key(key_id: str, body: KeyPatch, state: State, caller: AdminWrite) -> Key:
    caller.demand_everywhere()
    caller.demand_all_of(body.permissions or ())
    if body.namespaces is not None:
        # Who widens a key gives what it may do, there too.
        caller.demand_all_of((await state.store.keys.get(key_id)).permissions)
    key = await state.store.keys.patch(key_id, body.changes(), change=body.change)
    return Key.of(key)


@router.post(
    "/keys/{key_id}/rotate",
    summary="Give an API key a new secret, shown this once; the present one is valid for a while",
    responses=refuses(409),
)
async def rotate_key(
    key_id: str, body: KeyRotate, state: State, caller: AdminWrite
) -> KeyWithSecret:
    """Id, name, permissions, limits and all that was said with the key stay. `admin` is the admin
    key: the new one is valid on every gateway of the store at once. The one that gateways were
    started with (TTCL_ADMIN_API_KEY, or admin.key in the data folder) ends with the overlap, so
    put the new one there; this gateway's own admin.key is written."""
    caller.demand_everywhere()
    if key_id == ADMIN:
        caller.demand_all_of(Permission)
        rotated = await state.store.keys.rotate_admin(
            state.admin_key, overlap=body.overlap, change=body.change
        )
        await keep_admin_key(state.settings, rotated[1])
    else:
        caller.demand_all_of((await state.store.keys.get(key_id)).permissions)
        rotated = await state.store.keys.rotate(key_id, overlap=body.overlap, change=body.change)
    key, secret = rotated
    return KeyWithSecret.of(key, secret=secret)


@router.post("/keys/{key_id}/revoke", summary="Revoke an API key, for good", responses=refuses(409))
async def revoke_key(key_id: str, body: Write, state: State, caller: AdminWrite) -> Key:
    caller.demand_everywhere()
    key = await state.store.keys.revoke(key_id, change=body.change)
    return Key.of(key)


@router.post(
    "/keys/{key_id}/withdraw",
    summary="Take back all that was said with an API key, and judge anew what stood on it",
    responses=refuses(404),
)
async def withdraw_key(key_id: str, body: Write, state: State, caller: AdminWrite) -> Withdrawal:
    """Feedback, votes, outcomes, trials on its questions and labels, exposures of its requests,
    choices, and what it taught. `key_id` may also be `environment-1` (the first of TTCL_API_KEYS)
    or `anyone`. The key stays as it is: revoke it first where it must not go on. Asked again, it
    goes on where it ended."""
    caller.demand_everywhere()
    return Withdrawal.of(await state.store.keys.withdraw(key_id, change=body.change))


async def spend_today(state: AppState) -> dict[str, DailyKeyUsage]:
    """Today's, with what this gateway has not written yet."""
    await state.meter.flush()
    return await state.store.keys.spend(state.meter.today())
