"""How a request reaches the model server: connections, one retry, and what failed in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from http.cookiejar import CookieJar
from types import MappingProxyType
from typing import Any

import httpx

from app.exceptions import UpstreamTimeout, UpstreamUnavailable
from app.settings import is_loopback
from app.upstream.wire import retry_after

RETRY_STATUS = {502, 503, 504}
RETRY_PAUSE = 0.2
forwarded_headers: ContextVar[Mapping[str, str]] = ContextVar(
    "forwarded", default=MappingProxyType({})
)
"""Sent with every upstream call that is made for one request, its id among them."""


class _NoCookies(CookieJar):
    """Many clients share this connection: one's session cookie is not another's."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass

    def add_cookie_header(self, request: Any) -> None:
        pass


class Transport:
    """`base_url` ends in /v1; times are in seconds. `availability`: see `app.upstream.client`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout: float,
        connect_timeout: float,
        availability: Callable[[], str | None],
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._base_url = base_url
        self._urls: dict[str, httpx.URL] = {}
        self._http = httpx.AsyncClient(
            headers=headers,
            cookies=_NoCookies(),
            timeout=httpx.Timeout(timeout, connect=connect_timeout, pool=connect_timeout),
            # A proxy of the environment must not stand before a server on this machine.
            trust_env=not is_loopback(httpx.URL(base_url).host),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        )
        self._availability = availability
        self.drops_connections = False
        """Whether a kept-alive connection may be gone after a stream, without a word."""

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, url: str, body: dict[str, Any], seconds: float) -> httpx.Response:
        """One plain call, not retried. Raises `httpx.HTTPError`."""
        return await self._http.post(url, json=body, timeout=seconds)

    def _url(self, path: str) -> httpx.URL:
        # Parsed once: it takes longer than most of what else is done for a request.
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(self._base_url + path)
        return url

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        stream: bool,
        seconds: float | None = None,
    ) -> httpx.Response:
        """The answer, whatever its status; its body unread with `stream`. Retried once, while
        nothing has been answered. Raises `UpstreamUnavailable`, `UpstreamTimeout`."""
        extra: dict[str, Any] = {} if seconds is None else {"timeout": seconds}
        sent = dict(forwarded_headers.get())
        if body is not None:
            sent["Content-Type"] = "application/json"
        if stream and self.drops_connections:
            sent["Connection"] = "close"
        for last in (False, True):
            down = self._availability()
            if down is not None:
                raise UpstreamUnavailable(down, status=503, retry_after=2)
            request = self._http.build_request(
                method, self._url(path), content=body, headers=sent, **extra
            )
            try:
                response = await self._http.send(request, stream=stream)
            except httpx.TimeoutException as error:
                if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
                    raise UpstreamTimeout(
                        "the model server did not accept a connection in time"
                    ) from error
                raise UpstreamTimeout("the model server did not answer in time") from error
            except httpx.HTTPError as error:
                if isinstance(error, httpx.RemoteProtocolError) and not last:
                    continue  # a kept-alive connection that the server had closed: at once
                if last:
                    raise UpstreamUnavailable(
                        f"the model server can't be reached ({type(error).__name__})"
                    ) from error
            else:
                if last or response.status_code not in RETRY_STATUS:
                    return response
                if retry_after(response) not in (None, 0.0):
                    return response  # it said when to come back: the client's decision
                await response.aclose()
            await asyncio.sleep(RETRY_PAUSE)
        raise AssertionError("unreachable")
