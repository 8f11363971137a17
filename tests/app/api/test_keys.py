"""Keys over real HTTP: what a key may do, where, and how often."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.access.callers import KeyRing
from rules_store.models.events import Change
from rules_store.store import RuleStore
from tests.compat.helpers import QUESTION, check_error, script_loop, script_majority
from tests.compat.test_lifecycle import hanging_up
from tests.fakes import (
    Fault,
    Reply,
    ScriptedUpstream,
    is_structured_step,
    is_student,
    is_teacher,
)
from tests.gateway import CLIENT_KEY, MODEL, Gateway, running_gateway

BASIC = ["chat", "learn"]


def make(gw: Gateway, *namespaces: str, permissions: Any = BASIC, **more: Any) -> dict[str, Any]:
    body = {"name": "test", "namespaces": list(namespaces), "permissions": permissions, **more}
    response = gw.admin("POST", "/keys", json=body)
    assert response.status_code == 201, response.text
    return dict(response.json())


def send(gw: Gateway, secret: str | None, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {**more.pop("headers", {})}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    return httpx.request(method, f"{gw.url}{path}", headers=headers, timeout=30, **more)


def ask(gw: Gateway, secret: str | None, *, headers: Any = None, **ttcl: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    if ttcl:
        body["ttcl"] = ttcl
    return send(gw, secret, "POST", "/v1/chat/completions", json=body, headers=headers or {})


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = check_error(response.json())
    assert error["code"] == code, error
    return error


# -- over the admin API -------------------------------------------------------------------------


def test_the_secret_is_told_once(gw: Gateway, namespace: str) -> None:
    made = make(gw, namespace, tokens_per_day=1000)
    secret = made.pop("secret")
    assert secret.startswith(made["shown"])
    assert made["used_today"] == {"requests": 0, "tokens": 0}
    got = gw.admin("GET", f"/keys/{made['id']}").json()
    assert got == made
    assert secret not in gw.admin("GET", "/keys").text
    assert "hash" not in got


def test_keys_are_listed_in_pages_with_an_exact_total(gw: Gateway) -> None:
    ids = [make(gw, "*")["id"] for _ in range(3)]
    first = gw.admin("GET", "/keys", params={"limit": 2}).json()
    assert [key["id"] for key in first["data"]] == ids[:0:-1]
    assert first["total"] >= 3
    then = gw.admin("GET", "/keys", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert then["data"][0]["id"] == ids[0]
    assert then["total"] == first["total"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"namespaces": []}, "namespaces"),
        ({"namespaces": ["*", "a"]}, "namespaces"),
        ({"namespaces": ["no space"]}, "namespaces[0]"),
        ({"namespaces": "a"}, "namespaces"),
        ({"permissions": []}, "permissions"),
        ({"permissions": ["chat", "root"]}, "permissions[1]"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_day": 2**31}, "tokens_per_day"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_a_wrong_value_names_its_field(gw: Gateway, wrong: dict[str, Any], param: str) -> None:
    body = {"name": "test", "namespaces": ["a"], "permissions": BASIC}
    response = gw.admin("POST", "/keys", json={**body, **wrong})
    assert response.status_code == 400, response.text
    assert check_error(response.json())["param"] == param
    if set(wrong) - {"secret"}:
        made = make(gw, "a")
        response = gw.admin("PATCH", f"/keys/{made['id']}", json=wrong)
        assert response.status_code == 400, response.text
        assert check_error(response.json())["param"] == param


def test_a_patch_needs_something_and_null_takes_only_a_limit_away(gw: Gateway) -> None:
    key = f"/keys/{make(gw, 'a', requests_per_minute=3)['id']}"
    assert gw.admin("PATCH", key, json={"reason": "none"}).status_code == 400
    assert gw.admin("PATCH", key, json={"namespaces": None}).status_code == 400
    patched = gw.admin("PATCH", key, json={"requests_per_minute": None, "name": "b"}).json()
    assert patched["requests_per_minute"] is None
    assert patched["name"] == "b"
    assert patched["namespaces"] == ["a"]


def test_what_there_is_not_is_a_404_and_what_is_over_a_409(gw: Gateway) -> None:
    refused(gw.admin("GET", "/keys/key_none"), 404, "key_not_found")
    refused(gw.admin("POST", "/keys/key_none/revoke", json={}), 404, "key_not_found")
    path = f"/keys/{make(gw, 'a')['id']}"
    assert gw.admin("POST", f"{path}/revoke", json={}).json()["revoked_at"]
    refused(gw.admin("POST", f"{path}/revoke", json={}), 409, "conflict")
    refused(gw.admin("PATCH", path, json={"name": "b"}), 409, "conflict")


# -- chatting -----------------------------------------------------------------------------------


def test_a_request_without_a_namespace_goes_to_the_keys_first(gw: Gateway, namespace: str) -> None:
    secret = make(gw, namespace, f"{namespace}-2")["secret"]
    assert ask(gw, secret).json()["ttcl"]["namespace"] == namespace
    other = ask(gw, secret, namespace=f"{namespace}-2").json()
    assert other["ttcl"]["namespace"] == f"{namespace}-2"
    everywhere = make(gw, "*")["secret"]
    assert ask(gw, everywhere).json()["ttcl"]["namespace"] == "default"


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
def test_anothers_namespace_is_forbidden(gw: Gateway, namespace: str, mode: str) -> None:
    secret = make(gw, namespace)["secret"]
    error = refused(ask(gw, secret, namespace="default", mode=mode), 403, "namespace_forbidden")
    assert error["param"] == "namespace"
    by_header = ask(gw, secret, headers={"X-TTCL-Namespace": "default", "X-TTCL-Mode": mode})
    refused(by_header, 403, "namespace_forbidden")


def test_a_key_without_chat_may_not_chat(gw: Gateway, namespace: str) -> None:
    secret = make(gw, namespace, permissions=["learn", "admin-read"])["secret"]
    refused(ask(gw, secret), 403, "not_allowed")
    refused(send(gw, secret, "GET", "/v1/models"), 403, "not_allowed")
    said = {"episode_id": "ep_x", "score": 1}
    refused(send(gw, secret, "POST", "/v1/feedback", json=said), 403, "not_allowed")


@pytest.mark.parametrize("mode", ["steer", "explore"])
def test_a_key_without_learn_is_answered_and_teaches_nothing(
    gw: Gateway, up: ScriptedUpstream, namespace: str, mode: str
) -> None:
    script_majority(up, "\\boxed{17}", "\\boxed{7}")
    gw.add_rule(namespace, "Count what is taken away before what is left.", QUESTION)
    rules = gw.rules(namespace)
    secret = make(gw, namespace, permissions=["chat"])["secret"]
    response = ask(gw, secret, mode=mode)
    assert response.status_code == 200, response.text
    assert response.json()["ttcl"]["rules"], "it is steered all the same"
    episode = gw.settled(response.headers["X-TTCL-Episode"])
    assert (episode["status"], episode["reason"]) == ("skipped", "key_may_not_learn")
    assert [rule["id"] for rule in gw.rules(namespace)] == [rule["id"] for rule in rules]


def test_a_key_without_learn_makes_no_namespace(gw: Gateway, namespace: str) -> None:
    secret = make(gw, "*", permissions=["chat"])["secret"]
    refused(ask(gw, secret, namespace=namespace), 404, "namespace_not_found")
    assert gw.admin("GET", "/rules", params={"namespace": namespace}).status_code == 404
    assert ask(gw, secret, namespace=namespace, mode="off").status_code == 200
    assert ask(gw, secret).status_code == 200, "the configured default is as good as there"


def test_a_revoked_key_is_out_at_once_and_on_other_gateways_within_a_second(
    gw: Gateway, namespace: str
) -> None:
    here, there = make(gw, namespace), make(gw, namespace)
    assert ask(gw, here["secret"]).status_code == ask(gw, there["secret"]).status_code == 200
    gw.admin("POST", f"/keys/{here['id']}/revoke", json={"reason": "lost"})
    refused(ask(gw, here["secret"]), 401, "invalid_api_key")

    async def revoke_elsewhere() -> None:
        settings = gw.app.state.ttcl.settings
        store = await RuleStore.open(settings.resolved_database_url, embedding_model="another")
        await store.keys.revoke(there["id"], change=Change("tester", "lost"))
        await store.close()

    asyncio.run(revoke_elsewhere())
    deadline = time.monotonic() + 1.0
    while ask(gw, there["secret"], mode="off").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- no keys, and the first one -----------------------------------------------------------------


def test_without_any_key_it_is_open_and_with_the_first_one_it_is_not(
    upstream: ScriptedUpstream,
) -> None:
    script_loop(upstream)
    with running_gateway(upstream, api_keys=()) as gw:
        assert ask(gw, None).status_code == ask(gw, "whatever").status_code == 200
        key = make(gw, "*")
        for secret in (None, "whatever"):
            refused(ask(gw, secret), 401, "invalid_api_key")
        assert ask(gw, key["secret"]).status_code == 200
        gw.admin("POST", f"/keys/{key['id']}/revoke", json={})
        refused(ask(gw, None), 401, "invalid_api_key")


# -- administering ------------------------------------------------------------------------------


@pytest.fixture
def other(gw: Gateway, namespace: str) -> dict[str, Any]:
    """A rule and an episode in another namespace than `namespace`, where there is one rule."""
    gw.add_rule(namespace, "Count what is taken away first.", "counting")
    space = f"other-{uuid.uuid4().hex[:8]}"
    rule = gw.add_rule(space, "Name the unit of every number.", "units")
    episode = ask(gw, CLIENT_KEY, namespace=space, learn=False).headers["X-TTCL-Episode"]
    return {"namespace": space, "rule": rule["id"], "episode": episode}


def test_a_scoped_admin_sees_only_its_own(
    gw: Gateway, namespace: str, other: dict[str, Any]
) -> None:
    secret = make(gw, namespace, permissions=["admin-read", "admin-write"])["secret"]

    def get(path: str, **params: str) -> httpx.Response:
        return send(gw, secret, "GET", f"/admin/v1{path}", params=params)

    assert {rule["namespace"] for rule in get("/rules").json()["data"]} == {namespace}
    assert get("/rules").json()["total"] == 1
    assert get("/episodes").json()["total"] == 0
    for path in ("/rules", "/episodes"):
        refused(get(path, namespace=other["namespace"]), 404, "namespace_not_found")
    refused(get(f"/rules/{other['rule']}"), 404, "rule_not_found")
    refused(get(f"/episodes/{other['episode']}"), 404, "episode_not_found")


def test_a_scoped_admin_reads_nothing_of_keys_in_the_log(
    gw: Gateway, namespace: str, other: dict[str, Any]
) -> None:
    """A key of this namespace that is opened to another one, or was of that one before, would
    name it there."""
    mine = make(gw, namespace, permissions=["admin-read"])
    for namespaces in ([namespace, other["namespace"]], [other["namespace"]], [namespace]):
        changed = gw.admin("PATCH", f"/keys/{mine['id']}", json={"namespaces": namespaces})
        assert changed.status_code == 200, changed.text

    def log(**params: str) -> dict[str, Any]:
        response = send(gw, mine["secret"], "GET", "/admin/v1/events", params=params)
        assert response.status_code == 200, response.text
        return dict(response.json())

    gw.add_rule(namespace, "Count first.", "")
    own = log()["data"]
    assert own
    assert {event["namespace"] for event in own} == {namespace}
    assert not [event for event in own if event["kind"].startswith("key.")]
    assert log(kind="key.")["total"] == 0
    kinds = [e["kind"] for e in gw.admin("GET", "/events", params={"kind": "key."}).json()["data"]]
    assert kinds[:4] == ["key.patched"] * 3 + ["key.created"]


def test_a_scoped_admin_changes_only_its_own(
    gw: Gateway, namespace: str, other: dict[str, Any]
) -> None:
    secret = make(gw, namespace, permissions=["admin-read", "admin-write"])["secret"]

    def write(method: str, path: str, **body: Any) -> httpx.Response:
        return send(gw, secret, method, f"/admin/v1{path}", json=body)

    rule = {"polarity": "positive", "text": "Say what is asked."}
    made = write("POST", "/rules", namespace=namespace, **rule)
    assert made.status_code == 201, made.text
    error = refused(
        write("POST", "/rules", namespace=other["namespace"], **rule), 404, "namespace_not_found"
    )
    assert error["param"] == "namespace"
    theirs = f"/rules/{other['rule']}"
    refused(write("PATCH", theirs, text="Mine now."), 404, "rule_not_found")
    refused(write("POST", f"{theirs}/retire"), 404, "rule_not_found")
    refused(write("POST", f"{theirs}/restore"), 404, "rule_not_found")
    assert gw.admin("GET", theirs).json()["version"] == 1


def test_reading_is_not_writing(gw: Gateway, namespace: str) -> None:
    rule = gw.add_rule(namespace, "Count first.", "counting")["id"]
    reader = make(gw, namespace, permissions=["admin-read"])["secret"]
    writer = make(gw, namespace, permissions=["admin-write"])["secret"]
    path = f"/admin/v1/rules/{rule}"
    assert send(gw, reader, "GET", path).status_code == 200
    refused(send(gw, reader, "POST", f"{path}/retire", json={}), 403, "not_allowed")
    refused(send(gw, writer, "GET", path), 403, "not_allowed")
    assert send(gw, writer, "POST", f"{path}/retire", json={}).status_code == 200


def test_only_a_key_of_all_namespaces_manages_keys_and_none_beyond_itself(
    gw: Gateway, namespace: str
) -> None:
    scoped = make(gw, namespace, permissions=["admin-read", "admin-write"])["secret"]
    body = {"name": "more", "namespaces": [namespace], "permissions": ["chat"]}
    refused(send(gw, scoped, "POST", "/admin/v1/keys", json=body), 403, "not_allowed")
    refused(send(gw, scoped, "GET", "/admin/v1/keys"), 403, "not_allowed")
    wide = make(gw, "*", permissions=["chat", "admin-write"])
    assert send(gw, wide["secret"], "POST", "/admin/v1/keys", json=body).status_code == 201
    body["permissions"] = ["chat", "learn"]
    refused(send(gw, wide["secret"], "POST", "/admin/v1/keys", json=body), 403, "not_allowed")
    raised = {"permissions": ["admin-read", "admin-write"]}
    own = f"/admin/v1/keys/{wide['id']}"
    refused(send(gw, wide["secret"], "PATCH", own, json=raised), 403, "not_allowed")


def admin_routes(gw: Gateway) -> Iterator[tuple[str, str]]:
    for path, methods in gw.app.openapi()["paths"].items():
        if path.startswith("/admin/v1"):
            for method in methods:
                yield method.upper(), path


def test_no_admin_endpoint_is_open_to_clients_or_strangers(gw: Gateway, namespace: str) -> None:
    secret = make(gw, namespace)["secret"]
    routes = list(admin_routes(gw))
    assert ("POST", "/admin/v1/keys") in routes
    for method, path in routes:
        assert send(gw, None, method, path).status_code == 401, path
        assert send(gw, secret, method, path).status_code == 403, path


def test_no_admin_endpoint_writes_for_a_reader(gw: Gateway) -> None:
    """Whatever it answers, it is no success, and for anything but a GET mostly a refusal."""
    secret = make(gw, "nowhere", permissions=["admin-read"])["secret"]
    for method, path in admin_routes(gw):
        if method in ("PUT", "PATCH", "DELETE"):
            assert send(gw, secret, method, path, json={}).status_code == 403, (method, path)


# -- how often ----------------------------------------------------------------------------------


def test_more_than_the_rate_is_a_429_that_says_when(gw: Gateway, namespace: str) -> None:
    secret = make(gw, namespace, requests_per_minute=2)["secret"]
    left = []
    for _ in range(2):
        response = ask(gw, secret, mode="off")
        assert response.headers["x-ratelimit-limit-requests"] == "2"
        left.append(response.headers["x-ratelimit-remaining-requests"])
    assert left == ["1", "0"]
    response = ask(gw, secret)
    refused(response, 429, "rate_limit_exceeded")
    assert 25 <= int(response.headers["Retry-After"]) <= 30
    assert ask(gw, CLIENT_KEY, mode="off").status_code == 200


@pytest.mark.parametrize("mode", ["off", "steer"])
def test_the_budget_of_a_day_ends_with_the_day(
    gw: Gateway, up: ScriptedUpstream, namespace: str, mode: str
) -> None:
    key = make(gw, namespace, tokens_per_day=1)
    answer = ask(gw, key["secret"], mode=mode).json()
    refusal = ask(gw, key["secret"], mode=mode)
    refused(refusal, 429, "budget_exceeded")
    left = 86_400 - time.time() % 86_400
    assert left - 5 <= int(refusal.headers["Retry-After"]) <= left + 5
    used = gw.admin("GET", f"/keys/{key['id']}").json()
    assert used["used_today"] == {"requests": 1, "tokens": answer["usage"]["total_tokens"]}
    assert used["last_used_at"] is not None
    gw.admin("PATCH", f"/keys/{key['id']}", json={"tokens_per_day": None})
    assert ask(gw, key["secret"], mode=mode).status_code == 200


def test_an_exploration_is_charged_as_a_whole(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    script_majority(up, "\\boxed{17}", "\\boxed{7}")
    key = make(gw, namespace)
    answer = ask(gw, key["secret"], mode="explore").json()
    used = gw.admin("GET", f"/keys/{key['id']}").json()["used_today"]
    assert used["tokens"] == answer["ttcl"]["cost"]["total_tokens"]
    assert used["tokens"] > answer["usage"]["total_tokens"]


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_is_charged_also_where_nobody_asked_for_usage(
    gw: Gateway, up: ScriptedUpstream, namespace: str, asked: bool
) -> None:
    question = f"What of {namespace}?"
    up.when(question, Reply("word " * 100))
    key = make(gw, namespace)
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
    if asked:
        body["stream_options"] = {"include_usage": True}
    async with gw.open_stream(body, Authorization=f"Bearer {key['secret']}") as stream:
        await stream.read()
    used = gw.admin("GET", f"/keys/{key['id']}").json()["used_today"]
    if asked:
        told = [frame["usage"] for frame in stream.frames if frame.get("usage")]
        assert used["tokens"] == told[0]["total_tokens"]
    else:
        assert 100 <= used["tokens"] <= 400


def _used(gw: Gateway, key: dict[str, Any]) -> int:
    return int(gw.admin("GET", f"/keys/{key['id']}").json()["used_today"]["tokens"])


async def _charged(gw: Gateway, key: dict[str, Any]) -> int:
    """Once it is; what is charged after that would be charged twice, and shows in a moment."""
    deadline = time.monotonic() + 5
    while not _used(gw, key):
        assert time.monotonic() < deadline, "nothing is charged"
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    return _used(gw, key)


async def test_a_stream_is_charged_for_all_that_was_made(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    """Every choice, its reasoning and its calls' arguments, at four characters a token."""
    question = f"What of {namespace}?"
    calls = [("call_1", "look", "x" * 4000)]
    up.when(question, Reply("word " * 200, reasoning="hmm " * 500, tool_calls=calls))
    key = make(gw, namespace)
    body = {"model": MODEL, "n": 8, "messages": [{"role": "user", "content": question}]}
    async with gw.open_stream(body, Authorization=f"Bearer {key['secret']}") as stream:
        await stream.read()
    made = (8 * 1000 + 2000 + 4000) // 4
    assert made <= _used(gw, key) <= made + 50


async def test_an_answer_without_usage_is_charged_for_every_choice(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    question = f"What of {namespace}?"
    choice = {"message": {"role": "assistant", "content": None, "reasoning": "x" * 4000}}
    up.when(question, Reply(body={"choices": [{**choice, "finish_reason": "stop"}] * 3}))
    key = make(gw, namespace)
    body = {"model": MODEL, "n": 3, "messages": [{"role": "user", "content": question}]}
    await gw.post(body, Authorization=f"Bearer {key['secret']}")
    assert 3000 <= _used(gw, key) <= 3050


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
async def test_who_hangs_up_before_the_answer_pays_the_prompt(
    gw: Gateway, up: ScriptedUpstream, namespace: str, mode: str, stream: bool
) -> None:
    question = f"What of {namespace}? " + "word " * 1000
    up.when(lambda body: not is_structured_step(body), Reply(delay=30))
    key = make(gw, namespace)
    messages = [{"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "stream": stream, "ttcl": {"mode": mode}}
    calls = 4 if mode == "explore" else 1
    async with hanging_up(gw, body, Authorization=f"Bearer {key['secret']}"):
        await up.until(
            lambda: sum(c.open and not is_structured_step(c.body) for c in up.chats) == calls
        )
    prompt = len(question) // 4
    tutor = 2000 if mode == "explore" else 0
    assert calls * prompt <= await _charged(gw, key) <= calls * prompt + tutor


async def test_who_leaves_an_exploration_pays_what_came_back(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    up.when(is_teacher, Reply(usage=(10, 5000)))
    up.when(is_student, Reply(delay=30))
    key = make(gw, namespace)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "ttcl": {"mode": "explore"},
    }
    async with hanging_up(gw, body, Authorization=f"Bearer {key['secret']}"):
        await up.until(lambda: sum(is_student(c.body) for c in up.chats) == 3)
        await up.until(lambda: any(is_teacher(c.body) and c.finished for c in up.chats))
        await asyncio.sleep(0.1)
    assert 5010 <= await _charged(gw, key) <= 6500


async def test_who_leaves_a_stream_pays_what_was_made(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    question = f"What of {namespace}?"
    up.when(question, Reply(chunks=["x" * 4000] * 9, fault=Fault.HANG, after=5))
    key = make(gw, namespace)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "stream_options": {"include_usage": True},
    }
    async with gw.open_stream(body, Authorization=f"Bearer {key['secret']}") as stream:
        events = stream.events()
        while len(stream.frames) < 5:
            await anext(events)
    assert 4000 <= await _charged(gw, key) <= 4050


# -- the key ring by itself ---------------------------------------------------------------------


def test_an_empty_or_odd_key_opens_nothing(gw: Gateway) -> None:
    keys: KeyRing = gw.app.state.ttcl.keys
    for odd in ("", " ", "\ud800", "x" * 100_000, "null"):
        assert keys.caller(odd) is None


# -- whose doing it was, and taking it back -------------------------------------------------------


def test_what_was_done_with_a_key_names_it(gw: Gateway, namespace: str) -> None:
    key, other = make(gw, namespace), make(gw, "*", permissions=["admin-read", "admin-write"])
    episode = ask(gw, key["secret"], namespace=namespace).headers["X-TTCL-Episode"]
    said = {"episode_id": episode, "score": 0.0}
    assert "key_id" not in send(gw, key["secret"], "POST", "/v1/feedback", json=said).json()
    shown = gw.admin("GET", f"/episodes/{episode}").json()
    assert (shown["key_id"], shown["feedback"][0]["key_id"]) == (key["id"], key["id"])
    rule = {"namespace": namespace, "polarity": "positive", "text": "Check each sum by its parts."}
    made = send(gw, other["secret"], "POST", "/admin/v1/rules", json=rule).json()
    gw.admin("POST", f"/rules/{made['id']}/retire", json={})
    events = gw.admin("GET", "/events", params={"rule_id": made["id"]}).json()["data"]
    assert [event["key_id"] for event in events] == ["admin", other["id"]]
    assert ask(gw, CLIENT_KEY, namespace=namespace).status_code == 200
    (latest,) = gw.admin("GET", "/episodes", params={"namespace": namespace, "limit": 1}).json()[
        "data"
    ]
    assert latest["key_id"] == "environment-1"


def test_a_key_is_withdrawn(gw: Gateway, namespace: str) -> None:
    key = make(gw, namespace)
    episode = ask(gw, key["secret"], namespace=namespace).headers["X-TTCL-Episode"]
    said = {"episode_id": episode, "label": "84"}
    assert send(gw, key["secret"], "POST", "/v1/feedback", json=said).status_code == 201
    why = {"actor": "kim", "reason": "it lied"}
    done = gw.admin("POST", f"/keys/{key['id']}/withdraw", json=why).json()
    assert done["object"] == "withdrawal"
    assert done["ended_at"] is not None
    assert done["counts"]["feedback"] == 1
    assert gw.admin("GET", f"/episodes/{episode}").json()["feedback"] == []
    (event,) = gw.admin("GET", "/events", params={"kind": "key.withdrawn"}).json()["data"]
    assert (event["actor"], event["reason"], event["key_id"]) == ("kim", "it lied", "admin")
    again = gw.admin("POST", f"/keys/{key['id']}/withdraw", json=why).json()
    assert again["counts"] == done["counts"]
    assert send(gw, key["secret"], "GET", "/v1/models").status_code == 200


@pytest.mark.parametrize("unknown", ["key_nobody", "environment-0", "environment-x", "%20"])
def test_who_is_not_known_is_not_withdrawn(gw: Gateway, unknown: str) -> None:
    refused(gw.admin("POST", f"/keys/{unknown}/withdraw", json={}), 404, "key_not_found")


def test_a_key_of_one_namespace_withdraws_nobody(gw: Gateway, namespace: str) -> None:
    bound = make(gw, namespace, permissions=["admin-read", "admin-write"])
    path = f"/admin/v1/keys/{bound['id']}/withdraw"
    assert send(gw, bound["secret"], "POST", path, json={}).status_code == 403


# -- whose keys they are, and their ends ---------------------------------------------------------


def test_the_name_of_a_key_is_the_actor_whatever_is_said(gw: Gateway, namespace: str) -> None:
    made = make(gw, "*", name="Ann Lee", permissions=["chat", "admin-read", "admin-write"])
    claimed = {"actor": "mallory", "reason": "because"}
    rule = {"namespace": namespace, "polarity": "positive", "text": "Add the parts.", **claimed}
    written = send(gw, made["secret"], "POST", "/admin/v1/rules", json=rule).json()
    line = '{"polarity": "positive", "text": "Take away."}'
    path = f"/admin/v1/rules:import?namespace={namespace}&actor=mallory"
    assert send(gw, made["secret"], "POST", path, content=line).json()["imported"] == 1
    gw.admin("POST", f"/rules/{written['id']}/retire", json=claimed)
    events = gw.admin("GET", "/events", params={"namespace": namespace}).json()["data"]
    found = {event["kind"]: (event["actor"], event["key_id"]) for event in events}
    hers = ("Ann Lee", made["id"])
    assert found["rule.created"] == found["rule.imported"] == hers
    assert found["namespace.created"][0] == "Ann Lee"
    # The admin key is nobody's in particular.
    assert found["rule.retired"] == ("mallory", "admin")
    # Nobody acts by the names that the service itself acts by.
    refused(gw.admin("POST", "/rules", json={**rule, "actor": "Learner"}), 400, "invalid_value")
    by_gate = path.removeprefix("/admin/v1").replace("mallory", "gate")
    refused(gw.admin("POST", by_gate, content=line), 400, "invalid_value")
    for name in ("policy", "Admin", "system"):
        body = {"name": name, "namespaces": ["a"]}
        assert (
            refused(gw.admin("POST", "/keys", json=body), 400, "invalid_value")["param"] == "name"
        )


def test_a_key_that_has_expired_is_told_so(
    gw: Gateway, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = {"name": "x", "namespaces": ["a"], "expires_at": "2001-01-01T00:00:00Z"}
    assert refused(gw.admin("POST", "/keys", json=past), 400, "invalid_value")["param"] == (
        "expires_at"
    )
    end = datetime.now(UTC) + timedelta(hours=1)
    made = make(gw, namespace, permissions=[*BASIC, "admin-read"], expires_at=end.isoformat())
    assert ask(gw, made["secret"]).status_code == 200
    context = gw.app.state.ttcl.store.context
    monkeypatch.setattr(context, "clock", lambda: end)
    said = refused(ask(gw, made["secret"]), 401, "key_expired")["message"]
    assert f"{end:%Y-%m-%d %H:%M} UTC" in said
    refused(send(gw, made["secret"], "GET", "/admin/v1/rules"), 401, "key_expired")
    gw.admin("PATCH", f"/keys/{made['id']}", json={"expires_at": None})
    assert ask(gw, made["secret"]).status_code == 200


def test_a_key_is_rotated_by_who_may_do_what_it_may(gw: Gateway, namespace: str) -> None:
    made = make(gw, namespace, permissions=[*BASIC, "admin-read"])
    writer = make(gw, "*", permissions=["chat", "admin-write"])
    path = f"/admin/v1/keys/{made['id']}/rotate"
    refused(send(gw, writer["secret"], "POST", path, json={}), 403, "not_allowed")
    admins = "/admin/v1/keys/admin/rotate"
    refused(send(gw, writer["secret"], "POST", admins, json={}), 403, "not_allowed")
    refused(gw.admin("POST", "/keys/none/rotate", json={}), 404, "key_not_found")
    wrong = {"overlap_hours": -1}
    refused(gw.admin("POST", f"/keys/{made['id']}/rotate", json=wrong), 400, "invalid_value")
    fresh = gw.admin("POST", f"/keys/{made['id']}/rotate", json={"overlap_hours": 1}).json()
    assert (fresh["id"], fresh["name"]) == (made["id"], made["name"])
    assert fresh["secret"].startswith(fresh["shown"])
    for secret in (made["secret"], fresh["secret"]):
        assert ask(gw, secret, namespace=namespace).status_code == 200
    last = gw.admin("POST", f"/keys/{made['id']}/rotate", json={"overlap_hours": 0}).json()
    assert ask(gw, fresh["secret"]).status_code == 401
    assert ask(gw, last["secret"]).status_code == 200


def test_the_admin_key_is_rotated_while_the_gateway_runs(upstream: ScriptedUpstream) -> None:
    with running_gateway(upstream, admin_api_key=None, api_keys=()) as gateway:
        file = gateway.app.state.ttcl.settings.data_dir / "admin.key"
        first = file.read_text().strip()
        path = "/admin/v1/keys/admin/rotate"
        second = send(gateway, first, "POST", path, json={"overlap_hours": 1}).json()["secret"]
        assert file.read_text().strip() == second
        for secret in (first, second):
            assert send(gateway, secret, "GET", "/admin/v1/stats").status_code == 200
        third = send(gateway, second, "POST", path, json={"overlap_hours": 0}).json()["secret"]
        assert send(gateway, second, "GET", "/admin/v1/stats").status_code == 401
        assert send(gateway, third, "GET", "/admin/v1/stats").status_code == 200
        # All that it keeps is for its owner alone, the write-ahead log too.
        kept = {path.name: path.stat().st_mode & 0o077 for path in file.parent.rglob("*")}
        assert {"admin.key", "ttcl.db", "ttcl.db-wal", "ttcl.db-shm", "ttcl.db.lock"} <= set(kept)
        assert set(kept.values()) == {0}
        # No client's key was made by it: who comes without one is let in as before.
        assert ask(gateway, None).status_code == 200
