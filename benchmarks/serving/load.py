"""Many streams at once for a long time: does anything fail, and does memory stay flat?

    python -m benchmarks.serving.load --streams 500 --seconds 300 --out load.json

A scripted model server sends an answer of 20 pieces over some ten seconds; `streams` clients, in a
process of their own, ask one question after the other in steer mode. Every answer is read to its
end and checked: all its pieces in their order, one `[DONE]`. The gateway's memory, its requests
under way and what it skipped are looked at every ten seconds.

Not covered: slow readers, and clients on other machines.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.model_server import Instant
from benchmarks.serving.contents import Contents, write
from benchmarks.serving.material import question
from benchmarks.serving.processes import Client, gateway, memory, scripted_upstream

LOOK = 10.0
"""Seconds between looks at the gateway."""
CONTENTS = Contents(100)
out = Console(highlight=False, width=max(100, Console().width))


@dataclass
class Seen:
    """What the clients have seen."""

    answers: int = 0
    refused: int = 0
    """503 with Retry-After."""
    wrong: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    """Seconds to the first piece."""


def main(
    streams: Annotated[int, typer.Option(min=1, help="Clients at once")] = 500,
    seconds: Annotated[float, typer.Option(min=1, help="How long")] = 300.0,
    answer: Annotated[float, typer.Option(min=0.1, help="Seconds of an answer")] = 10.0,
    learn: Annotated[bool, typer.Option(help="Learn in the background meanwhile")] = True,
    database: Annotated[
        str | None, typer.Option(help="postgresql:// URL of an empty database; unset: SQLite")
    ] = None,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Hold many streams open at a gateway."""
    more = {} if database is None else {"DATABASE_URL": database}
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted_upstream("--pause", f"{answer / len(Instant.pieces):.4f}") as upstream_port,
        gateway(upstream_port, Path(folder), LEARN=str(learn).lower(), **more) as (port, pid),
    ):
        write(port, CONTENTS)
        seen = Seen()
        looks = asyncio.run(_run(port, pid, streams, seconds, answer, seen))
        report = _report(streams, seconds, seen, looks, port)
    _show(report)
    if result is not None:
        result.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


async def _run(
    port: int, pid: int, streams: int, seconds: float, answer: float, seen: Seen
) -> list[dict[str, float]]:
    deadline = time.monotonic() + seconds
    looks: list[dict[str, float]] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        clients = [
            asyncio.create_task(
                _client(session, port, number, streams, answer * number / streams, deadline, seen)
            )
            for number in range(streams)
        ]
        with Progress(console=out, transient=True) as progress:
            bar = progress.add_task("streaming", total=seconds)
            while (left := deadline - time.monotonic()) > 0:
                await asyncio.sleep(min(LOOK, left))
                looks.append({"at": seconds - left, **memory(pid), "answers": seen.answers})
                progress.update(bar, completed=seconds - left, description=f"{seen.answers}")
        await asyncio.gather(*clients)
    return looks


async def _client(
    session: aiohttp.ClientSession,
    port: int,
    number: int,
    streams: int,
    begin: float,
    deadline: float,
    seen: Seen,
) -> None:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = CONTENTS.headers
    # Not all in the same instant.
    await asyncio.sleep(begin)
    asked = 0
    while time.monotonic() < deadline:
        text = question(number + streams * asked)
        asked += 1
        body = {
            "model": Instant.model,
            "stream": True,
            "messages": [{"role": "user", "content": text}],
        }
        try:
            await _stream(session, url, headers, body, seen)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            seen.wrong[type(error).__name__] += 1


async def _stream(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    body: dict[str, Any],
    seen: Seen,
) -> None:
    begun = time.monotonic()
    async with session.post(url, json=body, headers=headers) as response:
        if response.status == 503 and "Retry-After" in response.headers:
            seen.refused += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))
            return
        if response.status != 200:
            seen.wrong[f"status {response.status}"] += 1
            return
        pieces: list[str] = []
        done = 0
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                done += 1
                continue
            frame = orjson.loads(data)
            if "error" in frame:
                seen.wrong["error event"] += 1
            for choice in frame.get("choices", []):
                if text := choice["delta"].get("content"):
                    if not pieces:
                        seen.first.append(time.monotonic() - begun)
                    pieces.append(text)
    if pieces == list(Instant.pieces) and done == 1:
        seen.answers += 1
    else:
        seen.wrong["not the whole answer"] += 1


def _report(
    streams: int, seconds: float, seen: Seen, looks: list[dict[str, float]], port: int
) -> dict[str, Any]:
    _, _, content = Client(port).send("GET", "/metrics")
    skipped = [
        line.split(" ")
        for line in content.decode().splitlines()
        if line.startswith(("ttcl_learning_skipped_total{", "ttcl_degraded_total{"))
    ]
    resident = [look["resident"] for look in looks]
    third = max(1, len(resident) // 3)
    first = sorted(seen.first) or [0.0]
    return {
        "streams": streams,
        "seconds": seconds,
        "answers": seen.answers,
        "answers_per_second": seen.answers / seconds,
        "refused": seen.refused,
        "wrong": dict(seen.wrong),
        "first_piece_seconds": {
            "median": statistics.median(first),
            "p99": first[int(0.99 * (len(first) - 1))],
        },
        "memory_mib": {
            "middle_third": statistics.mean(resident[third : 2 * third] or resident),
            "last_third": statistics.mean(resident[-third:]),
            "peak": max(look["peak"] for look in looks),
        },
        "skipped": {name: float(value) for name, value in skipped},
        "looks": looks,
    }


def _show(report: dict[str, Any]) -> None:
    table = Table("what", "value")
    table.add_row("streams at once", str(report["streams"]))
    table.add_row("whole answers", f"{report['answers']} ({report['answers_per_second']:.0f}/s)")
    table.add_row("refused with Retry-After", str(report["refused"]))
    table.add_row("wrong", str(report["wrong"] or "none"))
    first = report["first_piece_seconds"]
    table.add_row("first piece, s", f"median {first['median']:.2f}, p99 {first['p99']:.2f}")
    used = report["memory_mib"]
    table.add_row(
        "gateway memory, MiB",
        f"{used['middle_third']:.0f} in the middle third, {used['last_third']:.0f} in the last",
    )
    for name, value in report["skipped"].items():
        table.add_row(name, f"{value:.0f}")
    out.print(table)


if __name__ == "__main__":
    typer.run(main)
