"""Who comes in, and with how much: the key before the body, then the body, whole, in time and
within its bounds. Nothing of a body is read for who has no key."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from enum import Enum
from urllib.parse import urlsplit

import cachetools
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.callers import Caller, digest_of
from app.access.tenants import tenant
from app.access.throttle import BEARER_FAILURES, Throttle
from app.api.compression import decoded
from app.api.dependencies import administrator_of, client_of, given_key
from app.api.errors import render
from app.chat.formats import FORMATS
from app.exceptions import (
    AuthenticationFailed,
    ClientTooSlow,
    InvalidRequest,
    NotAllowed,
    PayloadTooLarge,
    TooManyRequests,
    TTCLError,
    UnsupportedEncoding,
)
from app.upstream.paths import BENEATH, PASSED
from app.wiring.container import AppState

MAX_JSON_BYTES = 2_000_000
"""Of what is one JSON object of fixed fields: feedback, and the admin API but for imports."""
IDLE_SECONDS = 15.0
"""Within which the next piece of a body must come."""
WHOLE_SECONDS = 120.0
"""Within which a body must have come."""
LINGER_SECONDS = 2.0
"""How long what comes after a refusal is thrown away: a connection that is closed at once would
take the refusal with it before the client has read it."""
_LARGE = 65_536
"""Bytes from which a body is decompressed in a thread."""
_MANY_AT_ONCE = (":import", "/import", "/v1/feedback:batch")
_WRITTEN_BY_PAGES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
"""What a web page may send anywhere without asking first."""
_READ_HERE = ("/v1/chat/completions", *FORMATS, "/v1/feedback", "/v1/feedback:batch")


class Door(Enum):
    """Whose key a path asks for."""

    CLIENT = "client"
    ADMIN = "admin"
    OPEN = "open"
    """Nobody's: nothing of a body is read there, or (the console) by rules of its own."""


class Doors:
    """Which door a path is behind."""

    def __init__(self, passed: Iterable[str] = ()) -> None:
        """`passed`: paths that are passed through beside `PASSED`."""
        paths = (*PASSED, *passed)
        self._exact = frozenset(path for path in paths if not path.endswith(BENEATH))
        self._beneath = ("/v1/", *(p.removesuffix("*") for p in paths if p.endswith(BENEATH)))

    def of(self, path: str) -> Door:
        if path == "/admin" or path.startswith("/admin/"):
            return Door.ADMIN
        if path == "/v1" or path in self._exact or path.startswith(self._beneath):
            return Door.CLIENT
        return Door.OPEN


class KeyFirst:
    """Answers 401 and 403 before anything of a body is read, on every path that needs a key, known
    or not. Where there are no keys it lets in nobody whom a web page of somewhere else has sent."""

    def __init__(self, app: ASGIApp, doors: Doors, origins: Iterable[str] = ()) -> None:
        """`origins`: of web pages that may ask from a browser."""
        self.app = app
        self._doors = doors
        self._origins = frozenset(origins)
        self._throttle = Throttle(failures=BEARER_FAILURES)
        self._let_in: cachetools.LRUCache[tuple[str, bytes], bool] = cachetools.LRUCache(1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._doors.of(scope["path"]) if scope["type"] == "http" else Door.OPEN
        if door is not Door.OPEN:
            state: AppState = scope["app"].state.ttcl
            headers = Headers(scope=scope)
            try:
                if door is Door.ADMIN:
                    caller = self._administrator(state, scope, headers)
                else:
                    caller = client_of(state, headers)
                    if not state.keys.needed:
                        self._check_sender(scope, headers)
            except TTCLError as error:
                await refuse(error, scope, receive, send)
                return
            # Until it is known in which of its namespaces it works.
            tenant.set((caller.name, ""))
        await self.app(scope, receive, send)

    def _administrator(self, state: AppState, scope: Scope, headers: Headers) -> Caller:
        """Raises `AuthenticationFailed`, `NotAllowed`, `TooManyRequests` for an address of too many
        wrong keys; one that has come with the right key goes on with that."""
        address, given = (scope.get("client") or ("unknown",))[0], given_key(headers)
        known = (address, digest_of(given))
        wait = 0.0 if known in self._let_in else self._throttle.wait(address)
        if given and wait > 0:
            raise TooManyRequests(
                "Too many wrong keys from here", code="too_many_attempts", retry_after=wait
            )
        try:
            caller = administrator_of(state, headers)
        except AuthenticationFailed:
            if given:
                self._throttle.failed(address)
            raise
        self._let_in[known] = True
        return caller

    def _check_sender(self, scope: Scope, headers: Headers) -> None:
        """Raises `NotAllowed`, `UnsupportedEncoding`."""
        if "*" in self._origins:
            return
        own = {urlsplit(origin).hostname for origin in self._origins}
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not _is_here(origin):
            raise NotAllowed(
                "Without keys no web page of another origin may ask: set TTCL_API_KEYS, or name "
                "the origin in TTCL_CORS_ORIGINS",
                code="foreign_origin",
            )
        host = headers.get("host", "")
        if not _is_here(f"//{host}") and urlsplit(f"//{host}").hostname not in own:
            raise NotAllowed(
                "Without keys only this machine's own names are answered: set TTCL_API_KEYS, or "
                "name the origin in TTCL_CORS_ORIGINS",
                code="foreign_host",
            )
        given = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["path"] in _READ_HERE and given in _WRITTEN_BY_PAGES:
            raise UnsupportedEncoding(
                f"Content-Type: {given} is not taken without keys; say application/json"
            )


class WholeBody:
    """Reads the body of a request that has come in, decompresses it and hands it on in one piece.

    408 for one that does not come in time, 413 above its bound, by its declared, its real and its
    decompressed length; 415 for an encoding that nobody here reads, 400 for what is not in the one
    that it names. What is behind no door is read by nobody, or piece by piece and in time.
    """

    def __init__(
        self,
        app: ASGIApp,
        doors: Doors,
        limit: int,
        *,
        idle: float = IDLE_SECONDS,
        whole: float = WHOLE_SECONDS,
    ) -> None:
        """`limit` in bytes, `idle` and `whole` in seconds."""
        self.app = app
        self._doors = doors
        self._limit = limit
        self._idle = idle
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        door = self._doors.of(scope["path"])
        timed = _Timed(receive, self._idle, self._whole)
        try:
            limit = self._limit_of(scope["path"], door)
            _check_declared(scope, limit)
            if door is Door.OPEN or not has_body(scope):
                await self.app(scope, timed, send)
                return
            encodings = _encodings(scope)
            body = await _read(timed, limit)
            if body is None:
                return  # who has gone needs no answer
            if encodings:
                body = await _plain(encodings, body, limit)
                scope = {**scope, "headers": _without_encoding(scope, len(body))}
        except InvalidRequest as error:
            await refuse(error, scope, receive, send)
            return
        await self.app(scope, _Handed(body, receive), send)

    def _limit_of(self, path: str, door: Door) -> int:
        fixed = path == "/v1/feedback" or door is Door.ADMIN
        if fixed and not path.endswith(_MANY_AT_ONCE):
            return min(self._limit, MAX_JSON_BYTES)
        return self._limit


class _Timed:
    """A `receive` that waits for the body no longer than it may; for its end, a disconnect, as long
    as it takes. Raises `ClientTooSlow`."""

    def __init__(self, receive: Receive, idle: float, whole: float) -> None:
        self._receive = receive
        self._idle = idle
        self._until = asyncio.get_running_loop().time() + whole
        self._more = True

    async def __call__(self) -> Message:
        if not self._more:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + self._idle, self._until)):
                message = await self._receive()
        except TimeoutError:
            raise ClientTooSlow("The body did not come in time") from None
        self._more = bool(message.get("more_body"))
        return message


class _Handed:
    """A `receive` for a body that is here."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def refuse(error: TTCLError, scope: Scope, receive: Receive, send: Send) -> None:
    """The error, and an end to the connection where a body was still to come."""
    response = render(error, scope["path"])
    if not has_body(scope):
        await response(scope, receive, send)
        return
    response.headers["Connection"] = "close"
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    if not isinstance(error, ClientTooSlow) and b"100-continue" not in _values(scope, b"expect"):
        await _throw_away(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _throw_away(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass


def has_body(scope: Scope) -> bool:
    """Whether a body comes with the request."""
    length = _values(scope, b"content-length")
    return bool(_values(scope, b"transfer-encoding")) or length not in (b"", b"0")


def _values(scope: Scope, wanted: bytes) -> bytes:
    return b",".join(value for name, value in scope["headers"] if name == wanted).strip().lower()


def _check_declared(scope: Scope, limit: int) -> None:
    """Raises `PayloadTooLarge`."""
    declared = _values(scope, b"content-length")
    # A length of many digits is costly to read, and longer than anything.
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes")


async def _read(receive: Receive, limit: int) -> bytes | None:
    """None where the client has gone. Raises `PayloadTooLarge`, `ClientTooSlow`."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _plain(encodings: list[str], body: bytes, limit: int) -> bytes:
    if len(body) < _LARGE:
        return decoded(encodings, body, limit)
    return await asyncio.to_thread(decoded, encodings, body, limit)


def _encodings(scope: Scope) -> list[str]:
    named = _values(scope, b"content-encoding").decode("latin-1")
    found = (each.strip() for each in named.split(","))
    return [each for each in found if each not in ("", "identity")]


def _without_encoding(scope: Scope, length: int) -> list[tuple[bytes, bytes]]:
    gone = (b"content-encoding", b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in gone]
    return [*headers, (b"content-length", str(length).encode())]


def _is_here(address: str) -> bool:
    """Whether a URL's host is this machine, by a name that no other one has."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
