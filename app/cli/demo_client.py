"""A client of a running gateway that asks and says what was right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from app.access.admin_key import load_admin_key
from app.engine.supervisor import GIVEN_UP
from app.exceptions import TTCLError
from app.settings import Settings

T = TypeVar("T")

POLL = 0.25
MAX_TOKENS = 24
"""A short answer and some words around it."""
WITHOUT_EXPERIENCE = {"max_positive": 0, "max_negative": 0, "max_examples": 0}


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    episode: str
    rules: int
    """Rules that were in the prompt, as are the next."""
    examples: int


class DemoClient:
    """A client of a running gateway, in a namespace of its own."""

    def __init__(self, url: str, admin_key: str, api_key: str | None, namespace: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, timeout=httpx.Timeout(600, connect=5), trust_env=False
        )
        self._admin = {"Authorization": f"Bearer {admin_key}"}
        self._client = {"Authorization": f"Bearer {api_key or admin_key}"}
        self._namespace = namespace
        self._model = ""

    async def close(self) -> None:
        await self._http.aclose()

    async def ready(
        self,
        within: float,
        ended: Callable[[], str | None] = lambda: None,
        told: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Waits until everything is up. `ended`: why the service has ended, None while it runs;
        `told`: gets what is waited for, each time that changes. Raises `TTCLError`."""
        deadline = time.monotonic() + within
        last = "it does not answer"
        while time.monotonic() < deadline:
            if (end := ended()) is not None:
                raise TTCLError(end)
            try:
                body = (await self._http.get("/readyz")).json()
                if body["status"] == "ready":
                    self._model = str(body["checks"]["upstream"]["models"][0])
                    return
                reasons = _reasons(body)
            except (httpx.HTTPError, ValueError, KeyError):
                reasons = last
            if reasons != last:
                told(reasons)
            if GIVEN_UP in reasons:
                raise TTCLError(reasons)
            last = reasons
            await asyncio.sleep(POLL)
        raise TTCLError(f"the service was not ready within {within:.0f} s: {last}")

    async def learn_from_labels_alone(self) -> None:
        """Makes the namespace, in which nothing is explored: what is learned comes of feedback, and
        a rule steers only once it has proven itself."""
        body = {"name": self._namespace, "settings": {"sample_rate": 0, "policy": "gated"}}
        body |= {"actor": "demo", "reason": "a stream of tickets with labels"}
        await self._post("/admin/v1/namespaces", body, self._admin)

    async def ask(
        self, messages: list[dict[str, str]], *, with_experience: bool, learn: bool = True
    ) -> Answer:
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "ttcl": {
                "mode": "steer",
                "namespace": self._namespace,
                "learn": learn,
                **({} if with_experience else WITHOUT_EXPERIENCE),
            },
        }
        told = await self._post("/v1/chat/completions", body, self._client)
        return Answer(
            text=told["choices"][0]["message"]["content"] or "",
            episode=told["ttcl"]["episode"],
            rules=len(told["ttcl"]["rules"]),
            examples=len(told["ttcl"]["examples"]),
        )

    async def tell(self, episode: str, label: str) -> None:
        """The right answer."""
        await self._post("/v1/feedback", {"episode_id": episode, "label": label}, self._client)

    async def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
        response = await self._http.post(path, headers=headers, json=body)
        if response.status_code not in (200, 201):
            raise TTCLError(response.json()["error"]["message"])
        return response.json()


def _reasons(readiness: dict[str, Any]) -> str:
    """Each check that is not ok, and why."""
    checks = readiness["checks"]
    return "; ".join(
        f"{name}: {checks[name].get('reason', 'not ready')}" for name in readiness["degraded"]
    )


async def with_client(
    settings: Settings, url: str, namespace: str, use: Callable[[DemoClient], Awaitable[T]]
) -> T:
    """What `use` gives with a client of the gateway at `url`."""
    keys = settings.api_keys
    secret = keys[0].get_secret_value() if keys else None
    client = DemoClient(url, load_admin_key(settings), secret, namespace)
    try:
        return await use(client)
    finally:
        await client.close()
