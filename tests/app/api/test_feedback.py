"""`POST /v1/feedback` over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.api.test_keys import ask, make, refused, send
from tests.compat.helpers import check_error
from tests.gateway import CLIENT_KEY, Gateway

NOT_FOUND = "episode_not_found"


@pytest.fixture
def episode(gw: Gateway, namespace: str) -> str:
    response = ask(gw, CLIENT_KEY, namespace=namespace, learn=False)
    return str(response.headers["X-TTCL-Episode"])


def say(gw: Gateway, secret: str | None = CLIENT_KEY, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    return send(gw, secret, "POST", "/v1/feedback", json=body, headers=headers)


def shown(gw: Gateway, episode: str) -> list[dict[str, Any]]:
    """As the client was told, who does not read which key it has."""
    found = gw.admin("GET", f"/episodes/{episode}").json()["feedback"]
    assert {each.pop("key_id") for each in found} <= {"environment-1"}
    return list(found)


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
        ({"label": "x" * 1_000_000}, "label"),
        ({"label": "  \n"}, "label"),
        ({"correction": ""}, "correction"),
        ({"correction": " "}, "correction"),
        ({"correction": "x" * 32_001}, "correction"),
        ({"score": 1, "outdated": "yes"}, "outdated"),
        ({"score": 1, "outdated": None}, "outdated"),
        ({"outdated": False}, "body"),
        ({"score": 1, "request_id": "r"}, "body"),
        ({"score": 1, "episode_id": None}, "body"),
        ({"score": 1, "episode_id": None, "request_id": ""}, "request_id"),
        ({"score": 1, "episode_id": None, "request_id": "a\x00b"}, "request_id"),
        ({"score": 1, "episode_id": None, "request_id": "x" * 129}, "request_id"),
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


# -- by the client's own request id


def ask_as(gw: Gateway, request_id: str, namespace: str, mode: str = "steer") -> str | None:
    headers = {"X-Request-ID": request_id}
    answer = ask(gw, CLIENT_KEY, headers=headers, namespace=namespace, mode=mode)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("X-TTCL-Episode")


def test_a_request_is_named_by_the_id_that_its_client_gave_it(gw: Gateway, namespace: str) -> None:
    episode, other = ask_as(gw, "r-1", namespace), ask_as(gw, "r-1", f"{namespace}-2")
    headers = {"X-TTCL-Namespace": namespace}
    said = say(gw, request_id="r-1", label="7", headers=headers)
    assert said.status_code == 201, said.text
    assert (said.json()["episode_id"], said.json()["namespace"]) == (episode, namespace)
    own = make(gw, f"{namespace}-2")["secret"]
    assert say(gw, own, request_id="r-1", score=1).json()["episode_id"] == other
    theirs = say(gw, own, request_id="r-1", score=1, headers=headers)
    assert refused(theirs, 403, "namespace_forbidden")["param"] == "namespace"
    unknown = refused(say(gw, request_id="r-2", label="7", headers=headers), 404, NOT_FOUND)
    assert unknown["param"] == "request_id"
    assert (namespace in unknown["message"], "r-2" in unknown["message"]) == (True, True)
    wrong = say(gw, request_id="r-1", label="7", headers={"X-TTCL-Namespace": "no such"})
    assert refused(wrong, 400, "invalid_value")["param"] == "X-TTCL-Namespace"


@pytest.mark.parametrize("said", [{"label": "7"}, {"correction": "It is 7."}])
def test_a_pass_through_leaves_nothing_to_speak_of(
    gw: Gateway, namespace: str, said: dict[str, str]
) -> None:
    assert ask_as(gw, "r-off", namespace, mode="off") is None
    headers = {"X-TTCL-Namespace": namespace}
    error = refused(say(gw, request_id="r-off", headers=headers, **said), 404, NOT_FOUND)
    assert "pass-through (mode off) leaves none" in error["message"]


# -- many at once


def batch(gw: Gateway, secret: str | None = CLIENT_KEY, **sent: Any) -> httpx.Response:
    return send(gw, secret, "POST", "/v1/feedback:batch", **sent)


def test_each_item_of_a_batch_is_done_and_reported_by_itself(
    gw: Gateway, namespace: str, episode: str
) -> None:
    ask_as(gw, "r-3", namespace)
    items = [
        {"episode_id": episode, "label": "7", "key": "k"},
        {"episode_id": "ep_none", "label": "7"},
        7,
        {"request_id": "r-3", "verified": True},
        {"episode_id": episode, "label": "x" * 4001},
        {"episode_id": episode, "label": "8", "key": "k"},
        {"episode_id": episode, "label": "7", "key": "k"},
        {"episode_id": episode, "request_id": "r-3", "score": 1},
        {"episode_id": episode, "score": 1, "extra": 1},
    ]
    answer = batch(gw, json={"items": items}, headers={"X-TTCL-Namespace": namespace})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["taken"], body["refused"]) == (3, 6)
    told = [
        (each["index"], each["status"], (each.get("error") or {}).get("param"))
        for each in body["data"]
    ]
    assert told == [
        (0, 201, None),
        (1, 404, "episode_id"),
        (2, 400, "body"),
        (3, 201, None),
        (4, 400, "label"),
        (5, 409, "key"),
        (6, 201, None),
        (7, 400, "body"),
        (8, 400, "extra"),
    ]
    assert body["data"][6]["id"] == body["data"][0]["id"] == shown(gw, episode)[0]["id"]
    assert {each["error"]["code"] for each in body["data"] if each["status"] == 409} == {
        "feedback_conflict"
    }
    assert all(each["error"]["message"] for each in body["data"] if each["status"] >= 400)


def test_lines_of_a_batch_are_read_by_themselves(gw: Gateway, episode: str) -> None:
    good = f'{{"episode_id": "{episode}", "score": 1}}'
    content = "\n".join([good, "{broken", "", "[1]", good, "7"])
    headers = {"Content-Type": "application/x-ndjson"}
    answer = batch(gw, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert [each["status"] for each in answer.json()["data"]] == [201, 400, 400, 201, 400]
    assert answer.json()["data"][1]["error"]["code"] == "invalid_json"
    assert len(shown(gw, episode)) == 2


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"json": {"items": []}}, "items"),
        ({"json": {"items": [1] * 1001}}, "items"),
        ({"json": {"items": {}}}, "items"),
        ({"json": {}}, "items"),
        ({"json": {"items": [1], "more": 1}}, "more"),
        ({"json": [1]}, None),
        ({"content": "{"}, None),
        ({"content": "", "headers": {"Content-Type": "application/x-ndjson"}}, "items"),
        ({"content": "1\n" * 1001, "headers": {"Content-Type": "application/x-ndjson"}}, "items"),
    ],
)
def test_a_batch_that_is_none_is_refused_as_a_whole(
    gw: Gateway, sent: dict[str, Any], param: str | None
) -> None:
    answer = batch(gw, **sent)
    assert answer.status_code == 400, answer.text
    assert check_error(answer.json())["param"] == param


def test_a_batch_counts_once_against_the_rate(gw: Gateway, namespace: str, episode: str) -> None:
    secret = make(gw, namespace, requests_per_minute=1)["secret"]
    items = [{"episode_id": episode, "score": 1}] * 3
    said = batch(gw, secret, json={"items": items})
    assert said.json()["taken"] == 3
    assert said.headers["x-ratelimit-remaining-requests"] == "0"
    refused(batch(gw, secret, json={"items": items}), 429, "rate_limit_exceeded")
    refused(batch(gw, None, json={"items": items}), 401, "invalid_api_key")
