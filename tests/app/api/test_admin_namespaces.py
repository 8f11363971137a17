"""`/admin/v1/namespaces`, `/jobs` and `/events` over real HTTP; what is set there takes effect."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.app.api.test_admin import OTHER, RULE, ask, change, create, refused, sent
from tests.compat.helpers import script_loop, script_majority
from tests.fakes import Reply, ScriptedUpstream, is_distiller
from tests.gateway import Gateway

WHO = {"actor": "ann", "reason": "because"}


def make(gw: Gateway, namespace: str, **settings: Any) -> dict[str, Any]:
    body = {"name": namespace, "settings": settings, **WHO}
    response = gw.admin("POST", "/namespaces", json=body)
    assert response.status_code == 201, response.text
    return dict(response.json())


def put(gw: Gateway, namespace: str, **settings: Any) -> dict[str, Any]:
    return change(gw, f"/namespaces/{namespace}", method="PATCH", settings=settings, **WHO)


def got(gw: Gateway, path: str, **params: Any) -> dict[str, Any]:
    response = gw.admin("GET", path, params=params)
    assert response.status_code == 200, response.text
    return dict(response.json())


def events(gw: Gateway, **params: Any) -> list[dict[str, Any]]:
    page = got(gw, "/events", limit=500, **params)
    assert page["object"] == "list"
    assert page["total"] == len(page["data"])
    return list(reversed(page["data"]))


def outcome(gw: Gateway, response: httpx.Response) -> tuple[str, str | None]:
    """What became of a request's episode."""
    episode = gw.settled(response.headers["X-TTCL-Episode"])
    return episode["status"], episode["reason"]


def fresh(up: ScriptedUpstream, *distilled: Reply) -> None:
    """An upstream whose answers teach something; `distilled` is what its distiller says."""
    up.reset()
    for reply in distilled:
        up.when(is_distiller, reply)
    script_loop(up)
    script_majority(up, "Adding up, the answer is \\boxed{17}.", "Taking away: \\boxed{7}.")


# -- making, setting, deleting ------------------------------------------------------------------


def test_a_namespace_is_made_listed_and_set(gw: Gateway, namespace: str) -> None:
    made = make(gw, namespace, capacity=7, learn=False)
    assert made["object"] == "namespace"
    assert made["settings"]["capacity"] == 7
    assert made["settings"]["pruning"] is None
    assert made["frozen"] is made["paused"] is False
    assert made["rules"] == {"candidate": 0, "active": 0, "quarantined": 0, "retired": 0}
    again = gw.admin("POST", "/namespaces", json={"name": namespace})
    assert refused(again, 409, "name")["code"] == "namespace_exists"
    create(gw, namespace)
    assert got(gw, f"/namespaces/{namespace}")["rules"]["active"] == 1
    changed = put(gw, namespace, learn=None, sample_rate=0.5)["settings"]
    assert (changed["learn"], changed["sample_rate"], changed["capacity"]) == (None, 0.5, 7)
    told = [(e["kind"], e["actor"]) for e in events(gw, namespace=namespace, kind="namespace.")]
    assert told == [("namespace.created", "ann"), ("namespace.changed", "ann")]
    names, cursor = [], None
    while True:
        page = got(gw, "/namespaces", limit=2, **({"cursor": cursor} if cursor else {}))
        names += [each["name"] for each in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == sorted(names)
    assert len(names) == page["total"]
    assert namespace in names


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"sample_rate": 2}, "settings.sample_rate"),
        ({"capacity": 0}, "settings.capacity"),
        ({"capacity": 10**30}, "settings.capacity"),
        ({"pruning": "random"}, "settings.pruning"),
        ({"policy": "free"}, "settings.policy"),
        ({"colour": "red"}, "settings.colour"),
        ({"retention_days": 0.5}, "settings.retention_days"),
        ("none", "settings"),
    ],
)
def test_a_wrong_setting_is_named(gw: Gateway, namespace: str, settings: Any, param: str) -> None:
    make(gw, namespace)
    response = gw.admin("PATCH", f"/namespaces/{namespace}", json={"settings": settings})
    refused(response, 400, param)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"settings": {}}),
        ("DELETE", "?confirm={0}", None),
        ("POST", "/freeze", {}),
        ("POST", "/unfreeze", {}),
        ("GET", "/snapshots", None),
        ("POST", "/snapshots", {"label": "a"}),
        ("POST", "/rollback", {"to_event": 1}),
        ("GET", "/curve", None),
    ],
)
def test_an_unknown_namespace_is_404_and_no_name_400(
    gw: Gateway, namespace: str, method: str, path: str, body: Any
) -> None:
    options = {} if body is None else {"json": body}
    response = gw.admin(method, f"/namespaces/{namespace}{path.format(namespace)}", **options)
    assert refused(response, 404)["code"] == "namespace_not_found"
    response = gw.admin(method, f"/namespaces/no%20name{path.format('x')}", **options)
    refused(response, 400, "namespace")


def test_a_deletion_needs_the_name_again_and_takes_everything(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    rule = create(gw, namespace)
    assert RULE in sent(gw, up, namespace)
    path = f"/namespaces/{namespace}"
    refused(gw.admin("DELETE", path), 400, "confirm")
    refused(gw.admin("DELETE", path, params={"confirm": "other"}), 400, "confirm")
    response = gw.admin("DELETE", path, params={"confirm": namespace, **WHO})
    assert response.status_code == 200, response.text
    assert response.json()["rules"] == response.json()["episodes"] == 1
    assert gw.admin("GET", f"/rules/{rule['id']}").status_code == 404
    (left,) = events(gw, namespace=namespace)
    assert (left["kind"], left["actor"]) == ("namespace.deleted", "ann")
    # It comes back, empty, with its next use.
    assert RULE not in sent(gw, up, namespace)
    assert got(gw, path)["episodes"]["skipped"] == 1


# -- what is set takes effect -------------------------------------------------------------------


def test_the_floor_and_the_number_of_rules_are_the_namespaces_own(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    make(gw, namespace)
    create(gw, namespace, RULE)
    create(gw, namespace, OTHER)
    assert {RULE, OTHER} <= set(_rules_in(sent(gw, up, namespace)))
    put(gw, namespace, max_positive=1)
    assert len(_rules_in(sent(gw, up, namespace))) == 1
    before = len(up.chats)
    ask(gw, namespace, learn=False, max_positive=2)  # the request's own word goes first
    assert len(_rules_in(up.chats[before].text)) == 2
    put(gw, namespace, max_positive=None, similarity_floor=1.0)
    create(gw, namespace, "Far away.", trigger="zebra")
    put(gw, namespace, max_positive=3)
    assert "Far away." not in sent(gw, up, namespace)


def _rules_in(text: str) -> list[str]:
    return [rule for rule in (RULE, OTHER) if rule in text]


def test_learning_is_the_namespaces_own(gw: Gateway, up: ScriptedUpstream, namespace: str) -> None:
    fresh(up)
    make(gw, namespace, learn=False)
    assert outcome(gw, ask(gw, namespace)) == ("skipped", "learning_off")
    put(gw, namespace, learn=None, sample_rate=0)
    assert outcome(gw, ask(gw, namespace)) == ("skipped", "not_sampled")
    put(gw, namespace, sample_rate=None, calls_per_hour=0)
    assert outcome(gw, ask(gw, namespace)) == ("skipped", "budget_exhausted")
    put(gw, namespace, calls_per_hour=None, tokens_per_hour=0)
    assert outcome(gw, ask(gw, namespace)) == ("skipped", "budget_exhausted")
    put(gw, namespace, tokens_per_hour=None)
    assert outcome(gw, ask(gw, namespace)) == ("learned", None)


def test_a_frozen_namespace_steers_and_stays_as_it_is(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    fresh(up)
    rule = create(gw, namespace)
    path = f"/namespaces/{namespace}"
    assert change(gw, f"{path}/freeze", **WHO)["frozen"] is True
    assert RULE in sent(gw, up, namespace)
    assert outcome(gw, ask(gw, namespace)) == ("skipped", "namespace_frozen")
    for method, where, body in (
        ("POST", "/rules", {"namespace": namespace, "polarity": "positive", "text": OTHER}),
        ("PATCH", f"/rules/{rule['id']}", {"text": OTHER}),
        ("POST", f"/rules/{rule['id']}/retire", {}),
        ("PATCH", path, {"settings": {"learn": True}}),
    ):
        response = gw.admin(method, where, json=body)
        assert refused(response, 409)["code"] == "namespace_frozen"
    response = gw.admin("DELETE", path, params={"confirm": namespace})
    assert refused(response, 409)["code"] == "namespace_frozen"
    change(gw, f"{path}/unfreeze", **WHO)
    assert outcome(gw, ask(gw, namespace)) == ("learned", None)


def test_a_freeze_while_a_job_runs(gw: Gateway, up: ScriptedUpstream, namespace: str) -> None:
    fresh(up, Reply.of_json({"positive": RULE, "negative": None}, delay=0.6))
    make(gw, namespace)
    response = ask(gw, namespace, mode="explore")
    change(gw, f"/namespaces/{namespace}/freeze", **WHO)
    assert outcome(gw, response) == ("skipped", "namespace_frozen")
    assert gw.rules(namespace) == []


# -- rollback -----------------------------------------------------------------------------------


def test_a_bad_rule_is_rolled_back_and_steers_no_more(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    path = f"/namespaces/{namespace}"
    good = create(gw, namespace)
    response = gw.admin("POST", f"{path}/snapshots", json={"label": " good ", **WHO})
    assert response.status_code == 201, response.text
    assert response.json()["label"] == "good"
    same = gw.admin("POST", f"{path}/snapshots", json={"label": "good"})
    assert refused(same, 409)["code"] == "snapshot_exists"
    assert [each["label"] for each in got(gw, f"{path}/snapshots")["data"]] == ["good"]
    change(gw, f"/rules/{good['id']}", method="PATCH", text="Guess wildly.", **WHO)
    create(gw, namespace, OTHER)
    assert "Guess wildly." in sent(gw, up, namespace)

    plan = change(gw, f"{path}/rollback", to_snapshot="good", dry_run=True)
    assert (plan["changed"], plan["retired"], plan["event"]) == (2, 1, None)
    reworded, later = plan["changes"]
    assert reworded["before"] == {"text": "Guess wildly."}
    assert reworded["after"] == {"text": RULE}
    assert later["after"]["state"] == "retired"
    assert "Guess wildly." in sent(gw, up, namespace)

    seen = {"to_snapshot": "good", "expected_event": plan["before_event"], **WHO}
    done = change(gw, f"{path}/rollback", **seen)
    assert {**done, "event": None, "dry_run": True} == plan
    text = sent(gw, up, namespace)  # at once: the old text was embedded before
    assert RULE in text
    assert "Guess wildly." not in text
    assert OTHER not in text
    change(gw, f"{path}/rollback", to_event=done["before_event"], **WHO)
    text = sent(gw, up, namespace)
    assert "Guess wildly." in text
    assert OTHER in text
    kinds = [e["kind"] for e in events(gw, namespace=namespace, since_event=done["to_event"] + 1)]
    assert kinds.count("namespace.rolled_back") == 2
    assert kinds.count("rule.rolled_back") == 4


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_rollback_does_what_its_dry_run_showed_or_nothing(
    gw: Gateway, namespace: str, dry_run: bool
) -> None:
    path = f"/namespaces/{namespace}/rollback"
    first = create(gw, namespace)
    to_event = events(gw, namespace=namespace)[-1]["id"]
    change(gw, f"/rules/{first['id']}/retire", **WHO)
    plan = change(gw, path, to_event=to_event, dry_run=True)
    later = create(gw, namespace, OTHER)
    body = {"to_event": to_event, "expected_event": plan["before_event"], "dry_run": dry_run}
    error = refused(gw.admin("POST", path, json={**body, **WHO}), 409)
    assert (error["code"], error["param"]) == ("preview_outdated", "expected_event")
    assert got(gw, f"/rules/{first['id']}")["state"] == "retired"
    assert got(gw, f"/rules/{later['id']}")["state"] == "active"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"to_event": 1, "to_snapshot": "a"}, 400),
        ({"to_event": 0}, 400),
        ({"to_event": 10**20}, 400),
        ({"to_event": 1, "expected_event": 0}, 400),
        ({"to_event": 1, "expected_event": "x"}, 400),
        ({"to_time": "2026-01-01T00:00:00"}, 400),
        ({"to_snapshot": ""}, 400),
        ({"to_snapshot": "a\x00b"}, 400),
        ({"to_event": 2**31 - 1}, 404),
        ({"to_snapshot": "no such"}, 404),
        ({"to_time": "2001-01-01T00:00:00Z"}, 404),
    ],
)
def test_a_rollback_to_nowhere_is_refused(
    gw: Gateway, namespace: str, body: dict[str, Any], status: int
) -> None:
    make(gw, namespace)
    response = gw.admin("POST", f"/namespaces/{namespace}/rollback", json=body)
    error = refused(response, status)
    if status == 404:
        assert error["code"] == "event_not_found"


# -- jobs ---------------------------------------------------------------------------------------


def test_jobs_wait_out_a_pause(gw: Gateway, up: ScriptedUpstream, namespace: str) -> None:
    fresh(up)
    make(gw, namespace)
    paused = change(gw, "/jobs:pause", namespace=namespace, **WHO)
    assert namespace in paused["namespaces"]
    assert got(gw, f"/namespaces/{namespace}")["paused"] is True
    response = ask(gw, namespace)
    time.sleep(0.2)
    (job,) = got(gw, "/jobs", namespace=namespace)["data"]
    assert (job["state"], job["attempts"], job["last_error"]) == ("pending", 0, None)
    assert job["episode"] == response.headers["X-TTCL-Episode"]
    assert got(gw, "/jobs", namespace=namespace, state="failed")["total"] == 0
    assert namespace not in change(gw, "/jobs:resume", namespace=namespace)["namespaces"]
    assert outcome(gw, response) == ("learned", None)
    told = [e["kind"] for e in events(gw, namespace=namespace, kind="learning.")]
    assert told == ["learning.paused", "learning.resumed"]
    unknown = gw.admin("POST", "/jobs:pause", json={"namespace": f"{namespace}-x"})
    assert refused(unknown, 404)["code"] == "namespace_not_found"


def test_a_failed_job_is_tried_again(gw: Gateway, up: ScriptedUpstream, namespace: str) -> None:
    fresh(up, Reply(status=403, body={"error": {"message": "no", "type": "x"}}))
    make(gw, namespace)
    response = ask(gw, namespace)
    assert outcome(gw, response)[0] == "failed"
    (job,) = got(gw, "/jobs", namespace=namespace, state="failed")["data"]
    assert job["last_error"]
    fresh(up)
    retried = change(gw, f"/jobs/{job['id']}/retry", **WHO)
    assert (retried["state"], retried["attempts"]) == ("pending", 0)
    assert outcome(gw, response) == ("learned", None)
    assert [e["actor"] for e in events(gw, namespace=namespace, kind="job.retried")] == ["ann"]
    done = gw.admin("POST", f"/jobs/{job['id']}/retry", json={})
    refused(done, 409)
    missing = gw.admin("POST", "/jobs/2000000000/retry", json={})
    assert refused(missing, 404)["code"] == "job_not_found"


# -- events and numbers -------------------------------------------------------------------------


def test_events_are_filtered(gw: Gateway, namespace: str) -> None:
    rule = create(gw, namespace)
    change(gw, f"/rules/{rule['id']}/retire", actor="bob", reason="bad")
    created, written, retired = events(gw, namespace=namespace)
    assert [e["id"] for e in events(gw, rule_id=rule["id"])] == [written["id"], retired["id"]]
    assert events(gw, namespace=namespace, actor="bob") == [retired]
    assert events(gw, namespace=namespace, until_event=created["id"]) == [created]
    assert events(gw, namespace=namespace, since="2999-01-01T00:00:00Z") == []
    assert retired["before"]["state"] == "active"
    for params, param in (
        ({"kind": "Rule!"}, "kind"),
        ({"since_event": -1}, "since_event"),
        ({"since": "yesterday"}, "since"),
        ({"cursor": "x"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"actor": "a\x00"}, "actor"),
    ):
        refused(gw.admin("GET", "/events", params=params), 400, param)


def test_the_curve_counts_what_was_learned(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    fresh(up)
    assert outcome(gw, ask(gw, namespace)) == ("learned", None)
    for by, points in (("day", 3), ("hour", 2)):
        curve = got(gw, f"/namespaces/{namespace}/curve", by=by, points=points)
        assert len(curve["data"]) == points
        assert sum(point["episodes"] for point in curve["data"]) == 1
        assert sum(point["learned"] for point in curve["data"]) == 1
        assert sum(point["rules_created"] for point in curve["data"]) >= 1
    refused(gw.admin("GET", f"/namespaces/{namespace}/curve", params={"by": "x"}), 400, "by")


# -- out and in again ----------------------------------------------------------------------------


def moved(gw: Gateway, name: str, content: bytes | str, **params: Any) -> httpx.Response:
    given = {**WHO, **params}
    return gw.admin("POST", f"/namespaces/{name}/import", content=content, params=given)


def test_a_namespace_goes_out_and_comes_in_again(gw: Gateway, namespace: str) -> None:
    make(gw, namespace, capacity=7)
    rule = gw.add_rule(namespace, "Add the parts.", "sums")
    exported = gw.admin("GET", f"/namespaces/{namespace}/export")
    assert exported.headers["content-type"].startswith("application/x-ndjson")
    content = exported.content
    assert moved(gw, namespace, content).json()["error"]["code"] == "namespace_exists"
    assert moved(gw, f"{namespace}-2", content).json()["error"]["code"] == "rows_exist"
    gw.admin("DELETE", f"/namespaces/{namespace}", params={"confirm": namespace, **WHO})
    done = moved(gw, f"{namespace}-2", content, trust="true")
    assert done.status_code == 201, done.text
    assert (done.json()["rows"]["rules"], done.json()["trusted"]) == (1, True)
    (kept,) = gw.rules(f"{namespace}-2")
    assert (kept["id"], kept["state"]) == (rule["id"], "active")
    assert got(gw, f"/namespaces/{namespace}-2")["settings"]["capacity"] == 7
    (event,) = events(gw, namespace=f"{namespace}-2", kind="namespace.imported")
    assert (event["actor"], event["reason"]) == ("ann", "because")
    # What comes in so is found like anything else.
    body = {"namespace": f"{namespace}-2", "text": "Add the parts.", "limit": 3}
    told = gw.admin("POST", "/rules:explain", json=body).json()
    assert [each["id"] for each in told["candidates"]] == [rule["id"]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"table": 1, "row": 2}',
        b'{"table": "rules", "row": {"seq": 1}}',
        b'{"table": "effects", "row": {"state": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}}",
        b'{"table": "events", "row": {"id": 1e999}}',
        b"{" * 5000,
    ],
)
def test_what_is_no_export_is_refused_whole(gw: Gateway, namespace: str, content: bytes) -> None:
    response = moved(gw, namespace, content)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == "body"
    assert gw.admin("GET", f"/namespaces/{namespace}").status_code == 404


def test_a_key_of_one_namespace_moves_no_other(gw: Gateway, namespace: str) -> None:
    make(gw, namespace)
    body = {"name": "k", "namespaces": ["elsewhere"], "permissions": ["admin-read", "admin-write"]}
    secret = gw.admin("POST", "/keys", json=body).json()["secret"]
    headers = {"Authorization": f"Bearer {secret}"}
    path = f"{gw.url}/admin/v1/namespaces/{namespace}"
    assert httpx.get(f"{path}/export", headers=headers).status_code == 404
    assert httpx.post(f"{path}/import", headers=headers, content=b"").status_code == 404
