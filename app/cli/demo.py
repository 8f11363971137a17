"""A stream of support tickets against a running gateway, with experience and without in turns.

Every answer gets its label, as a client would give it. What the gateway made of the labels of
earlier tickets is asked for on every second ticket only, so that both halves are seen side by side;
beside them runs the bar without any model: the label of the nearest earlier ticket.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from app.cli.accuracy_chart import Curve, chart
from app.cli.common import err, print_lines, shortened
from app.cli.demo_client import POLL, WITHOUT_EXPERIENCE, Answer, DemoClient, with_client
from app.exceptions import ConfigurationError
from app.settings import Settings, load_settings
from app.upstream.embeddings import CachedEmbedder, Vectors
from app.wiring.factories import build_embedder

app = typer.Typer(add_completion=False)

TICKETS = Path(__file__).parent / "tickets.jsonl"
"""Sixty tickets to the desk of an outdoor shop, of eight intents; written for this demo."""


OF_YOURS = "Please cancel the kettle that I ordered."
"""None of the tickets; what `--ask` is shown with."""


@dataclass(frozen=True, slots=True)
class Ticket:
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Played:
    """One ticket of the stream and how it went."""

    ticket: Ticket
    with_experience: bool
    answer: Answer
    right: bool
    neighbour_right: bool
    """Whether the nearest earlier ticket has the same label."""


async def play(
    client: DemoClient, tickets: Sequence[Ticket], vectors: Vectors
) -> AsyncIterator[Played]:
    """The stream, one ticket after the other: the first without experience, the second with.
    `vectors`: unit vectors of the tickets, shape (n, dimension)."""
    labels = labels_of(tickets)
    for place, ticket in enumerate(tickets):
        with_experience = place % 2 == 1
        answer = await client.ask(asked(ticket.text, labels), with_experience=with_experience)
        await client.tell(answer.episode, ticket.label)
        nearest = int(np.argmax(vectors[:place] @ vectors[place])) if place else None
        yield Played(
            ticket,
            with_experience,
            answer,
            right=named(answer.text, labels) == ticket.label,
            neighbour_right=nearest is not None and tickets[nearest].label == ticket.label,
        )


def labels_of(tickets: Sequence[Ticket]) -> list[str]:
    return sorted({ticket.label for ticket in tickets})


def asked(text: str, labels: Sequence[str]) -> list[dict[str, str]]:
    """The conversation that asks for a ticket's label."""
    system = (
        "Sort the customer's message. Answer with one of these labels and nothing else: "
        f"{', '.join(labels)}."
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def named(answer: str, labels: Sequence[str]) -> str | None:
    """The label that an answer names, whatever stands around it; None for none or several."""
    plain = re.sub(r"[\s_-]+", "_", answer.lower())
    found = [label for label in labels if re.sub(r"[\s_-]+", "_", label.lower()) in plain]
    return found[0] if len(found) == 1 else None


async def embedded(embedder: CachedEmbedder, tickets: Sequence[Ticket]) -> Vectors:
    """Unit vectors, shape (n, dimension). Raises `ConfigurationError`."""
    embedder.start()
    try:
        while not embedder.ready:
            if embedder.failure is not None:
                raise ConfigurationError(embedder.failure)
            await asyncio.sleep(POLL)
        return await embedder.embed([ticket.text for ticket in tickets])
    finally:
        await embedder.close()


def read_tickets(path: Path, limit: int | None) -> list[Ticket]:
    """The first `limit` lines of a JSONL file. Raises `ConfigurationError`."""
    try:
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        tickets = [_ticket(json.loads(row)) for row in rows[:limit]]
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} must be JSONL with a `ticket` and its `label`, both texts, on every line"
        ) from error
    if len(labels_of(tickets)) < 2:
        raise ConfigurationError(f"{path} needs tickets of at least two labels")
    return tickets


def _ticket(row: dict[str, Any]) -> Ticket:
    text, label = row["ticket"], row["label"]
    if not (isinstance(text, str) and text.strip() and isinstance(label, str) and label.strip()):
        raise TypeError
    return Ticket(text, label.strip())


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="JSONL with a `ticket` and its `label` a line; unset: our own sixty"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A running gateway; unset: one is started for the demo")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Most tickets")] = None,
    ask: Annotated[
        str | None, typer.Option(help="A ticket of your own, in the --namespace of a demo")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Of an earlier demo; for --ask")] = None,
) -> None:
    """Play a stream of tickets, every second one with experience, and draw the accuracy."""
    if (ask is None) != (namespace is None):
        raise ConfigurationError("--ask and --namespace are given together")
    if url is not None:
        _check_answers(url)
    tickets = read_tickets(data or TICKETS, limit)
    settings = load_settings()
    with contextlib.ExitStack() as stack:
        ended = _still_running
        if (where := url) is None:
            where, ended = stack.enter_context(_own_gateway(settings))
        if ask is not None and namespace is not None:
            labels = labels_of(tickets)
            ask_one = functools.partial(_ask_one, text=ask, labels=labels, ended=ended)
            asyncio.run(with_client(settings, where, namespace, ask_one))
            return
        namespace = f"demo-{int(time.time())}"
        stream = functools.partial(_play, tickets=tickets, settings=settings, ended=ended)
        played = asyncio.run(with_client(settings, where, namespace, stream))
    print_lines("", *chart(_curves(played)), "", *_what_next(namespace, data, url))


def _check_answers(url: str) -> None:
    """Raises `ConfigurationError` where no gateway answers."""
    try:
        found = httpx.get(f"{url}/healthz", timeout=10, trust_env=False).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL):
        found = False
    if not found:
        raise ConfigurationError(f"--url: no gateway answers at {url}; give http://HOST:PORT")


def _still_running() -> str | None:
    """Of a gateway that somebody else looks after."""
    return None


def _tell(reason: str) -> None:
    err.print(f"  {reason}", markup=False)


async def _play(
    client: DemoClient,
    tickets: Sequence[Ticket],
    settings: Settings,
    ended: Callable[[], str | None],
) -> list[Played]:
    err.print("waiting for model and embedder ...")
    await client.ready(300, ended, _tell)
    vectors = await embedded(build_embedder(settings), tickets)
    await client.learn_from_labels_alone()
    print_lines(
        f"{len(tickets)} tickets, {len(labels_of(tickets))} labels. After each answer the service "
        "is told the right",
        "label. Every second ticket is asked with experience, the others without.",
        "",
    )
    started = time.monotonic()
    played: list[Played] = []
    async for one in play(client, tickets, vectors):
        played.append(one)
        print_lines(_line(len(played), one))
    print_lines(f"{time.monotonic() - started:.0f} seconds")
    return played


def _line(number: int, one: Played) -> str:
    """At most 80 characters."""
    side = "with" if one.with_experience else "-"
    verdict = "right" if one.right else "wrong"
    said = shortened(one.answer.text, 20)
    return f"{number:3d} {side:4} {shortened(one.ticket.text, 40):40} {said:20} {verdict}"


def _curves(played: Sequence[Played]) -> list[Curve]:
    return [
        Curve(
            ".",
            "nearest earlier label, no model",
            [one.neighbour_right for one in played],
        ),
        Curve(
            "o",
            "without experience",
            [None if one.with_experience else one.right for one in played],
        ),
        Curve(
            "#", "with experience", [one.right if one.with_experience else None for one in played]
        ),
    ]


def _what_next(namespace: str, data: Path | None, url: str | None) -> list[str]:
    """Three commands."""
    ttcl = shlex.quote(sys.argv[0])
    more = f" --data {shlex.quote(str(data))}" if data else ""
    more += f" --url {url}" if url else ""
    off = " ".join(f"{name}=0" for name in WITHOUT_EXPERIENCE)
    return [
        "Look at what was learned:",
        f"  {ttcl} examples list --namespace {namespace}",
        "Ask it yourself, without and with experience:",
        f"  {ttcl} demo --namespace {namespace}{more} --ask {shlex.quote(OF_YOURS)}",
        "Turn it off:",
        f"  {ttcl} namespaces set {namespace} {off}",
    ]


async def _ask_one(
    client: DemoClient, text: str, labels: Sequence[str], ended: Callable[[], str | None]
) -> None:
    await client.ready(300, ended, _tell)
    for with_experience in (False, True):
        answer = await client.ask(asked(text, labels), with_experience=with_experience)
        side = (
            f"with {answer.examples} examples and {answer.rules} rules"
            if with_experience
            else "without experience"
        )
        print_lines(f"{side}: {shortened(answer.text)}")


@contextlib.contextmanager
def _own_gateway(settings: Settings) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """A gateway in a process of its own, on a free port, under the same settings; and what says why
    it has ended, None while it runs."""
    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)

        def ended() -> str | None:
            if process.poll() is None:
                return None
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            last = said[-1].removeprefix("ttcl: ") if said else "it said nothing"
            return f"the gateway of the demo has ended (code {process.returncode}): {last}"

        try:
            yield f"http://{settings.host}:{port}", ended
        finally:
            process.terminate()
            process.wait(timeout=30)
