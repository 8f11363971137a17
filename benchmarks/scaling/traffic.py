"""Requests that are sent while something is measured."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from app.exceptions import ConfigurationError
from benchmarks.scaling.model import MODEL
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client

CLIENTS = 6
RULES = 200
NAMESPACE = f"rules-{RULES}"
"""As `benchmarks.serving.latency.load_rules` names it."""
NUMBERS = itertools.count(1)
"""Of questions: no two are the same, so that none is answered from a cache."""


def ask(
    port: int,
    requests: int,
    *,
    mode: str = "steer",
    stream: int = 0,
    pause: float | None = None,
    learn: bool = False,
    namespace: str = NAMESPACE,
) -> None:
    """Requests of `CLIENTS` clients, every question new. `stream`: pieces of a streamed answer;
    `pause`: seconds between them."""
    left = itertools.count()
    failures: list[BaseException] = []

    def client() -> None:
        connection = Client(port)
        try:
            while next(left) < requests:
                _one(connection)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    def _one(connection: Client) -> None:
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": question(next(NUMBERS))}],
            "max_tokens": stream or 100,
        }
        if stream:
            body["stream"] = True
        if pause is not None:
            body["pause"] = pause
        if not learn and mode != "off":
            body["ttcl"] = {"learn": False}
        headers = {"X-TTCL-Mode": mode, "X-TTCL-Namespace": namespace}
        status, _, content = connection.send("POST", "/v1/chat/completions", body, headers)
        if status != 200:
            raise ConfigurationError(f"a request was answered with {status}: {content[:200]!r}")

    threads = [threading.Thread(target=client) for _ in range(min(CLIENTS, requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
