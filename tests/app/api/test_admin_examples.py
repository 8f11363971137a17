"""The examples in people's hands, over real HTTP: written, read, changed, settled, moved."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.api.schemas import examples as schemas
from tests.app.api.test_admin import change, refused
from tests.app.api.test_admin_rules import get, ids
from tests.fakes import ScriptedUpstream
from tests.gateway import NO_TLS, Gateway, running_gateway

QUESTION = "My card was charged twice for one coffee"
WHY = {"actor": "keeper", "reason": "a test"}


def add(gw: Gateway, namespace: str, question: str = QUESTION, **more: Any) -> dict[str, Any]:
    body = {"namespace": namespace, "question": question, "answer": "charged_twice", **WHY}
    response = gw.admin("POST", "/examples", json={**body, **more})
    assert response.status_code == 201, response.text
    schemas.WrittenExample.model_validate(response.json(), extra="forbid")
    return dict(response.json())


def conflicting(gw: Gateway, namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    wrong = add(gw, namespace, answer="It is a refund.", label="refund")
    right = add(gw, namespace, answer="It was charged twice.", label="charged_twice")
    return wrong, right


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def take(gw: Gateway, content: bytes | str, **params: Any) -> dict[str, Any]:
    response = gw.admin("POST", "/examples:import", content=content, params=params)
    assert response.status_code == 200, response.text
    schemas.ExampleImport.model_validate(response.json(), extra="forbid")
    return dict(response.json())


# -- one example --------------------------------------------------------------------------------


def test_events_in_a_list_are_short_and_one_is_whole(gw: Gateway, namespace: str) -> None:
    answer = "word " * 1_000
    made = add(gw, namespace, answer=answer)
    for path in ("/events", f"/examples/{made['id']}/history"):
        event = get(gw, path, **({"namespace": namespace} if path == "/events" else {}))["data"][0]
        assert event["cut"] == ["after.answer"]
        assert (len(event["after"]["answer"]), event["after"]["question"]) == (1_000, QUESTION)
    (shown,) = get(gw, f"/examples/{made['id']}")["history"]
    assert shown == event
    whole = get(gw, f"/events/{event['id']}")
    assert (whole["cut"], whole["after"]["answer"]) == ([], answer.strip())
    assert gw.admin("GET", "/events/1000000").json()["error"]["code"] == "event_not_found"


def test_an_example_lives(gw: Gateway, namespace: str) -> None:
    made = add(gw, namespace, label="charged_twice", domain="bank")
    assert (made["state"], made["trust"], made["version"]) == ("active", "label", 1)
    assert (made["warnings"], made["lift"], made["expires_at"]) == ([], None, None)
    path = f"/examples/{made['id']}"
    changed = change(gw, path, method="PATCH", answer="twice", expected_version=1, **WHY)
    assert (changed["answer"], changed["label"], changed["version"]) == (
        "twice",
        "charged_twice",
        2,
    )
    cleared = change(gw, path, method="PATCH", label=None, expires_at="2031-01-01T00:00:00Z")
    assert (cleared["label"], cleared["expires_at"]) == (None, "2031-01-01T00:00:00+00:00")
    for verb, state in (
        ("retire", "retired"),
        ("restore", "active"),
        ("quarantine", "quarantined"),
        ("release", "active"),
    ):
        assert change(gw, f"{path}/{verb}", **WHY)["state"] == state
    found = get(gw, path)
    schemas.ExampleWithHistory.model_validate(found, extra="forbid")
    kinds = [event["kind"].removeprefix("example.") for event in found["history"]]
    assert kinds == [
        *("released", "quarantined", "restored", "retired", "patched", "patched", "created"),
    ]
    assert {event["example_id"] for event in found["history"]} == {made["id"]}
    assert (found["history"][0]["actor"], found["history"][0]["reason"]) == ("keeper", "a test")
    page = get(gw, f"{path}/history", limit=2)
    assert (len(page["data"]), page["total"]) == (2, 7)
    second = get(gw, f"{path}/history", limit=2, cursor=page["next_cursor"])
    assert second["data"][0]["kind"] == "example.restored"
    events = get(gw, "/events", namespace=namespace, example_id=made["id"], kind="example.")
    assert events["total"] == 7
    evidence = get(gw, f"{path}/evidence")
    assert (evidence["example_id"], evidence["exposures"]) == (made["id"], [])
    schemas.ExampleEvidence.model_validate(evidence, extra="forbid")


def test_the_same_again_is_the_one_that_is_there(gw: Gateway, namespace: str) -> None:
    first = add(gw, namespace, trust="score")
    again = add(gw, namespace, QUESTION.upper())
    assert (again["id"], again["trust"]) == (first["id"], "label")
    assert again["verified_at"] > first["verified_at"]
    assert get(gw, "/examples", namespace=namespace)["total"] == 1


def test_what_belongs_to_somebody_waits_in_quarantine(gw: Gateway, namespace: str) -> None:
    held = add(gw, namespace, answer="Write to ann@example.com.")
    assert (held["state"], held["warnings"]) == ("quarantined", ["personal_data"])
    assert held["reason"] == "personal_data: e-mail"
    assert change(gw, f"/examples/{held['id']}/release", **WHY)["state"] == "active"
    fine = add(gw, namespace, "Where is my card")
    body = {"answer": "The password is hunter2.", **WHY}
    told = gw.admin("PATCH", f"/examples/{fine['id']}", json=body).json()
    assert (told["state"], told["warnings"]) == ("active", ["secret"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", " \n"),
        ("question", "x" * 32_001),
        ("answer", ""),
        ("answer", "x" * 32_001),
        ("label", "x" * 4_001),
        ("label", " "),
        ("domain", ""),
        ("trust", "rumour"),
        ("state", "lost"),
        ("expires_at", "2031-01-01T00:00:00"),
        ("source_episode", "\x00"),
        ("namespace", "a b"),
        ("surprise", 1),
    ],
)
def test_a_wrong_field_is_named(gw: Gateway, namespace: str, field: str, value: Any) -> None:
    body = {"namespace": namespace, "question": "q", "answer": "a", field: value}
    refused(gw.admin("POST", "/examples", json=body), 400, field)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "nothing to change"),
        ({"question": None}, "question"),
        ({"answer": None}, "answer"),
        ({"domain": None}, "domain"),
        ({"label": ""}, "label"),
        ({"trust": "label"}, "trust"),
    ],
)
def test_a_wrong_change_is_told(
    gw: Gateway, namespace: str, body: dict[str, Any], said: str
) -> None:
    made = add(gw, namespace)
    error = refused(gw.admin("PATCH", f"/examples/{made['id']}", json=body), 400)
    assert said in error["message"]


def test_what_can_not_be_done_is_refused(gw: Gateway, namespace: str) -> None:
    made, other = add(gw, namespace), add(gw, namespace, "Where is my card")
    path = f"/examples/{made['id']}"
    stale = gw.admin("POST", f"{path}/retire", json={"expected_version": 7})
    assert refused(stale, 409)["code"] == "version_conflict"
    assert stale.headers["x-ttcl-current-version"] == "1"
    refused(gw.admin("POST", f"{path}/restore", json={}), 409)
    refused(gw.admin("POST", f"{path}/release", json={}), 409)
    refused(gw.admin("PATCH", f"/examples/{other['id']}", json={"question": QUESTION}), 409)
    for method, address in (
        ("GET", ""),
        ("GET", "/history"),
        ("GET", "/evidence"),
        ("PATCH", ""),
        *(("POST", f"/{verb}") for verb in ("retire", "restore", "release", "settle")),
    ):
        body = {"answer": "a"} if method == "PATCH" else {}
        options = {} if method == "GET" else {"json": body}
        nowhere = gw.admin(method, f"/examples/example_none{address}", **options)
        assert refused(nowhere, 404, "example")["code"] == "example_not_found"


def test_a_frozen_namespace_refuses_every_change(gw: Gateway, namespace: str) -> None:
    _, right = conflicting(gw, namespace)
    gw.admin("POST", f"/namespaces/{namespace}/freeze", json=WHY)
    path = f"/examples/{right['id']}"
    new = {"namespace": namespace, "question": "q", "answer": "a"}
    prune = {"namespace": namespace, "policy": "fifo", "max": 0}
    for method, address, body in (
        ("POST", "/examples", new),
        ("PATCH", path, {"answer": "b"}),
        ("POST", f"{path}/retire", {}),
        ("POST", f"{path}/quarantine", {}),
        ("POST", f"{path}/settle", {}),
        ("POST", "/examples:prune", prune),
    ):
        error = refused(gw.admin(method, address, json=body), 409)
        assert error["code"] == "namespace_frozen", address
    (line,) = take(gw, json.dumps(new))["refused"]
    assert (line["line"], "frozen" in line["reason"]) == (1, True)


# -- lists --------------------------------------------------------------------------------------


def test_filters_and_orders(gw: Gateway, namespace: str) -> None:
    first = add(gw, namespace, trust="score", domain="bank")
    second = add(gw, namespace, "Where is my card", source_episode="ep_1")
    third = add(gw, namespace, "What is 2 + 2", answer="4", state="candidate")

    def found(**params: Any) -> list[str]:
        return ids(get(gw, "/examples", namespace=namespace, **params))

    assert found() == [third["id"], second["id"], first["id"]]
    assert found(sort="oldest") == [first["id"], second["id"], third["id"]]
    assert found(state="candidate") == [third["id"]]
    assert found(trust="score") == [first["id"]]
    assert found(domain="bank") == [first["id"]]
    assert found(q="CARD") == [second["id"], first["id"]]
    assert found(q="4") == [third["id"]]
    assert found(source_episode="ep_1") == [second["id"]]
    assert found(created_after=second["created_at"]) == [third["id"], second["id"]]
    assert found(created_before=second["created_at"]) == [first["id"]]
    assert found(min_exposures=1) == []
    assert len(found(max_exposures=0)) == 3
    assert found(min_lift=-1) == []
    for name, value in (("trust", "x"), ("min_lift", "2"), ("created_after", "2026-01-01T00:00")):
        refused(gw.admin("GET", "/examples", params={name: value}), 400, name)
    refused(gw.admin("GET", "/examples", params={"namespace": "nowhere-at-all"}), 404, "namespace")


@pytest.mark.parametrize("sort", ["newest", "oldest", "used"])
def test_pages_in_every_order_are_complete(gw: Gateway, namespace: str, sort: str) -> None:
    made = {add(gw, namespace, f"Question number {n} of many")["id"] for n in range(5)}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(gw, "/examples", namespace=namespace, sort=sort, limit=2, **cursor)
        assert page["total"] == 5
        seen += ids(page)
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert (len(seen), set(seen)) == (5, made)


def test_search_by_meaning(gw: Gateway, namespace: str) -> None:
    near, far = add(gw, namespace), add(gw, namespace, "Whales sing below ice")
    hidden = add(gw, namespace, "My card was charged thrice", state="quarantined")
    found = get(gw, "/examples:search", namespace=namespace, similar_to="card was charged twice")
    assert ids(found) == [near["id"], far["id"]]
    assert found["data"][0]["score"] > found["data"][1]["score"]
    params = {"namespace": namespace, "similar_to": QUESTION, "state": "quarantined"}
    assert ids(get(gw, "/examples:search", **params)) == [hidden["id"]]
    refused(gw.admin("GET", "/examples:search"), 400, "similar_to")


# -- conflicts ----------------------------------------------------------------------------------


def test_a_conflict_is_listed_and_settled(gw: Gateway, namespace: str) -> None:
    wrong, right = conflicting(gw, namespace)
    alone = add(gw, namespace, "Whales sing below ice", label="song")
    found = get(gw, "/examples:conflicts", namespace=namespace)
    (pair,) = found["data"]
    schemas.Conflict.model_validate(pair, extra="forbid")
    assert (pair["one"]["id"], pair["other"]["id"]) == (right["id"], wrong["id"])
    assert (found["total"], pair["similarity"]) == (1, 1.0)
    assert get(gw, "/examples:conflicts")["total"] >= 1
    refused(gw.admin("POST", f"/examples/{alone['id']}/settle", json={}), 409)
    body = {"expected_version": 7, **WHY}
    refused(gw.admin("POST", f"/examples/{right['id']}/settle", json=body), 409)
    settled = change(gw, f"/examples/{right['id']}/settle", **WHY)
    schemas.Settled.model_validate(settled, extra="forbid")
    assert settled["kept"]["id"] == right["id"]
    assert [(each["id"], each["state"]) for each in settled["retired"]] == [
        (wrong["id"], "retired")
    ]
    assert get(gw, "/examples:conflicts", namespace=namespace)["data"] == []


# -- many at once -------------------------------------------------------------------------------


def test_a_prune_does_what_its_preview_showed(gw: Gateway, namespace: str) -> None:
    made = [add(gw, namespace, f"Question number {n} of many")["id"] for n in range(4)]
    order = {"namespace": namespace, "policy": "fifo", "max": 1}
    preview = change(gw, "/examples:prune", **order, dry_run=True)
    schemas.ExamplePrune.model_validate(preview, extra="forbid")
    assert ids({"data": preview["examples"]}) == made[:3]
    assert (preview["active_before"], preview["active_after"], preview["total"]) == (4, 1, 3)
    assert get(gw, "/examples", namespace=namespace, state="active")["total"] == 4
    late = add(gw, namespace, "One more question")
    stale = gw.admin("POST", "/examples:prune", json={**order, "token": preview["token"]})
    assert refused(stale, 409)["code"] == "preview_outdated"
    done = change(gw, "/examples:prune", **order, **WHY)
    assert ids({"data": done["examples"]}) == made
    assert ids(get(gw, "/examples", namespace=namespace, state="active")) == [late["id"]]
    similar = {**order, "policy": "similarity"}
    error = refused(gw.admin("POST", "/examples:prune", json=similar), 400)
    assert "fifo, age or utility" in error["message"]
    refused(gw.admin("POST", "/examples:prune", json={**order, "namespace": "nowhere"}), 404)


def test_an_import_is_what_was_exported(gw: Gateway, namespace: str) -> None:
    add(gw, namespace, trust="verifier", label="twice", expires_at="2031-01-01T00:00:00Z")
    add(gw, namespace, "Where is my card", state="candidate", domain="bank")
    exported = gw.admin("GET", "/examples:export", params={"namespace": namespace})
    assert exported.headers["content-type"] == "application/x-ndjson"
    copy = f"{namespace}-copy"
    told = take(gw, exported.content, namespace=copy, **WHY)
    assert (told["imported"], told["skipped"], told["unembedded"]) == (2, 0, 0)
    again = take(gw, exported.content, namespace=copy)
    assert (again["imported"], again["skipped"]) == (0, 2)
    kept = ("state", "question", "answer", "label", "domain", "trust", "verified_at", "expires_at")
    both = [
        [{name: row[name] for name in kept} for row in get(gw, "/examples", namespace=each)["data"]]
        for each in (namespace, copy)
    ]
    assert both[0] == both[1]
    score = get(gw, "/examples:search", namespace=copy, similar_to=QUESTION)["data"][0]["score"]
    assert score == pytest.approx(1.0, abs=1e-5)
    bare = lines(gw.admin("GET", "/examples:export", params={"namespace": copy, "vectors": False}))
    assert all("vector" not in row for row in bare)


def test_broken_lines_stop_no_others(gw: Gateway, namespace: str) -> None:
    good = {"question": QUESTION, "answer": "charged_twice", "namespace": namespace}
    vector = {"embedding_model": gw.embedder.name, "vector": "AAAA"}
    content = [
        json.dumps(good),
        "{",
        json.dumps({**good, "question": " "}),
        json.dumps({**good, "answer": "x" * 32_001}),
        json.dumps({**good, "label": 7}),
        json.dumps({**good, "trust": "rumour"}),
        json.dumps({**good, "question": "A vector that is none", **vector}),
        json.dumps({"question": "Where", "answer": "to"}),
        "[]",
        "",
        json.dumps({**good, "answer": "Mail ann@example.com."}),
        json.dumps({**good, "question": "Verified elsewhere", "trust": "score"}),
        json.dumps(good),
    ]
    body = "\n".join(content)
    dry = take(gw, body, dry_run=True)
    assert get(gw, "/examples", q="Verified elsewhere")["total"] == 0
    done = take(gw, body, **WHY)
    for told in (dry, done):
        assert (told["imported"], told["skipped"]) == (3, 1)
        assert [each["line"] for each in told["refused"]] == [2, 3, 4, 5, 6, 7, 8, 9]
        assert told["quarantined"] == [{"line": 11, "reason": "personal_data: e-mail"}]
    reasons = [each["reason"].partition(":")[0] for each in done["refused"]]
    assert reasons[:7] == [
        *("not JSON", "question", "answer", "label", "trust", "vector", "namespace")
    ]
    rows = get(gw, "/examples", namespace=namespace)["data"]
    assert [(row["state"], row["trust"]) for row in rows] == [
        ("active", "score"),
        ("quarantined", "label"),
        ("active", "label"),
    ]
    more = json.dumps({**good, "question": "Told by a client's score"})
    take(gw, more, trust="score")
    assert get(gw, "/examples", namespace=namespace, trust="score")["total"] == 2


def test_an_imported_conflict_is_seen(gw: Gateway, namespace: str) -> None:
    rows = [
        {"question": QUESTION, "answer": label, "label": label, "namespace": namespace}
        for label in ("refund", "charged_twice")
    ]
    take(gw, "\n".join(map(json.dumps, rows)))
    assert get(gw, "/examples:conflicts", namespace=namespace)["total"] == 1


def test_a_rollback_takes_examples_back_too(gw: Gateway, namespace: str) -> None:
    kept = add(gw, namespace)
    space = f"/namespaces/{namespace}"
    gw.admin("POST", f"{space}/snapshots", json={"label": "good", **WHY})
    change(gw, f"/examples/{kept['id']}", method="PATCH", question="Whales sing", **WHY)
    later = add(gw, namespace, "Where is my card")
    plan = change(gw, f"{space}/rollback", to_snapshot="good", dry_run=True)
    assert (plan["changed"], plan["examples_changed"], plan["examples_retired"]) == (0, 2, 1)
    changed = {each["example"]: each for each in plan["examples"]}
    assert changed[kept["id"]]["before"] == {"question": "Whales sing"}
    assert changed[kept["id"]]["after"] == {"question": QUESTION}
    assert changed[later["id"]]["created_later"] is True
    done = change(gw, f"{space}/rollback", to_snapshot="good", **WHY)
    assert done["event"] is not None
    assert get(gw, f"/examples/{later['id']}")["state"] == "retired"
    # Its vector came back with its words.
    near = get(gw, "/examples:search", namespace=namespace, similar_to=QUESTION)["data"]
    assert [(each["id"], round(each["score"], 4)) for each in near] == [(kept["id"], 1.0)]


# -- who may ------------------------------------------------------------------------------------


def test_a_key_sees_and_changes_only_its_namespaces(gw: Gateway, namespace: str) -> None:
    other = f"{namespace}-other"
    mine, theirs = add(gw, namespace), add(gw, other)
    made = gw.admin(
        "POST",
        "/keys",
        json={
            "name": "scoped",
            "namespaces": [namespace],
            "permissions": ["admin-read", "admin-write"],
        },
    ).json()

    def ask(method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {made['secret']}"}
        url = f"{gw.url}/admin/v1{path}"
        return httpx.request(method, url, headers=headers, verify=NO_TLS, timeout=30, **options)

    assert ids(ask("GET", "/examples").json()) == [mine["id"]]
    assert ask("GET", f"/examples/{mine['id']}").status_code == 200
    refused(ask("GET", f"/examples/{theirs['id']}"), 404, "example")
    refused(ask("POST", f"/examples/{theirs['id']}/retire", json={}), 404, "example")
    refused(ask("POST", f"/examples/{theirs['id']}/settle", json={}), 404, "example")
    refused(ask("GET", "/examples:conflicts"), 400, "namespace")
    refused(ask("GET", "/examples:conflicts", params={"namespace": other}), 404, "namespace")
    refused(ask("GET", "/examples:search", params={"similar_to": "card"}), 400, "namespace")
    body = {"namespace": other, "question": "q", "answer": "a"}
    refused(ask("POST", "/examples", json=body), 404, "namespace")
    prune = {"namespace": other, "policy": "fifo", "max": 0}
    refused(ask("POST", "/examples:prune", json=prune), 404, "namespace")
    exported = lines(ask("GET", "/examples:export"))
    assert [row["id"] for row in exported] == [mine["id"]]
    told = ask("POST", "/examples:import", content=json.dumps(body)).json()
    assert told["refused"] == [{"line": 1, "reason": f"namespace: there is no '{other}'"}]


def test_a_reading_key_changes_nothing(gw: Gateway, namespace: str) -> None:
    made = add(gw, namespace)
    key = {"name": "r", "namespaces": [namespace], "permissions": ["admin-read"]}
    secret = gw.admin("POST", "/keys", json=key).json()["secret"]
    headers = {"Authorization": f"Bearer {secret}"}
    url = f"{gw.url}/admin/v1/examples"
    assert httpx.get(url, headers=headers, verify=NO_TLS).status_code == 200
    for path in (f"/{made['id']}/retire", f"/{made['id']}/settle", ":import", ":prune"):
        assert httpx.post(f"{url}{path}", headers=headers, verify=NO_TLS).status_code == 403


# -- where else they are told ---------------------------------------------------------------------


def test_counts_and_settings_know_examples(gw: Gateway, namespace: str) -> None:
    add(gw, namespace)
    change(gw, f"/examples/{add(gw, namespace, 'Where is it')['id']}/retire", **WHY)
    summary = get(gw, f"/namespaces/{namespace}")
    assert (summary["examples"]["active"], summary["examples"]["retired"]) == (1, 1)
    stats = get(gw, "/stats")
    assert stats["examples_by_namespace"][namespace] == {"active": 1, "retired": 1}
    assert stats["examples"]["active"] >= 1
    assert stats["index"]["examples_indexed"] == stats["index"]["examples_stored"] >= 1
    ready = httpx.get(f"{gw.url}/readyz", verify=NO_TLS).json()["checks"]["index"]
    assert (ready["ok"], ready["examples_indexed"]) == (True, ready["examples_stored"])
    metrics = httpx.get(f"{gw.url}/metrics", verify=NO_TLS).text
    assert f"ttcl_examples_indexed {float(ready['examples_indexed'])}" in metrics
    own = {"examples": "off", "max_examples": 2, "example_capacity": 1, "example_days": 3}
    told = change(gw, f"/namespaces/{namespace}", method="PATCH", settings=own, **WHY)
    assert {name: told["settings"][name] for name in own} == own
    evicting = add(gw, namespace, "One more than there is room for")
    assert evicting["expires_at"] is not None
    assert get(gw, "/examples", namespace=namespace, state="active")["total"] == 1
    for name, value in (("examples", "all"), ("max_examples", 33), ("example_days", 0)):
        body = {"settings": {name: value}}
        refused(gw.admin("PATCH", f"/namespaces/{namespace}", json=body), 400)


def test_an_example_without_an_embedder_is_written(upstream: ScriptedUpstream) -> None:
    from tests.fakes import HashEmbedder

    embedder = HashEmbedder()
    embedder.ready = False
    with running_gateway(upstream, embedder=embedder) as gw:
        add(gw, "shop")
        params = {"similar_to": QUESTION, "namespace": "shop"}
        refused(gw.admin("GET", "/examples:search", params=params), 503)
        assert get(gw, "/stats")["index"]["examples_unembedded"] == 1
