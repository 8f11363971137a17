"""`/admin/v1/keys`: who may come in, where, and how often. For keys of all namespaces only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from app.api.admin.common import Cursor, Limit
from app.api.dependencies import AdminRead, AdminWrite, State
from app.api.schemas.common import example, gives, lists
from app.api.schemas.namespaces import Key, KeyWithSecret
from app.api.schemas.rules import Write, list_shape
from app.settings import NAMESPACE_PATTERN
from app.wiring.container import AppState
from rules_store.models.events import Change
from rules_store.models.keys import ALL, ApiKey, KeyChanges, KeySpend, NewKey, Permission

router = APIRouter(tags=["keys"])

MOST = 2**31 - 1
NAMESPACE_OR_ALL = rf"^\*$|{NAMESPACE_PATTERN}"


def _alone(names: list[str]) -> list[str]:
    if ALL in names and len(names) > 1:
        raise ValueError("'*' stands for every namespace, and alone")
    return list(dict.fromkeys(names))


def _each_once(permissions: list[Permission]) -> list[Permission]:
    return [each for each in Permission if each in permissions]


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Names = Annotated[
    list[Annotated[str, StringConstraints(pattern=NAMESPACE_OR_ALL)]],
    Field(
        min_length=1,
        max_length=100,
        description="The first is the default of requests that name none; ['*'] is all",
    ),
    AfterValidator(_alone),
]
Permissions = Annotated[
    list[Permission], Field(min_length=1, max_length=10), AfterValidator(_each_once)
]
PerMinute = Annotated[
    int | None, Field(ge=1, le=MOST, description="Requests a minute, on each gateway; null: any")
]
PerDay = Annotated[int | None, Field(ge=1, le=MOST, description="Tokens a UTC day; null: any")]


class KeyCreate(Write):
    model_config = example(
        name="help desk",
        namespaces=["support"],
        permissions=["chat", "learn"],
        requests_per_minute=60,
        actor="kim",
        reason="a new client",
    )

    name: Name
    namespaces: Names
    permissions: Permissions = Field(default=[Permission.CHAT, Permission.LEARN])
    requests_per_minute: PerMinute = None
    tokens_per_day: PerDay = None

    def as_new(self) -> NewKey:
        return NewKey(
            name=self.name,
            namespaces=tuple(self.namespaces),
            permissions=tuple(self.permissions),
            requests_per_minute=self.requests_per_minute,
            tokens_per_day=self.tokens_per_day,
        )


class KeyPatch(Write):
    model_config = example(requests_per_minute=120, actor="kim", reason="they grew")

    name: Name | None = None
    namespaces: Names | None = None
    permissions: Permissions | None = None
    requests_per_minute: PerMinute = None
    tokens_per_day: PerDay = None

    @model_validator(mode="after")
    def _something(self) -> KeyPatch:
        if not self.model_fields_set - set(Write.model_fields):
            raise ValueError(f"nothing to change: give {', '.join(KeyChanges.__annotations__)}")
        for name in ("name", "namespaces", "permissions"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} can't be null")
        return self

    def changes(self) -> KeyChanges:
        """What was given. A null limit takes the limit away."""
        changes: KeyChanges = {}
        if self.name is not None:
            changes["name"] = self.name
        if self.namespaces is not None:
            changes["namespaces"] = tuple(self.namespaces)
        if self.permissions is not None:
            changes["permissions"] = tuple(self.permissions)
        if "requests_per_minute" in self.model_fields_set:
            changes["requests_per_minute"] = self.requests_per_minute
        if "tokens_per_day" in self.model_fields_set:
            changes["tokens_per_day"] = self.tokens_per_day
        return changes


@router.get(
    "/keys", summary="List API keys, newest first, with what they used today", responses=lists(Key)
)
async def list_keys(
    state: State, caller: AdminRead, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    caller.demand_everywhere()
    spend = await _spend(state)
    page = await state.store.keys.list(limit=limit, cursor=cursor)
    return list_shape(page, [key_shape(key, spend.get(key.id)) for key in page.items])


@router.post(
    "/keys",
    status_code=201,
    summary="Make an API key; its secret is shown this once",
    responses=gives(KeyWithSecret, status=201),
)
async def create_key(body: KeyCreate, state: State, caller: AdminWrite) -> dict[str, Any]:
    caller.demand_everywhere()
    caller.demand_all_of(body.permissions)
    key, secret = await state.store.keys.create(
        body.as_new(), change=Change(body.actor, body.reason)
    )
    return {**key_shape(key), "secret": secret}


@router.get("/keys/{key_id}", summary="One API key", responses=gives(Key))
async def get_key(key_id: str, state: State, caller: AdminRead) -> dict[str, Any]:
    caller.demand_everywhere()
    spend = await _spend(state)
    key = await state.store.keys.get(key_id)
    return key_shape(key, spend.get(key.id))


@router.patch(
    "/keys/{key_id}", summary="Change what an API key may do", responses=gives(Key, also=(409,))
)
async def patch_key(
    key_id: str, body: KeyPatch, state: State, caller: AdminWrite
) -> dict[str, Any]:
    caller.demand_everywhere()
    caller.demand_all_of(body.permissions or ())
    key = await state.store.keys.patch(
        key_id, body.changes(), change=Change(body.actor, body.reason)
    )
    return key_shape(key)


@router.post(
    "/keys/{key_id}/revoke",
    summary="Revoke an API key, for good",
    responses=gives(Key, also=(409,)),
)
async def revoke_key(key_id: str, body: Write, state: State, caller: AdminWrite) -> dict[str, Any]:
    caller.demand_everywhere()
    key = await state.store.keys.revoke(key_id, change=Change(body.actor, body.reason))
    return key_shape(key)


def key_shape(key: ApiKey, spend: KeySpend | None = None) -> dict[str, Any]:
    return {
        "object": "api_key",
        **asdict(key),
        "namespaces": list(key.namespaces),
        "permissions": [permission.value for permission in key.permissions],
        "created_at": key.created_at.isoformat(),
        "last_used_at": key.last_used_at and key.last_used_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
        "used_today": asdict(spend or KeySpend()),
    }


async def _spend(state: AppState) -> dict[str, KeySpend]:
    """Today's, with what this gateway has not written yet."""
    await state.meter.flush()
    return await state.store.keys.spend(state.meter.today())
