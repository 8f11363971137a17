"""How a request reaches the model server: connections, one retry, and what failed in words.

aiohttp rather than httpx on this one path: measured beside an embedding, a call costs the gateway
0.8 ms instead of 1.8, and hundreds of open streams don't slow each other down.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from app.domain import json_text
from app.exceptions import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from app.observability.tracing import (
    INVALID_SPAN,
    Span,
    end,
    outgoing,
    set_attributes,
    set_failed,
    trace_headers,
)
from app.settings import is_loopback
from app.upstream.sse import heard
from app.upstream.wire import seconds_of

RETRY_STATUS = {502, 503, 504}
RETRY_PAUSE = 0.2
MAX_BODY = 64 * 1024 * 1024
forwarded_headers: ContextVar[Mapping[str, str]] = ContextVar(
    "forwarded", default=MappingProxyType({})
)
"""Sent with every upstream call that is made for one request, its id among them."""
forwarded_query: ContextVar[str] = ContextVar("forwarded_query", default="")
"""The query string of a chat request, sent with every chat call that is made for it."""


class UpstreamResponse:
    """An answer whose body may be unread. Whoever has it closes it, and with it the call's span."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        span: Span = INVALID_SPAN,
        patience: float = math.inf,
    ) -> None:
        """`patience`: seconds in which it must say something."""
        self._response = response
        self._patience = patience
        self.span = span
        self.status = response.status
        self.retry_after = seconds_of(response.headers.get("Retry-After"))
        self._read: bytes | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All of them, names in lower case."""
        return [(name.lower(), value) for name, value in self._response.headers.items()]

    @property
    def content_type(self) -> str:
        """Without its parameters, in lower case."""
        return self._response.content_type

    @property
    def is_stream(self) -> bool:
        return self.content_type == "text/event-stream"

    async def read(self) -> bytes:
        """The whole body, as often as it is asked for. Raises `UpstreamTimeout`,
        `UpstreamUnavailable`; `UpstreamError` for one without end."""
        if self._read is None:
            self._read = await self._whole()
        return self._read

    async def _whole(self) -> bytes:
        parts, size = [], 0
        with _worded("did not finish its answer in time", "cut its answer", self.span):
            if self._response.content.at_eof():
                return await self._response.read()
            async for part in self._response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > MAX_BODY:
                    raise UpstreamError("the model server's answer has no end")
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `UpstreamTimeout`, `UpstreamUnavailable`."""
        with _worded("stopped in the middle of its answer", "cut the stream", self.span):
            chunks: AsyncIterator[bytes] = self._response.content.iter_any()
            if self.is_stream:
                chunks = heard(chunks, self._patience)
            async for chunk in chunks:
                yield chunk

    def close(self) -> None:
        """Closes the connection unless the body was read to its end."""
        self._response.release()
        end(self.span)


def proxy_of(url: URL) -> URL | None:
    """The proxy that the environment names for this address. None stands before a server on this
    machine."""
    host = url.host or ""
    found = getproxies()
    named = found.get(url.scheme) or found.get("all")
    if named is None or is_loopback(host) or proxy_bypass(host):
        return None
    return URL(named if "://" in named else f"http://{named}")


@contextmanager
def _worded(late: str, cut: str, span: Span = INVALID_SPAN) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        set_failed(span, "UpstreamTimeout")
        raise UpstreamTimeout(f"the model server {late}") from error
    except aiohttp.ClientError as error:
        set_failed(span, "UpstreamUnavailable")
        raise UpstreamUnavailable(f"the model server {cut}") from error


class Transport:
    """`base_url` ends in /v1; times are in seconds. `availability`: see `app.upstream.client`.

    Belongs to the event loop it is made in.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout: float,
        connect_timeout: float,
        availability: Callable[[], str | None],
    ) -> None:
        url = URL(base_url)
        # Two ways to say who we are exclude each other: the key is the one that was meant for it.
        self._base_url = str(url.with_user(None) if api_key else url)
        self._urls: dict[str, URL] = {}
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=connect_timeout, sock_read=timeout
            ),
            # Many clients share these connections: one's session is not another's.
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy_of(url),
            # It would read ~/.netrc for every call, and send what it finds there upstream.
            trust_env=False,
        )
        self._availability = availability
        self._timeout = timeout
        self.drops_connections = False
        """Whether a kept-alive connection may be gone after a stream, without a word."""

    async def close(self) -> None:
        await self._http.close()

    async def post(self, url: str, body: dict[str, Any], seconds: float) -> UpstreamResponse:
        """One plain call to any address, not retried, its body read. Raises
        `UpstreamUnavailable`, `UpstreamTimeout`."""
        headers = {"Content-Type": "application/json"}
        with _worded("did not answer in time", "can't be reached"):
            async with asyncio.timeout(seconds):
                answer = await self._http.request(
                    "POST", url, data=json_text.dumps(body), headers=headers, allow_redirects=False
                )
                await answer.read()
        return UpstreamResponse(answer)

    async def send(
        self, method: str, path: str, body: bytes | None, *, stream: bool, query: str = ""
    ) -> UpstreamResponse:
        """The answer, whatever its status, its body unread; the caller closes it. Retried once,
        while nothing has been answered. Raises `UpstreamUnavailable`, `UpstreamTimeout`."""
        sent = {**forwarded_headers.get()}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if stream and self.drops_connections:
            sent["Connection"] = "close"
        url = self._url(path)
        if query:
            url = URL(f"{url}?{query}", encoded=True)
        return await self._traced(method, path, url, body, sent)

    async def forward(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> UpstreamResponse:
        """A client's own request to any path: `target` is the encoded path with its query, from
        the server's root. The body of the answer is left as it was sent, compressed or not. Only
        what was not answered at all is tried again. Raises `UpstreamUnavailable`,
        `UpstreamTimeout`."""
        url = URL(self._base_url.removesuffix("/v1") + target, encoded=True)
        path = target.partition("?")[0]
        return await self._traced(method, path, url, body or None, headers, verbatim=True)

    async def _traced(
        self,
        method: str,
        path: str,
        url: URL,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        verbatim: bool = False,
    ) -> UpstreamResponse:
        span = outgoing(f"upstream {path}", method=method, path=path)
        sent = {**headers, **trace_headers(span)}
        try:
            answer = await self._send(method, url, body, sent, verbatim)
        except BaseException as error:
            end(span, error)
            raise
        set_attributes(span, status=answer.status)
        if answer.status >= 400:
            set_failed(span, str(answer.status))
        return UpstreamResponse(answer, span, self._timeout)

    async def _send(
        self, method: str, url: URL, body: bytes | None, sent: Mapping[str, str], verbatim: bool
    ) -> aiohttp.ClientResponse:
        """`verbatim`: whatever status comes is the answer, and its body is not decompressed."""
        for last in (False, True):
            down = self._availability()
            if down is not None:
                raise UpstreamUnavailable(down, status=503, retry_after=2)
            try:
                answer = await self._http.request(
                    method,
                    url,
                    data=body,
                    headers=sent,
                    allow_redirects=False,
                    auto_decompress=not verbatim,
                    skip_auto_headers=("Content-Type",) if verbatim else None,
                )
            except aiohttp.ConnectionTimeoutError as error:
                raise UpstreamTimeout(
                    "the model server did not accept a connection in time"
                ) from error
            except TimeoutError as error:
                raise UpstreamTimeout("the model server did not answer in time") from error
            except (aiohttp.ClientError, OSError) as error:
                if last:
                    raise UpstreamUnavailable(
                        f"the model server can't be reached ({type(error).__name__})"
                    ) from error
                if isinstance(error, aiohttp.ServerDisconnectedError):
                    continue  # a kept-alive connection that the server had closed: at once
            else:
                if last or verbatim or answer.status not in RETRY_STATUS:
                    return answer
                if seconds_of(answer.headers.get("Retry-After")) not in (None, 0.0):
                    return answer  # it said when to come back: the client's decision
                answer.release()
            await asyncio.sleep(RETRY_PAUSE)
        raise AssertionError("unreachable")

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base_url + path)
        return url
