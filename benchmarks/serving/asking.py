"""Asking one kind of server, one question after the other or by several clients at once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

from app.exceptions import ConfigurationError
from benchmarks.model_server import Instant
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    client: Client
    headers: dict[str, str]


class Asked(NamedTuple):
    milliseconds: float
    """Of the whole answer."""
    rules: int
    """Injected, as with `examples`."""
    examples: int


def ask(kind: Kind, text: str) -> Asked:
    """Raises `ConfigurationError`."""
    body = {"model": Instant.model, "messages": [{"role": "user", "content": text}]}
    started = time.perf_counter()
    status, headers, content = kind.client.send("POST", "/v1/chat/completions", body, kind.headers)
    took = (time.perf_counter() - started) * 1000
    if status != 200:
        raise ConfigurationError(f"{kind.name} was answered with {status}: {content[:200]!r}")
    rules, examples = (
        sum(bool(id.strip()) for id in headers.get(name, "").split(","))
        for name in ("x-ttcl-rules", "x-ttcl-examples")
    )
    return Asked(took, rules, examples)


def pressure(
    kind: Kind, clients: int, seconds: float, *, start: int, among: int | None = None
) -> float:
    """Requests a second of `clients`, each with one connection; question numbers from `start`, with
    `among` so many that come again and again."""
    answered = [0] * clients
    failures: list[BaseException] = []
    deadline = time.monotonic() + seconds

    def run(index: int) -> None:
        own = Kind(kind.name, kind.client.sibling(), kind.headers)
        try:
            while time.monotonic() < deadline:
                place = index + clients * answered[index]
                ask(own, question(start + (place if among is None else place % among)))
                answered[index] += 1
        except Exception as error:
            failures.append(error)
        finally:
            own.client.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(answered) / seconds
