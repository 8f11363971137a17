"""Who is asking: the application's state, and the caller that a key stands for.

An endpoint says what it needs by the type of a parameter: `caller: Client`, `caller: AdminRead`
(also of a POST that changes nothing) or `caller: AdminWrite`. It then keeps to the caller's
namespaces itself; what is named in path or query is checked here. An admin endpoint without such
a parameter is for keys of all namespaces, and its method says what it needs.

Coroutines, though they wait for nothing: FastAPI sends plain functions to a thread, each time.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers

from app.access.callers import ANYONE, Caller, act_for
from app.exceptions import AuthenticationFailed, NotAllowed, NotFound
from app.upstream.headers import KEY_HEADERS
from app.wiring.container import AppState
from rules_store.errors import UnknownEpisode, UnknownExample, UnknownRule
from rules_store.models.keys import Permission

_READING = ("GET", "HEAD")
_ADMIN = (Permission.ADMIN_READ, Permission.ADMIN_WRITE)


async def app_state(request: Request) -> AppState:
    state: AppState = request.app.state.ttcl
    return state


State = Annotated[AppState, Depends(app_state)]


async def client(request: Request, state: State) -> Caller:
    """Who may chat. Raises `AuthenticationFailed`, or `NotAllowed` for a key without `chat`."""
    return client_of(state, request.headers)


def client_of(state: AppState, headers: Headers) -> Caller:
    """Whoever these headers say may chat. Raises as `client`."""
    given = given_key(headers)
    caller = state.keys.caller(given)
    if caller is None:
        if state.keys.needed:
            raise _no_key(state, given, "Incorrect API key provided")
        return ANYONE
    caller.demand(Permission.CHAT)
    return caller


async def admin(request: Request, state: State) -> Caller:
    """Who may do to the admin API what this request's method does. A namespace in path or query
    that is not the caller's is none for them.

    Raises `AuthenticationFailed`, `NotAllowed`, `NotFound`.
    """
    caller = administrator_of(state, request.headers)
    act_for(caller)
    declared = _declared(request)
    caller.demand(declared or _by_method(request))
    _check_storable(request.path_params)
    if caller.everywhere:
        return caller
    if declared is None:
        caller.demand_everywhere()
    await check_path(caller, request.path_params, state)
    for named in request.query_params.getlist("namespace"):
        reach(caller, named)
    return caller


async def admin_read(caller: Annotated[Caller, Depends(admin)]) -> Caller:
    caller.demand(Permission.ADMIN_READ)
    return caller


async def admin_write(caller: Annotated[Caller, Depends(admin)]) -> Caller:
    caller.demand(Permission.ADMIN_WRITE)
    return caller


def reach(caller: Caller, namespace: str) -> None:
    """Raises `NotFound`: what is not the caller's is none for them."""
    if not caller.reaches(namespace):
        raise unknown_namespace(namespace)


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


def administrator_of(state: AppState, headers: Headers) -> Caller:
    """Whoever these headers say may use the admin API at all. Raises `AuthenticationFailed`,
    `NotAllowed`."""
    given = given_key(headers)
    caller = state.keys.caller(given)
    if caller is None:
        raise _no_key(state, given, "The admin API needs the admin key as a bearer token")
    if not any(caller.may(permission) for permission in _ADMIN):
        raise NotAllowed("This key may not use the admin API; the admin key is needed")
    return caller


def _no_key(state: AppState, given: str, otherwise: str) -> AuthenticationFailed:
    expired = state.keys.why_not(given)
    if expired is None:
        return AuthenticationFailed(otherwise)
    return AuthenticationFailed(expired, code="key_expired")


def _check_storable(path: dict[str, Any]) -> None:
    """What has a NUL is nowhere, and PostgreSQL refuses to look. Raises `NotFound`."""
    for name, value in path.items():
        if "\x00" in str(value):
            kind = name.removesuffix("_id")
            raise NotFound(f"There is no such {kind}", param=kind, code=f"{kind}_not_found")


async def check_path(caller: Caller, path: dict[str, Any], state: AppState) -> None:
    """What an address names must be the caller's. Raises `NotFound`, UnknownRule,
    UnknownExample, UnknownEpisode."""
    if "namespace" in path:
        reach(caller, path["namespace"])
    if "rule_id" in path:
        rule = await state.store.rules.get(path["rule_id"])
        if not caller.reaches(rule.namespace):
            raise UnknownRule(rule.id)
    if "example_id" in path:
        example = await state.store.examples.get(path["example_id"])
        if not caller.reaches(example.namespace):
            raise UnknownExample(example.id)
    if "episode_id" in path:
        episode = await state.store.episodes.get(path["episode_id"])
        if not caller.reaches(episode.namespace):
            raise UnknownEpisode(episode.id)


def _declared(request: Request) -> Permission | None:
    route = request.scope.get("route")
    assert isinstance(route, APIRoute)
    calls = {each.call for each in route.dependant.dependencies}
    if admin_write in calls:
        return Permission.ADMIN_WRITE
    return Permission.ADMIN_READ if admin_read in calls else None


def _by_method(request: Request) -> Permission:
    return Permission.ADMIN_READ if request.method in _READING else Permission.ADMIN_WRITE


def given_key(headers: Headers) -> str:
    """The key that a request carries: a bearer token, or where there is no `Authorization` what
    Anthropic's and Azure's clients send."""
    if "authorization" in headers:
        scheme, _, token = headers["authorization"].partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    return next((headers[name].strip() for name in KEY_HEADERS if name in headers), "")


Client = Annotated[Caller, Depends(client)]
AdminRead = Annotated[Caller, Depends(admin_read)]
AdminWrite = Annotated[Caller, Depends(admin_write)]
AdminAccess = Depends(admin)
