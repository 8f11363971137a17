"""Asking one kind of server, one question after the other or by several clients at once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from app.exceptions import ConfigurationError
from benchmarks.model_server import Instant
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    client: Client
    headers: dict[str, str]


def ask(kind: Kind, text: str) -> tuple[float, int]:
    """Milliseconds of a whole answer, and how many rules were injected. Raises
    `ConfigurationError`."""
    body = {"model": Instant.model, "messages": [{"role": "user", "content": text}]}
    started = time.perf_counter()
    status, headers, content = kind.client.send("POST", "/v1/chat/completions", body, kind.headers)
    took = (time.perf_counter() - started) * 1000
    if status != 200:
        raise ConfigurationError(f"{kind.name} was answered with {status}: {content[:200]!r}")
    return took, len([name for name in headers.get("x-ttcl-rules", "").split(",") if name.strip()])


def pressure(kind: Kind, clients: int, seconds: float, *, start: int) -> float:
    """Requests a second of `clients`, each with one connection; question numbers from `start`."""
    answered = [0] * clients
    failures: list[BaseException] = []
    deadline = time.monotonic() + seconds

    def run(index: int) -> None:
        own = Kind(kind.name, kind.client.sibling(), kind.headers)
        try:
            while time.monotonic() < deadline:
                ask(own, question(start + index + clients * answered[index]))
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
