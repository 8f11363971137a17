"""`POST /v1/feedback` over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.api.test_keys import ask, make, refused, send
from tests.compat.helpers import check_error
from tests.gateway import CLIENT_KEY, Gateway


@pytest.fixture
def episode(gw: Gateway, namespace: str) -> str:
    response = ask(gw, CLIENT_KEY, namespace=namespace, learn=False)
    return str(response.headers["X-TTCL-Episode"])


def say(gw: Gateway, secret: str | None = CLIENT_KEY, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    return send(gw, secret, "POST", "/v1/feedback", json=body, headers=headers)


def shown(gw: Gateway, episode: str) -> list[dict[str, Any]]:
    return list(gw.admin("GET", f"/episodes/{episode}").json()["feedback"])


def test_what_is_said_is_shown_on_the_episode(gw: Gateway, namespace: str, episode: str) -> None:
    assert shown(gw, episode) == []
    first = say(gw, episode_id=episode, score=0.25, comment="too long")
    assert first.status_code == 201, first.text
    body = first.json()
    assert body["id"]
    assert body["created_at"]
    assert body["namespace"] == namespace
    kept = {"score": 0.25, "label": None, "verified": None, "comment": "too long", "key": None}
    assert {name: body[name] for name in kept} == kept
    assert body["source"] == "client"
    second = say(gw, episode_id=episode, label="7").json()
    third = say(gw, episode_id=episode, verified=False, score=0).json()
    assert [second["source"], third["source"]] == ["label", "verifier"]
    assert shown(gw, episode) == [body, second, third]


@pytest.mark.parametrize("way", ["body", "header", "both"])
def test_the_same_key_gets_the_first_answer_again(gw: Gateway, episode: str, way: str) -> None:
    more: dict[str, Any] = {}
    if way in ("body", "both"):
        more["key"] = "ticket-1"
    if way in ("header", "both"):
        more["headers"] = {"Idempotency-Key": "ticket-1"}
    first = say(gw, episode_id=episode, score=1, **more)
    again = say(gw, episode_id=episode, score=1, **more)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    changed = say(gw, episode_id=episode, score=0, **more)
    assert refused(changed, 409, "feedback_conflict")["param"] == "key"
    assert shown(gw, episode) == [first.json()]


def test_two_keys_that_differ_are_refused(gw: Gateway, episode: str) -> None:
    both = say(gw, episode_id=episode, score=1, key="a", headers={"Idempotency-Key": "b"})
    assert refused(both, 400, "invalid_value")["param"] == "key"
    assert shown(gw, episode) == []


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"score": 1.01}, "score"),
        ({"score": -0.1}, "score"),
        ({"score": "1"}, "score"),
        ({"score": True}, "score"),
        ({"verified": 1}, "verified"),
        ({"verified": "yes"}, "verified"),
        ({"label": ""}, "label"),
        ({"label": ["7"]}, "label"),
        ({"label": "x" * 4001}, "label"),
        ({"score": 1, "comment": "x" * 4001}, "comment"),
        ({"score": 1, "key": ""}, "key"),
        ({"score": 1, "key": "x" * 201}, "key"),
        ({"score": 1, "source": "verifier"}, "source"),
        ({"score": 1, "episode_id": ""}, "episode_id"),
        ({"comment": "nothing said"}, "body"),
        ({}, "body"),
    ],
)
def test_a_wrong_value_names_its_field(
    gw: Gateway, episode: str, wrong: dict[str, Any], param: str
) -> None:
    response = say(gw, **{"episode_id": episode, **wrong})
    assert response.status_code == 400, response.text
    assert check_error(response.json())["param"] == param
    assert shown(gw, episode) == []


@pytest.mark.parametrize("raw", ["", "[]", "{", "null", '{"score": NaN}'])
def test_a_body_that_is_none_is_a_400(gw: Gateway, raw: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = send(gw, CLIENT_KEY, "POST", "/v1/feedback", content=raw, headers=headers)
    assert response.status_code == 400, response.text
    check_error(response.json())


def test_what_is_not_the_callers_is_not_there(gw: Gateway, namespace: str, episode: str) -> None:
    unknown = refused(say(gw, episode_id="ep_none", score=1), 404, "episode_not_found")
    assert unknown["param"] == "episode_id"
    other = make(gw, f"{namespace}-2")["secret"]
    theirs = refused(say(gw, other, episode_id=episode, score=1), 404, "episode_not_found")
    assert theirs["message"] == unknown["message"].replace("ep_none", episode)
    own = make(gw, namespace, permissions=["chat"])["secret"]
    assert say(gw, own, episode_id=episode, score=1).status_code == 201
    refused(say(gw, None, episode_id=episode, score=1), 401, "invalid_api_key")


def test_it_counts_against_the_rate(gw: Gateway, namespace: str, episode: str) -> None:
    secret = make(gw, namespace, requests_per_minute=1)["secret"]
    said = say(gw, secret, episode_id=episode, score=1)
    assert said.headers["x-ratelimit-remaining-requests"] == "0"
    refused(say(gw, secret, episode_id=episode, score=1), 429, "rate_limit_exceeded")


def test_an_episode_with_a_nul_is_refused(gw: Gateway) -> None:
    answer = say(gw, episode_id="a\x00b", score=1)
    assert answer.status_code == 400
    assert check_error(answer.json())["param"] == "episode_id"
