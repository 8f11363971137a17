"""Who is asking: the application's state and the two kinds of keys.

Coroutines, though they wait for nothing: FastAPI sends plain functions to a thread, each time.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request

from app.exceptions import AuthenticationFailed, NotAllowed
from app.state import AppState


async def app_state(request: Request) -> AppState:
    state: AppState = request.app.state.ttcl
    return state


State = Annotated[AppState, Depends(app_state)]


async def client_key(request: Request, state: State) -> None:
    """A client's key, where keys are configured. Raises `AuthenticationFailed`."""
    known = [key.get_secret_value() for key in state.settings.api_keys]
    if not known:
        return
    given = _bearer(request)
    if not _among(given, [*known, state.admin_key]):
        raise AuthenticationFailed("Incorrect API key provided")


async def admin_key(request: Request, state: State) -> None:
    """The admin key. Raises `AuthenticationFailed`, or `NotAllowed` for a client's key."""
    given = _bearer(request)
    if _among(given, [state.admin_key]):
        return
    if _among(given, [key.get_secret_value() for key in state.settings.api_keys]):
        raise NotAllowed("This key may not use the admin API; the admin key is needed")
    raise AuthenticationFailed("The admin API needs the admin key as a bearer token")


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _among(given: str, known: list[str]) -> bool:
    """Constant time over every known key, so that timing tells nothing about any of them."""
    found = False
    for key in known:
        found |= hmac.compare_digest(given.encode(), key.encode())
    return found and bool(given)


ClientKey = Depends(client_key)
AdminKey = Depends(admin_key)
