"""The playground: two calls, side by side; nothing follows unless somebody says so."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app.console.asking import marked
from tests.app.console.visitor import Visitor, read
from tests.app.console.world import EVIL
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import Gateway, running_gateway

RULE = "Say thank you before anything else is said."
QUESTION = "What is said before anything else?"


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        server.when(lambda b: RULE in str(b["messages"]), Reply("Thank you. It is a greeting."))
        server.when(lambda b: QUESTION in str(b["messages"]), Reply(f"It is a greeting. {EVIL}"))
        yield server


@pytest.fixture(scope="module")
def gw(up: ScriptedUpstream) -> Iterator[Gateway]:
    # With a control group of everybody: a request that was drawn for would get nothing.
    with running_gateway(up, control_rate=1.0, hold_out_rate=1.0, policy="gated") as running:
        body = {"namespace": "default", "polarity": "positive", "text": RULE}
        made = running.admin("POST", "/rules", json=body)
        assert made.status_code == 201, made.text
        yield running


@pytest.fixture
def ada(gw: Gateway) -> Iterator[Visitor]:
    with Visitor(gw.url) as one:
        assert one.log_in(actor="ada").status_code == 303
        yield one


def ask(ada: Visitor, **fields: str) -> str:
    """The address of what came of it."""
    response = ada.send("/playground", "/playground", **{"question": QUESTION, **fields})
    assert response.status_code == 303, response.text
    return response.headers["location"].removeprefix("/console").partition("#")[0]


def test_both_answers_stand_side_by_side_with_what_was_put_in_marked(
    gw: Gateway, ada: Visitor, up: ScriptedUpstream
) -> None:
    before = len(up.chats)
    response = ada.get(ask(ada, namespace="default", system="Be short."))
    assert len(up.chats) - before == 2
    assert all(call.body["temperature"] == 0 for call in up.chats[-2:])
    page = read(response.text)
    assert '<mark class="with">Thank you.' in response.text
    assert EVIL in page.text
    assert EVIL not in response.text
    assert RULE in page.text
    # Of what was sent the person's own words are not marked.
    sent = response.text.partition("What the model was sent")[2]
    assert "Be short." in sent
    assert '<mark class="plus">Be short.' not in sent
    assert f">{QUESTION}" in sent
    assert RULE in sent.partition('<mark class="plus">')[2].partition("</mark>")[0]


def test_it_counts_in_nothing_and_teaches_nothing_by_itself(gw: Gateway, ada: Visitor) -> None:
    rule = gw.rules("default")[0]
    counted = gw.admin("GET", "/namespaces/default/effect").json()["arms"]
    where = ask(ada)
    episode = gw.admin("GET", f"/episodes/{where.partition('=')[2]}").json()
    assert (episode["status"], episode["reason"]) == ("skipped", "playground")
    assert [each["id"] for each in episode["rules_injected"]] == [rule["id"]]
    assert gw.rules("default")[0]["exposures"] == rule["exposures"]
    assert gw.admin("GET", "/namespaces/default/effect").json()["arms"] == counted
    assert gw.admin("GET", f"/rules/{rule['id']}/evidence").json()["exposures"] == []
    assert "Nothing was spent" in ada.page("").text  # nothing else was asked
    assert gw.admin("GET", "/jobs").json()["total"] == 0


def test_a_thumb_and_the_right_answer_teach(gw: Gateway, ada: Visitor) -> None:
    where = ask(ada)
    episode = where.partition("=")[2]
    target = f"/episodes/{episode}/judge"
    form = read(ada.get(where).text).forms[f"/console{target}#2"]
    assert "label" in form
    page = ada.post(target, **{**form, "correction": "A thank you."})
    assert page.headers["location"].startswith(f"/console/playground?episode={episode}")
    told = read(ada.http.get(page.headers["location"]).text).text
    assert "It is kept as an example" in told
    assert "found wrong" in told
    (made,) = gw.admin("GET", "/examples").json()["data"]
    assert (made["question"], made["answer"]) == (QUESTION, "A thank you.")
    again = ada.page(ask(ada))
    assert "answered: A thank you." in again.text
    up_form = again.forms[next(key for key in again.forms if key.endswith("/judge"))]
    assert up_form["thumb"] == "up"
    (one,) = gw.admin("GET", f"/episodes/{episode}").json()["feedback"]
    assert (one["correction"], one["comment"]) == ("A thank you.", "ada, in the console")


def test_both_are_streamed_to_a_script(gw: Gateway, ada: Visitor) -> None:
    form = ada.page("/playground").forms["/console/playground"]
    fields = {**form, "question": QUESTION, "namespace": "default"}
    with ada.http.stream("POST", "/console/playground/stream", data=fields) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.iter_lines()]
    said = {
        side: "".join(line["text"] for line in lines if line.get("side") == side)
        for side in ("with", "without")
    }
    assert said["with"].startswith("Thank you.") or "thank you" in said["with"].lower()
    assert said["without"] == f"It is a greeting. {EVIL}"
    assert ada.page(f"/playground?episode={lines[-1]['episode']}")
    assert len(lines) > 3


def test_what_fails_on_one_side_is_told_there(
    gw: Gateway, ada: Visitor, up: ScriptedUpstream
) -> None:
    up.when(
        lambda b: "only bare" in str(b["messages"]) and RULE not in str(b["messages"]),
        Reply.error(400, "not this one"),
    )
    page = ada.page(ask(ada, question="What is said before anything else, only bare?"))
    assert "not this one" in page.text


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"question": " "}, 400, "Ask something"),
        ({"question": "x" * 20_001}, 400, "question: at most 20,000 characters"),
        ({"namespace": "nowhere"}, 404, "nowhere"),
        ({"model": EVIL}, 404, "does not exist"),
    ],
)
def test_what_can_not_be_asked_is_said(
    ada: Visitor, fields: dict[str, str], status: int, said: str
) -> None:
    given = {"question": QUESTION, "namespace": "default", **fields}
    response = ada.send("/playground", "/playground", **given)
    assert response.status_code == status
    assert said in read(response.text).text
    assert EVIL not in response.text


def test_no_other_episode_is_shown_there(gw: Gateway, ada: Visitor) -> None:
    assert ada.get("/playground", episode="ep_none").status_code == 404


def test_words_of_an_example_that_asks_the_same_are_marked_as_put_in() -> None:
    own = [{"role": "user", "content": "Why?"}]
    sent = [
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Read this first. Why?"},
    ]
    found = marked(sent, own)
    assert [[(p.text, p.changed) for p in each.pieces] for each in found] == [
        [("Rules.", True)],
        [("Why?", True)],
        [("So.", True)],
        [("Read this first. ", True), ("Why?", False)],
    ]
