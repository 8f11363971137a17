"""Who is asking: the application's state, and the caller that a key stands for.

An endpoint says what it needs by the type of a parameter: `client: Client`, `caller: AdminRead`
or `caller: AdminWrite`. The admin router asks for `admin-read` or `admin-write` by the method in
any case; a POST that only reads says so with `openapi_extra=READS`.

Coroutines, though they wait for nothing: FastAPI sends plain functions to a thread, each time.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from app.exceptions import AuthenticationFailed, NotAllowed, NotFound
from app.keys import ANYONE, Caller
from app.state import AppState
from rules_store.clients import Permission

PERMISSION = "x-ttcl-permission"
READS: dict[str, Any] = {PERMISSION: Permission.ADMIN_READ.value}
_READING = ("GET", "HEAD")
_ADMIN = (Permission.ADMIN_READ, Permission.ADMIN_WRITE)


async def app_state(request: Request) -> AppState:
    state: AppState = request.app.state.ttcl
    return state


State = Annotated[AppState, Depends(app_state)]


async def client(request: Request, state: State) -> Caller:
    """Who may chat. Raises `AuthenticationFailed`, or `NotAllowed` for a key without `chat`."""
    caller = state.keys.caller(_bearer(request))
    if caller is None:
        if state.keys.needed:
            raise AuthenticationFailed("Incorrect API key provided")
        return ANYONE
    caller.demand(Permission.CHAT)
    return caller


async def admin(request: Request, state: State) -> Caller:
    """Who may do to the admin API what this request's method does. A namespace in path or query
    that is not the caller's is none for them.

    Raises `AuthenticationFailed`, `NotAllowed`, `NotFound`.
    """
    caller = _administrator(request, state)
    caller.demand(_needed(request))
    named_in_path = request.path_params.get("namespace")
    for named in (named_in_path, *request.query_params.getlist("namespace")):
        if named is not None and not caller.reaches(named):
            raise unknown_namespace(named)
    return caller


async def admin_read(caller: Annotated[Caller, Depends(admin)]) -> Caller:
    caller.demand(Permission.ADMIN_READ)
    return caller


async def admin_write(caller: Annotated[Caller, Depends(admin)]) -> Caller:
    caller.demand(Permission.ADMIN_WRITE)
    return caller


def unknown_namespace(name: str) -> NotFound:
    return NotFound(
        f"There is no namespace '{name}'", param="namespace", code="namespace_not_found"
    )


def namespace_forbidden(name: str) -> NotAllowed:
    return NotAllowed(
        f"This key may not use the namespace '{name}'",
        param="namespace",
        code="namespace_forbidden",
    )


def _administrator(request: Request, state: AppState) -> Caller:
    caller = state.keys.caller(_bearer(request))
    if caller is None:
        raise AuthenticationFailed("The admin API needs the admin key as a bearer token")
    if not any(caller.may(permission) for permission in _ADMIN):
        raise NotAllowed("This key may not use the admin API; the admin key is needed")
    return caller


def _needed(request: Request) -> Permission:
    declared = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    if request.method in _READING or declared.get(PERMISSION) == Permission.ADMIN_READ:
        return Permission.ADMIN_READ
    return Permission.ADMIN_WRITE


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


Client = Annotated[Caller, Depends(client)]
AdminRead = Annotated[Caller, Depends(admin_read)]
AdminWrite = Annotated[Caller, Depends(admin_write)]
AdminAccess = Depends(admin)
