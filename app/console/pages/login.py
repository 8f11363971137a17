"""Logging in and out."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Annotated

import structlog
from fastapi import Query, Request
from fastapi.responses import RedirectResponse, Response

from app.access.callers import Caller
from app.console.access import (
    HOME,
    LOGIN,
    Asked,
    At,
    Console,
    console_of,
    console_router,
    form_fields,
    sessions_of,
    set_cookie,
)
from app.console.rendering import redirect
from app.console.sessions import ADMIN_PERMISSIONS, COOKIE, login_token
from app.exceptions import (
    AuthenticationFailed,
    InvalidRequest,
    NotAllowed,
    Overloaded,
    TTCLError,
)
from app.wiring.container import AppState
from rules_store.models.events import is_own_actor
from rules_store.operations.sessions import LIFETIME

router = console_router()
log = structlog.get_logger(__name__)

NONCE = "ttcl_console_door"
DEFAULT_ACTOR = "admin"
_INSIDE = re.compile(r"^/console(?:[/?][\x21-\x7e]*)?$")


class TooManyAttempts(Overloaded):
    status = 429
    type = "rate_limit_error"
    code = "too_many_attempts"


@router.get("/login")
async def login_page(
    request: Request, after: Annotated[str, Query(alias="next", max_length=2000)] = HOME
) -> Response:
    console = console_of(request)
    if await sessions_of(request).find(request.cookies.get(COOKIE)) is not None:
        return redirect(_inside(after))
    return _form(request, console, after)


@router.post("/login")
async def log_in(request: Request) -> Response:
    console = console_of(request)
    address = request.client.host if request.client else "unknown"
    fields = await form_fields(request)
    after, actor = fields.get("next", HOME), " ".join(fields.get("actor", "").split())[:100]
    key = fields.get("key", "").strip()
    try:
        caller = _admit(request, console, fields, key, address)
        if is_own_actor(actor):
            raise InvalidRequest("The service itself acts by this name: take another one")
    except TTCLError as error:
        return _form(request, console, after, error, actor)
    sessions = sessions_of(request)
    if caller.actor is not None:
        # Whose key it is, it says itself.
        actor = caller.actor
    token = await sessions.start(caller, actor or DEFAULT_ACTOR, key)
    # A session that this browser may have had before ends with the new one.
    await sessions.end(request.cookies.get(COOKIE))
    log.info("console: signed in", actor=actor or DEFAULT_ACTOR, key=caller.name)
    response = redirect(_inside(after))
    set_cookie(request, response, COOKIE, token, int(LIFETIME.total_seconds()))
    response.delete_cookie(NONCE, path=HOME)
    return response


@router.post("/logout")
async def log_out(desk: At, form: Asked) -> RedirectResponse:
    await sessions_of(desk.request).end(desk.session.token)
    response = redirect(LOGIN)
    response.delete_cookie(COOKIE, path=HOME)
    return response


def _admit(
    request: Request, console: Console, fields: dict[str, str], key: str, address: str
) -> Caller:
    """Whose key it is. Raises `NotAllowed`, `TooManyAttempts`, `AuthenticationFailed`."""
    wait = console.throttle.wait(address)
    if wait > 0:
        minutes = max(1, round(wait / 60))
        raise TooManyAttempts(
            f"Too many wrong keys from here: try again in about {minutes} min", retry_after=wait
        )
    nonce = request.cookies.get(NONCE, "")
    if not nonce or not _same(fields.get("csrf", ""), login_token(nonce)):
        raise NotAllowed("The page was too old: please try again")
    state: AppState = request.app.state.ttcl
    caller = state.keys.caller(key)
    if caller is None or not any(caller.may(each) for each in ADMIN_PERMISSIONS):
        console.throttle.failed(address)
        log.warning("console: wrong key", address=address)
        raise AuthenticationFailed(
            state.keys.why_not(key) or "This is not the admin key, nor a key that may administer"
        )
    console.throttle.succeeded(address)
    return caller


def _form(
    request: Request,
    console: Console,
    after: str,
    error: TTCLError | None = None,
    actor: str = "",
) -> Response:
    nonce = secrets.token_urlsafe(32)
    response = console.pages.render(
        "login.html",
        None,
        status=error.status if error else 200,
        path=LOGIN,
        csrf=login_token(nonce),
        after=_inside(after),
        actor=actor,
        error=error,
    )
    if error is not None and error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    set_cookie(request, response, NONCE, nonce, 3600)
    return response


def _inside(path: str) -> str:
    """Where to go after logging in: never out of the console."""
    return path if _INSIDE.match(path) else HOME


def _same(given: str, expected: str) -> bool:
    """Constant time, whatever the lengths."""
    one, other = (hashlib.sha256(text.encode()).digest() for text in (given, expected))
    return hmac.compare_digest(one, other)
