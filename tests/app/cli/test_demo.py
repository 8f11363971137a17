"""The demo against a gateway whose model repeats what the example before the question says."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import demo
from app.cli.accuracy_chart import Curve, chart
from app.cli.demo_client import DemoClient
from app.cli.root import app
from app.exceptions import ConfigurationError, TTCLError
from tests.fakes import HashEmbedder, Reply, ScriptedUpstream
from tests.gateway import ADMIN_KEY, CLIENT_KEY, Gateway, running_gateway


def repeating(body: dict[str, Any]) -> Reply:
    """The last answer in the conversation; without one, small talk."""
    said = [m["content"] for m in body["messages"] if m["role"] == "assistant"]
    return Reply(said[-1] if said else "Thank you for your message!")


TICKETS = [
    demo.Ticket(f"The {thing} {thing} {thing} number {word} is broken", f"broken_{thing}")
    for word in ("one", "two", "three", "four", "five")
    for thing in ("lamp", "tent")
]


NOTHING_HELD_OUT = {"hold_out_rate": 0.0}


@pytest.fixture(autouse=True)
def nothing_by_lot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request gets what is thought best."""
    best = "app.loop.steer.retriever.choose"
    monkeypatch.setattr(best, lambda beliefs, offered, rng: beliefs.best(offered))


async def vectors() -> Any:
    return await HashEmbedder().embed([ticket.text for ticket in TICKETS])


def client_of(gateway: Gateway) -> DemoClient:
    return DemoClient(gateway.url, ADMIN_KEY, CLIENT_KEY, "demo-1")


async def test_every_second_ticket_has_the_experience_of_all_earlier_ones(
    upstream: ScriptedUpstream,
) -> None:
    upstream.when(lambda body: True, repeating)
    with running_gateway(upstream, embedding_timeout=60.0, experiment=NOTHING_HELD_OUT) as gateway:
        client = client_of(gateway)
        await client.ready(within=30)
        await client.learn_from_labels_alone()
        played = [one async for one in demo.play(client, TICKETS, await vectors())]
        await client.close()
        database = gateway.app.state.ttcl.settings.data_dir / "ttcl.db"
        with contextlib.closing(sqlite3.connect(database)) as connection:
            kept = connection.execute("select question, label from examples").fetchall()
    assert [one.with_experience for one in played] == [n % 2 == 1 for n in range(len(TICKETS))]
    without = [one for one in played if not one.with_experience]
    assert not any(one.right or one.answer.examples or one.answer.rules for one in without)
    experienced = [one for one in played if one.with_experience]
    assert all(one.answer.examples for one in experienced)
    # The first has seen the other label alone.
    assert [one.right for one in experienced] == [False, True, True, True, True]
    assert [one.neighbour_right for one in played] == [False, False, *[True] * 8]
    assert sorted(kept) == sorted((ticket.text, ticket.label) for ticket in TICKETS)


class Ready(HashEmbedder):
    """As `CachedEmbedder` is used."""

    failure = None

    def start(self) -> None: ...

    async def close(self) -> None: ...


def test_the_command_draws_the_curves_and_ends_with_three_commands(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.when(lambda body: True, repeating)
    data = tmp_path / "my tickets.jsonl"
    rows = ({"ticket": ticket.text, "label": ticket.label} for ticket in TICKETS)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTCL_ADMIN_API_KEY", ADMIN_KEY)
    monkeypatch.setenv("TTCL_API_KEYS", CLIENT_KEY)
    monkeypatch.setattr("app.cli.demo.build_embedder", lambda settings: Ready())
    with running_gateway(upstream, embedding_timeout=60.0, experiment=NOTHING_HELD_OUT) as gateway:
        arguments = ["demo", "--url", gateway.url, "--data", str(data)]
        played = CliRunner().invoke(app, arguments)
        assert played.exit_code == 0, played.output
        lines = played.stdout.splitlines()
        namespace = next(line for line in lines if "examples list" in line).split()[-1]
        asked = CliRunner().invoke(
            app, [*arguments, "--namespace", namespace, "--ask", TICKETS[0].text]
        )
    assert asked.exit_code == 0, asked.output
    assert "without experience: Thank you" in asked.stdout
    assert "#  with experience: 4 of 5 right" in played.stdout
    assert "o  without experience: 0 of 5 right" in played.stdout
    assert ".  nearest earlier label, no model: 8 of 10 right" in played.stdout
    commands = lines[-6:][1::2]
    assert [command.split()[1] for command in commands] == ["examples", "demo", "namespaces"]
    assert f"--data '{data}' --url {gateway.url}" in commands[1]
    shown = lines[: lines.index(next(line for line in lines if "Look at" in line))]
    assert max(map(len, shown)) <= 80
    assert played.stdout.isascii()


def test_what_cannot_be_asked_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CliRunner().invoke(app, ["demo", "--ask", "Where is it?"])
    assert isinstance(found.exception, ConfigurationError)
    assert "--namespace" in str(found.exception)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8080", "http://[", "ftp://x"])
def test_an_address_where_no_gateway_is(url: str) -> None:
    found = CliRunner().invoke(app, ["demo", "--url", url])
    assert isinstance(found.exception, ConfigurationError)
    assert f"no gateway answers at {url}" in str(found.exception)


async def test_a_service_that_has_ended_is_not_waited_for() -> None:
    client = DemoClient("http://127.0.0.1:1", "admin", None, "demo-1")
    with pytest.raises(TTCLError, match="the port is taken"):
        await client.ready(300, ended=lambda: "the port is taken")
    await client.close()


async def test_a_refusal_is_told_in_its_words(upstream: ScriptedUpstream) -> None:
    with running_gateway(upstream, embedding_timeout=60.0) as gateway:
        client = DemoClient(gateway.url, ADMIN_KEY, "wrong", "demo-1")
        await client.ready(within=30)
        with pytest.raises(TTCLError, match="key"):
            await client.ask(demo.asked("Where?", ["a", "b"]), with_experience=True)
        await client.close()


def test_the_shipped_tickets() -> None:
    tickets = demo.read_tickets(demo.TICKETS, None)
    labels = Counter(ticket.label for ticket in tickets)
    assert len({ticket.text for ticket in tickets}) == len(tickets) == 60
    assert len(labels) == 8
    assert set(labels.values()) <= {7, 8}
    # Each intent comes in both halves alike.
    halves = Counter((ticket.label, n % 2) for n, ticket in enumerate(tickets))
    assert all(abs(halves[label, 0] - halves[label, 1]) <= 1 for label in labels)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("not json", "must be JSONL"),
        ('{"ticket": "Where is it?"}', "must be JSONL"),
        ('{"ticket": "Where is it?", "label": 3}', "must be JSONL"),
        ('["Where is it?"]', "must be JSONL"),
        ('{"ticket": "Where is it?", "label": "a"}', "at least two labels"),
        ("", "at least two labels"),
    ],
)
def test_a_file_that_is_no_stream_of_tickets(lines: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "tickets.jsonl"
    file.write_text(lines)
    with pytest.raises(ConfigurationError, match=said):
        demo.read_tickets(file, None)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("refund_status", "refund_status"),
        ("Refund status.", "refund_status"),
        ("The label is **refund-status**", "refund_status"),
        ("refund_status or invoice", None),
        ("I'm sorry to hear that.", None),
        ("", None),
    ],
)
def test_the_label_that_an_answer_names(answer: str, label: str | None) -> None:
    assert demo.named(answer, ["invoice", "refund_status"]) == label


def test_a_chart_in_plain_characters() -> None:
    lines = chart(
        [
            Curve(".", "neighbour", [True, False, True, False]),
            Curve("#", "with", [None, True, None, True]),
        ]
    )
    assert lines[0] == " 100% |.###"
    assert lines[3] == "  70% |  ."
    assert lines[5] == "  50% | . ."
    assert lines[11] == "      +----"
    assert "#  with: 2 of 2 right, second half 1 of 1" in lines[-1]


def test_a_long_stream_fits_eighty_columns() -> None:
    right = list(np.arange(1000) % 3 == 0)
    lines = chart([Curve("#", "with experience", [bool(each) for each in right])])
    assert max(map(len, lines)) <= 80
    assert "#" * 50 in lines[7]
