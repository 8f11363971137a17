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

from app.access.callers import ADMINISTRATOR
from app.console.access import (
    HOME,
    LOGIN,
    At,
    Console,
    Posted,
    console_of,
    console_router,
    form_fields,
)
from app.console.rendering import redirect
from app.console.sessions import COOKIE, LIFETIME
from app.exceptions import AuthenticationFailed, NotAllowed, Overloaded, TTCLError

router = console_router()
log = structlog.get_logger(__name__)

NONCE = "ttcl_console_door"
DEFAULT_ACTOR = "console"
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
    if console.sessions.find(request.cookies.get(COOKIE)) is not None:
        return redirect(_inside(after))
    return _form(request, console, after)


@router.post("/login")
async def log_in(request: Request) -> Response:
    console = console_of(request)
    address = request.client.host if request.client else "unknown"
    fields = await form_fields(request)
    after, actor = fields.get("next", HOME), " ".join(fields.get("actor", "").split())[:100]
    try:
        _admit(request, console, fields, address)
    except TTCLError as error:
        return _form(request, console, after, error, actor)
    token = console.sessions.start(actor or DEFAULT_ACTOR)
    # A session that this browser may have had before ends with the new one.
    console.sessions.end(request.cookies.get(COOKIE))
    log.info("console: signed in", actor=actor or DEFAULT_ACTOR)
    response = redirect(_inside(after))
    _set(request, response, COOKIE, token, int(LIFETIME))
    response.delete_cookie(NONCE, path="/console")
    return response


@router.post("/logout")
async def log_out(desk: At, form: Posted) -> RedirectResponse:
    console_of(desk.request).sessions.end(desk.request.cookies.get(COOKIE))
    response = redirect(LOGIN)
    response.delete_cookie(COOKIE, path="/console")
    return response


def _admit(request: Request, console: Console, fields: dict[str, str], address: str) -> None:
    """Raises `NotAllowed`, `TooManyAttempts`, `AuthenticationFailed`."""
    wait = console.throttle.wait(address)
    if wait > 0:
        minutes = max(1, round(wait / 60))
        raise TooManyAttempts(
            f"Too many wrong keys from here: try again in about {minutes} min", retry_after=wait
        )
    nonce = request.cookies.get(NONCE, "")
    expected = console.sessions.login_token(nonce)
    if not nonce or not _same(fields.get("csrf", ""), expected):
        raise NotAllowed("The page was too old: please try again")
    caller = request.app.state.ttcl.keys.caller(fields.get("key", "").strip())
    if caller != ADMINISTRATOR:
        console.throttle.failed(address)
        log.warning("console: wrong key", address=address)
        raise AuthenticationFailed("This is not the admin key")
    console.throttle.succeeded(address)


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
        csrf=console.sessions.login_token(nonce),
        after=_inside(after),
        actor=actor,
        error=error,
    )
    if error is not None and error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    _set(request, response, NONCE, nonce, 3600)
    return response


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/console",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _inside(path: str) -> str:
    """Where to go after logging in: never out of the console."""
    return path if _INSIDE.match(path) else HOME


def _same(given: str, expected: str) -> bool:
    """Constant time, whatever the lengths."""
    one, other = (hashlib.sha256(text.encode()).digest() for text in (given, expected))
    return hmac.compare_digest(one, other)
