"""Floods a gateway with one client's hostile requests, and measures what another one notices.

python -m benchmarks.safety.hostile --seconds 15 --out hostile.json

One kind of request after the other, each for some seconds, from a process of its own with a key
that may chat (and give labels, where that is the flood). Meanwhile another tenant asks, and
`/healthz` is asked: its longest answer is how long the gateway answered nobody.
"""

from __future__ import annotations

import contextlib
import gzip
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import orjson
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.model_server import Instant
from benchmarks.serving.processes import ADMIN_KEY, gateway, scripted_upstream

VICTIM, FLOOD = "victim", "flood"
QUESTION = "How many apples are left when three of nine apples were eaten?"
RULE = "Subtract what was eaten from what there was before."
LARGE = 19_000_000
"""Bytes, just below the default limit of a body."""
PARALLEL = 6
HELD = 10.0
"""Seconds for which streams that nobody reads are held."""


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    model: str
    key: str

    def chat(self, content: Any, **more: Any) -> bytes:
        message = {"role": "user", "content": content}
        return orjson.dumps({"model": self.model, "messages": [message], **more})

    def post(self, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> int:
        """Status; 0 where there was none."""
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        try:
            answer = httpx.post(
                f"{self.url}{path}", content=body, headers={**sent, **headers}, timeout=60
            )
        except httpx.HTTPError:
            return 0
        return answer.status_code

    @contextlib.contextmanager
    def connection(self, head: str, length: int, *, keyless: bool = False) -> Iterator[Any]:
        """A POST of which the body is still to be sent."""
        address = httpx.URL(self.url)
        key = "" if keyless else f"Authorization: Bearer {self.key}\r\n"
        with socket.create_connection((address.host, address.port or 80), timeout=60) as opened:
            opened.sendall(
                f"POST {head} HTTP/1.1\r\nHost: {address.host}\r\n{key}"
                f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()
            )
            yield opened


def _spaces(target: Target) -> None:
    target.post(target.chat("What is 40 and 2? <" + " " * 400_000 + "x"))


def _large_question(target: Target) -> None:
    target.post(target.chat("word " * (LARGE // 5)))


def _escapes(target: Target) -> None:
    target.post(target.chat("\n" * (LARGE // 2)))


def _parts(target: Target) -> None:
    part = b'{"type":"text","text":"x"}'
    body = b",".join([part] * (LARGE // (len(part) + 1)))
    target.post(
        b'{"model":"%s","messages":[{"role":"user","content":[%s]}]}'
        % (target.model.encode(), body)
    )


def _most_parts(target: Target) -> None:
    """As many as are taken."""
    target.post(target.chat([{"type": "text", "text": "x" * 500}] * 30_000))


def _bombs(target: Target) -> None:
    target.post(b"[" * 1_000_000)
    target.post(b'{"a":' + b"9" * 10_000_000 + b"}")
    target.post(gzip.compress(b" " * LARGE), **{"Content-Encoding": "gzip"})


def _keyless(target: Target) -> None:
    nobody = Target(target.url, target.model, "none")
    for path in ("/v1/feedback", "/v1/feedback:batch", "/admin/v1/rules", "/v1/embeddings"):
        nobody.post(b'{"a":"' + b"x" * LARGE + b'"}', path)


def _feedback(target: Target) -> None:
    target.post(b'{"episode_id":"x","comment":"' + b"x" * LARGE + b'"}', "/v1/feedback")


def _slow_bodies(target: Target) -> None:
    with contextlib.ExitStack() as opened:
        for number in range(100):
            with contextlib.suppress(OSError):
                head = ("/v1/chat/completions", "/v1/feedback")[number % 2]
                opened.enter_context(target.connection(head, LARGE, keyless=number % 4 < 2))
        time.sleep(1)


def _unread_streams(target: Target) -> None:
    body = target.chat("tell me all", stream=True)
    with contextlib.ExitStack() as opened:
        for _ in range(50):
            with contextlib.suppress(OSError):
                held = opened.enter_context(target.connection("/v1/chat/completions", len(body)))
                held.sendall(body)
        time.sleep(HELD)


def _questions(target: Target) -> None:
    """What anybody may send, without a pause."""
    target.post(target.chat(f"{time.monotonic_ns()} apples?"))


def _labels(target: Target) -> None:
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key}"}
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.post(
            f"{target.url}/v1/chat/completions", content=target.chat("2^x?"), headers=sent
        )
        label = f"9^{{9^{{9^{{{time.monotonic_ns() % 10**6}}}}}}}"
        said = {"episode_id": answer.headers.get("X-TTCL-Episode", ""), "label": label}
        target.post(orjson.dumps(said), "/v1/feedback")


def _explorations(target: Target) -> None:
    target.post(target.chat(f"{time.monotonic_ns()} apples?", ttcl={"mode": "explore"}))


def _capabilities(target: Target) -> None:
    for odd in ({"logprobs": True, "top_logprobs": 9999}, {"priority": "high"}):
        target.post(target.chat("odd", ttcl={"mode": "explore"}, **odd))


FLOODS: dict[str, Callable[[Target], None]] = {
    "400,000 spaces in a question": _spaces,
    "question of 19 MB": _large_question,
    "question of 9.5 million line ends": _escapes,
    "700,000 content parts": _parts,
    "as many parts as are taken": _most_parts,
    "bombs: depth, number, gzip": _bombs,
    "19 MB without a key": _keyless,
    "feedback of 19 MB": _feedback,
    "slow bodies, with and without a key": _slow_bodies,
    "unread streams": _unread_streams,
    "labels that no worker can evaluate": _labels,
    "questions without a pause": _questions,
    "explorations": _explorations,
    "fields that turn capabilities off": _capabilities,
}


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the other tenant and `/healthz` saw; times in milliseconds."""

    requests: int
    failed: int
    unsteered: int
    median: float
    p99: float
    blocked: float


class Watch:
    """Asks as the other tenant, and for `/healthz`, until the block is left."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._until = threading.Event()
        self._times: list[float] = []
        self._health: list[float] = []
        self._failed = self._unsteered = 0
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._look)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._until.set()
        for thread in self._threads:
            thread.join()

    def noticed(self) -> Noticed:
        times = sorted(self._times) or [0.0]
        return Noticed(
            requests=len(self._times),
            failed=self._failed,
            unsteered=self._unsteered,
            median=round(1000 * statistics.median(times), 1),
            p99=round(1000 * times[min(len(times) - 1, int(0.99 * len(times)))], 1),
            blocked=round(1000 * max(self._health, default=0.0), 1),
        )

    def _ask(self) -> None:
        body = self._target.chat(QUESTION)
        headers = {"Authorization": f"Bearer {self._target.key}"}
        with httpx.Client(base_url=self._target.url, headers=headers, timeout=60) as client:
            while not self._until.wait(0.03):
                began = time.perf_counter()
                try:
                    answer = client.post("/v1/chat/completions", content=body)
                except httpx.HTTPError:
                    self._failed += 1
                    continue
                self._times.append(time.perf_counter() - began)
                self._failed += answer.status_code != 200
                self._unsteered += answer.status_code == 200 and not answer.headers["X-TTCL-Rules"]

    def _look(self) -> None:
        with httpx.Client(base_url=self._target.url, timeout=60) as client:
            while not self._until.wait(0.02):
                began = time.perf_counter()
                with contextlib.suppress(httpx.HTTPError):
                    client.get("/healthz")
                self._health.append(time.perf_counter() - began)


def prepared(url: str, model: str, admin_key: str) -> tuple[Target, Target]:
    """Keys of both tenants, and the rule that steers the other one."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    with httpx.Client(base_url=f"{url}/admin/v1", headers=headers, timeout=60) as admin:
        secrets = []
        for name in (VICTIM, FLOOD):
            key = {"name": name, "namespaces": [name], "permissions": ["chat", "learn"]}
            secrets.append(admin.post("/keys", json=key).raise_for_status().json()["secret"])
        rule = {"namespace": VICTIM, "polarity": "positive", "text": RULE, "trigger": QUESTION}
        admin.post("/rules", json={**rule, "state": "active"}).raise_for_status()
    return Target(url, model, secrets[0]), Target(url, model, secrets[1])


def flooded(victim: Target, flood: Target, name: str | None, seconds: float) -> Noticed:
    """What is noticed while this flood goes on; None: while nothing does."""
    context = multiprocessing.get_context("spawn")
    work = [
        context.Process(target=_flood, args=(flood, name, seconds), daemon=True)
        for _ in range(1 if name else 0)
    ]
    with Watch(victim) as watch:
        for process in work:
            process.start()
        time.sleep(seconds)
        for process in work:
            process.join(60)
    return watch.noticed()


def _flood(target: Target, name: str, seconds: float) -> None:
    """Runs in a process of its own, behind the others: what it takes to make a flood is not what is
    measured."""
    os.nice(10)
    end = time.monotonic() + seconds

    def again() -> None:
        while time.monotonic() < end:
            FLOODS[name](target)

    threads = [threading.Thread(target=again, daemon=True) for _ in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Of each flood")] = 15.0,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON")] = None,
) -> None:
    """What one client's hostile requests cost another one."""
    console = Console(width=110)
    table = Table("flood", "asked", "failed", "unsteered", "median ms", "p99 ms", "blocked ms")
    figures: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ttcl-hostile-") as folder,
        scripted_upstream() as upstream_port,
        # With the packaged embedder: it is one of the things that are shared.
        gateway(upstream_port, Path(folder), POLICY="paper", LOG_LEVEL="WARNING") as (port, _),
    ):
        victim, flood = prepared(f"http://127.0.0.1:{port}", Instant.model, ADMIN_KEY)
        for name in (None, *FLOODS, None):
            noticed = flooded(victim, flood, name, seconds)
            told = name or ("quiet" if not figures else "quiet again")
            figures[told] = asdict(noticed)
            table.add_row(told, *(str(value) for value in figures[told].values()))
            console.print(told, noticed)
    console.print(table)
    if out is not None:
        out.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    typer.run(main)
