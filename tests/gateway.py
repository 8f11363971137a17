"""The gateway as its users meet it: a real port, real HTTP, the official client."""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import orjson

from tests.fakes import HashEmbedder, ScriptedUpstream
from tests.live import LiveServer

CLIENT_KEY = "client-key"
ADMIN_KEY = "admin-key"
MODEL = "scripted-model"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares each client the reading of the certificate store, which takes longer than a request."""
PATIENCE = 180
"""Seconds that a client waits; a real model on a busy machine may need most of them."""
SETTLED = ("learned", "skipped", "failed")


@dataclass
class Gateway:
    """One running gateway. The admin helpers block; they are for arranging and checking."""

    url: str
    app: Any = None
    embedder: HashEmbedder | None = None

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {CLIENT_KEY}"}

    def client(self, **options: Any) -> openai.AsyncOpenAI:
        given = {"base_url": self.base_url, "api_key": CLIENT_KEY, "max_retries": 0, **options}
        given["http_client"] = openai.DefaultAsyncHttpxClient(verify=NO_TLS)
        return openai.AsyncOpenAI(**given)

    def anthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        """Anthropic's own client, which adds the paths' `/v1` itself."""
        given = {"base_url": self.url, "api_key": CLIENT_KEY, "max_retries": 0, **options}
        given["http_client"] = anthropic.DefaultAsyncHttpxClient(verify=NO_TLS)
        return anthropic.AsyncAnthropic(**given)

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        """A chat request as raw HTTP; `headers` are spelt with underscores."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        async with httpx.AsyncClient(timeout=PATIENCE, verify=NO_TLS) as http:
            return await http.post(
                f"{self.base_url}/chat/completions",
                content=content,
                headers={**self.headers, "Content-Type": "application/json", **_spelt(headers)},
            )

    @asynccontextmanager
    async def open_stream(self, body: dict[str, Any], **headers: str) -> AsyncIterator[SSE]:
        """A streamed chat request; leaving the block closes the connection."""
        async with (
            httpx.AsyncClient(timeout=PATIENCE, verify=NO_TLS) as http,
            http.stream(
                "POST",
                f"{self.base_url}/chat/completions",
                json={**body, "stream": True},
                headers={**self.headers, **_spelt(headers)},
            ) as response,
        ):
            yield SSE(response)

    async def sse(self, body: dict[str, Any], **headers: str) -> SSE:
        """A whole streamed answer."""
        async with self.open_stream(body, **headers) as stream:
            await stream.read()
            return stream

    async def sse_or_error(self, body: dict[str, Any], **headers: str) -> SSE:
        """A streamed request that should fail: by a status, or by an error frame."""
        async with self.open_stream(body, **headers) as stream:
            if stream.status == 200:
                await stream.read()
            else:
                await stream.response.aread()
            return stream

    def admin(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        url = f"{self.url}/admin/v1{path}"
        return httpx.request(
            method, url, headers=headers, timeout=PATIENCE, verify=NO_TLS, **options
        )

    def add_rule(
        self, namespace: str, text: str, trigger: str, polarity: str = "positive"
    ) -> dict[str, Any]:
        body = {
            "namespace": namespace,
            "polarity": polarity,
            "text": text,
            "trigger": trigger,
            "state": "active",
            "actor": "tests",
            "reason": "arranged by a test",
        }
        response = self.admin("POST", "/rules", json=body)
        assert response.status_code in (200, 201), response.text
        return dict(response.json())

    def rules(self, namespace: str) -> list[dict[str, Any]]:
        """All rules of a namespace; none when it does not exist."""
        found: list[dict[str, Any]] = []
        params = {"namespace": namespace, "limit": "100"}
        while True:
            response = self.admin("GET", "/rules", params=params)
            if response.status_code == 404:
                return found
            assert response.status_code == 200, response.text
            page = response.json()
            found += page["data"]
            if not page.get("next_cursor"):
                assert page["total"] == len(found)
                return found
            params["cursor"] = page["next_cursor"]

    def episode(self, episode_id: str) -> dict[str, Any] | None:
        response = self.admin("GET", f"/episodes/{episode_id}")
        if response.status_code == 404:
            return None
        assert response.status_code == 200, response.text
        return dict(response.json())

    def settled(self, episode_id: str, within: float = 10.0) -> dict[str, Any]:
        """The episode once its learning is over."""
        deadline = time.monotonic() + within
        while True:
            episode = self.episode(episode_id)
            if episode is not None and episode["status"] in SETTLED:
                return episode
            assert time.monotonic() < deadline, f"still {episode and episode['status']}"
            time.sleep(0.02)


@dataclass
class SSE:
    """A streamed answer, read frame by frame with the times of arrival."""

    response: httpx.Response
    raw: bytes = b""
    comments: list[tuple[float, str]] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    done: int = 0
    after_done: list[str] = field(default_factory=list)
    _events: AsyncIterator[str] | None = None

    @property
    def status(self) -> int:
        return self.response.status_code

    async def read(self) -> None:
        """To the end of the stream."""
        async for _ in self.events():
            pass

    async def events(self) -> AsyncIterator[str]:
        """Kind of each event as it comes: comment, frame or done."""
        if self._events is None:
            self._events = self._parse()
        async for kind in self._events:
            yield kind

    async def _parse(self) -> AsyncIterator[str]:
        pending = b""
        async for piece in self.response.aiter_bytes():
            self.raw += piece
            pending += piece
            while True:
                # A comment is a line of its own, wherever it stands.
                end = b"\n" if pending.startswith(b":") else b"\n\n"
                event, found, rest = pending.partition(end)
                if not found:
                    break
                pending = rest.removeprefix(b"\n") if end == b"\n" else rest
                yield self._note(event.decode())
        if pending.strip():
            yield self._note(pending.decode())

    def _note(self, event: str) -> str:
        if event.startswith(":"):
            self.comments.append((time.monotonic(), event))
            return "comment"
        if self.done:
            self.after_done.append(event)
        assert event.startswith("data:"), event
        data = event.removeprefix("data:").strip()
        if data == "[DONE]":
            self.done += 1
            return "done"
        self.frames.append(orjson.loads(data))
        self.times.append(time.monotonic())
        return "frame"

    def choices(self, index: int = 0) -> list[dict[str, Any]]:
        """The parts of one choice in order."""
        return [c for f in self.frames for c in f.get("choices", []) if c["index"] == index]

    def text(self, index: int = 0) -> str:
        return "".join(c["delta"].get("content") or "" for c in self.choices(index))

    def finishes(self, index: int = 0) -> list[str]:
        reasons = [c.get("finish_reason") for c in self.choices(index)]
        return [reason for reason in reasons if reason is not None]

    @property
    def envelope(self) -> dict[str, Any]:
        """The error, whichever way it came."""
        if self.status != 200:
            return dict(self.response.json())
        assert len(self.errors()) == self.done == 1, self.raw
        return {"error": self.errors()[0]}

    def errors(self) -> list[dict[str, Any]]:
        return [f["error"] for f in self.frames if "error" in f]


def _spelt(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def running_gateway(upstream: ScriptedUpstream, **settings: Any) -> Iterator[Gateway]:
    """A gateway before `upstream`, with keys, on SQLite in a folder that goes away with it.

    `settings` are fields of `app.settings.Settings`; `embedder` may be among them.
    """
    from app.main import create_app
    from app.settings import Settings

    embedder = settings.pop("embedder", None) or HashEmbedder()
    with tempfile.TemporaryDirectory(prefix="ttcl-test-") as folder:
        given = {
            "upstream_base_url": upstream.base_url,
            "data_dir": Path(folder),
            "api_keys": (CLIENT_KEY,),
            "admin_api_key": ADMIN_KEY,
            "students": 3,
            # Rules that steer at once; what must prove itself first has tests of its own.
            "policy": "paper",
            # Every request is learned from, not the share that is explored as shipped.
            "learn_sample_rate": 1.0,
            "log_level": "ERROR",
            **settings,
        }
        app = create_app(Settings(_env_file=None, **given), embedder=embedder)
        server = LiveServer(app, lifespan="on")
        server.start()
        try:
            yield Gateway(server.url, app, embedder)
        finally:
            server.stop()
