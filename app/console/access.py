"""The door of the console: who is signed in, what their key may see and change, whether a form is
theirs, and errors as pages.

A page names what it is about in its address: `namespace`, `rule_id`, `example_id`, `episode_id`.
What is not in the caller's namespaces is none for them, and so is what a form or a filter names. A
list keeps to `desk.within` itself.

NotSignedIn             to the log-in page, and back here after it
TTCLError, StoreError   a page with the sentence and the status
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, quote

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from app.access.callers import Caller, act_for
from app.access.throttle import Throttle
from app.api.dependencies import check_path, reach
from app.api.errors import from_store
from app.chat.request import param_name
from app.console.rendering import Pages, redirect
from app.console.sessions import COOKIE, NOTICE_COOKIE, Notice, Session, Sessions
from app.exceptions import InvalidRequest, NotAllowed, PayloadTooLarge, TTCLError
from app.wiring.container import AppState
from rules_store.errors import StoreError
from rules_store.models.events import Change
from rules_store.models.keys import Permission

log = structlog.get_logger(__name__)

MAX_FORM_BYTES = 1_000_000
"""Question and answer of an example, each of 32,000 characters at most, take up to 12 bytes for
one."""
MAX_FILE_BYTES = 20_000_000
"""Of JSON lines; a form writes many of their characters as three."""
MAX_FIELDS = 200
"""A list that is changed in bulk has a field for each row."""
MOST_BANNERS = 5
HOME = "/console"
LOGIN = "/console/login"

Text = Annotated[str, Query(max_length=500, pattern=r"^[^\x00]*$")]
"""A search word, a filter, a cursor; empty where it is not given."""
Id = Annotated[str, Path(max_length=128, pattern=r"^[\x21-\x7e]+$")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


LIFTS: dict[str, tuple[float | None, float | None]] = {
    "measured": (-1.0, 1.0),
    "above_zero": (0.0, 1.0),
    "below_zero": (-1.0, 0.0),
}
"""What a list can be filtered by, with the least and the most lift."""
E = TypeVar("E", bound=StrEnum)


def among(kind: type[E], value: str) -> E | None:
    """A value that isn't one of the kind's comes from a hand-made address, and is no filter."""
    return kind(value) if value in list(kind) else None


@dataclass(frozen=True, slots=True)
class Console:
    """What lives as long as the application; built by `app.console.site.install`."""

    pages: Pages
    throttle: Throttle


class NotSignedIn(Exception):
    """There is no session, or it is over."""


@dataclass(frozen=True, slots=True)
class Form:
    """A posted form whose CSRF token was right."""

    fields: dict[str, str]

    def get(self, name: str) -> str:
        """The field without white space around it; empty where it was not sent."""
        return self.fields.get(name, "").strip()

    @property
    def reason(self) -> str:
        """Why the change is made. Raises `InvalidRequest` where nobody says."""
        reason = self.get("reason")
        if not reason:
            raise InvalidRequest("Say why: the reason goes into the history", param="reason")
        return reason[:2000]

    def number(self, name: str) -> int | None:
        """Raises `InvalidRequest`."""
        text = self.get(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise InvalidRequest(f"{name}: not a whole number", param=name)
        return int(text)


@dataclass(slots=True)
class SignedInRequest:
    """One request of somebody who is signed in."""

    request: Request
    state: AppState
    session: Session
    pages: Pages
    notice: Notice | None = None

    @property
    def caller(self) -> Caller:
        """What the key that they came with may do, as the admin API knows it."""
        return self.session.caller

    @property
    def actor(self) -> str:
        return self.session.actor

    @property
    def within(self) -> frozenset[str] | None:
        """The namespaces that a list may show; None: all."""
        return self.caller.namespaces

    async def namespaces(self) -> list[str]:
        """Names that a filter offers."""
        names = await self.state.store.namespaces.names()
        return [name for name in names if self.caller.reaches(name)]

    def change(self, reason: str) -> Change:
        """Of who is signed in, with their key."""
        return Change(self.actor, reason, self.caller.name)

    def page(self, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        path = self.request.url.path
        names = self.state.store.effect.suspended()
        suspended = [name for name in names if self.caller.reaches(name)]
        response = self.pages.render(
            template,
            self.session,
            status=status,
            path=path,
            notice=self.notice,
            origin=str(self.request.base_url).rstrip("/"),
            suspended=suspended[:MOST_BANNERS],
            **context,
        )
        if NOTICE_COOKIE in self.request.cookies:
            # Told once.
            response.delete_cookie(NOTICE_COOKIE, path=HOME)
        return response

    def go(self, path: str, notice: str, kind: str = "done") -> RedirectResponse:
        """To another page, with a sentence on what was done."""
        response = redirect(path)
        sealed = self.session.sealed(Notice(notice, kind))
        set_cookie(self.request, response, NOTICE_COOKIE, sealed, 60)
        return response

    def problem(self, sentence: str) -> None:
        """Shown at the top of the page that is rendered next."""
        self.notice = Notice(sentence, "problem")


def console_of(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


def sessions_of(request: Request) -> Sessions:
    state: AppState = request.app.state.ttcl
    return Sessions(state.store.sessions, state.keys)


async def signed_in(request: Request) -> SignedInRequest:
    """Raises `NotSignedIn`; `NotFound`, UnknownRule, UnknownExample, UnknownEpisode for what is
    not the caller's."""
    session = await sessions_of(request).find(request.cookies.get(COOKIE))
    if session is None:
        raise NotSignedIn
    state: AppState = request.app.state.ttcl
    request.state.console_session = session
    caller = session.caller
    act_for(caller)
    if not caller.everywhere:
        await check_path(caller, request.path_params, state)
        for named in filter(None, request.query_params.getlist("namespace")):
            reach(caller, named)
    if request.method in ("GET", "HEAD"):
        caller.demand(Permission.ADMIN_READ)
    notice = session.opened(request.cookies.get(NOTICE_COOKIE))
    return SignedInRequest(request, state, session, console_of(request).pages, notice)


At = Annotated[SignedInRequest, Depends(signed_in)]


async def checked_form(request: Request, desk: At) -> Form:
    """The fields of the body. Raises `NotAllowed` without the session's CSRF token, which may also
    be in the header `X-CSRF-Token`; `NotFound` where they name a namespace that is not the
    caller's."""
    return await _checked(request, desk, MAX_FORM_BYTES)


async def writing_form(request: Request, desk: At) -> Form:
    """As `checked_form`, from who may change things."""
    desk.caller.demand(Permission.ADMIN_WRITE)
    return await _checked(request, desk, MAX_FORM_BYTES)


async def large_form(request: Request, desk: At) -> Form:
    """As `writing_form`, of one that brings a file."""
    desk.caller.demand(Permission.ADMIN_WRITE)
    return await _checked(request, desk, MAX_FILE_BYTES)


async def _checked(request: Request, desk: SignedInRequest, most: int) -> Form:
    fields = await form_fields(request, most)
    token = request.headers.get("x-csrf-token") or fields.pop("csrf", "")
    if not desk.session.fits(token):
        raise NotAllowed("This form is not of your session: go back, reload and send it again")
    if named := fields.get("namespace", "").strip():
        reach(desk.caller, named)
    return Form(fields)


Asked = Annotated[Form, Depends(checked_form)]
"""Of a form that changes nothing."""
Posted = Annotated[Form, Depends(writing_form)]
Uploaded = Annotated[Form, Depends(large_form)]


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """For the server and this site only, and where the page came by TLS for TLS only."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=HOME,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


async def form_fields(request: Request, most: int = MAX_FORM_BYTES) -> dict[str, str]:
    """The last of each field. Raises `PayloadTooLarge`, `InvalidRequest`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise PayloadTooLarge(f"The form is larger than {most} bytes")
    try:
        pairs = parse_qsl(bytes(body).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise InvalidRequest("The form can't be read") from error
    # Line ends as the browser's text area sends them; a NUL fits in no database.
    return {name: value.replace("\r\n", "\n").replace("\0", "") for name, value in pairs}


class ConsoleRoute(APIRoute):
    """A route whose errors are pages for people, not the API's envelope."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except NotSignedIn:
                return _to_login(request)
            except StoreError as error:
                return _problem(request, from_store(error))
            except TTCLError as error:
                return _problem(request, error)
            except RequestValidationError as error:
                first = error.errors()[0]
                param = param_name(tuple(first["loc"][1:])) or "address"
                return _problem(request, InvalidRequest(f"{param}: {first['msg']}", param=param))

        return guarded


def console_router() -> APIRouter:
    """For one module's pages."""
    return APIRouter(prefix=HOME, include_in_schema=False, route_class=ConsoleRoute)


def _to_login(request: Request) -> Response:
    if request.method != "GET":
        return redirect(LOGIN)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return redirect(LOGIN if here == HOME else f"{LOGIN}?next={quote(here, safe='')}")


def _problem(request: Request, error: TTCLError) -> Response:
    response = console_of(request).pages.render(
        "error.html",
        getattr(request.state, "console_session", None),
        status=error.status,
        path=request.url.path,
        error=error,
    )
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return response
