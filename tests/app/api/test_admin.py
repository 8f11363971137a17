"""`/admin/v1` over real HTTP: shapes, refusals, events, and that what it changes steers at once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.compat.helpers import QUESTION, check_error, script_majority
from tests.fakes import ScriptedUpstream
from tests.gateway import ADMIN_KEY, CLIENT_KEY, MODEL, Gateway

RULE = "Count what is taken away before what is left."
OTHER = "Name the unit of every number that is written down."
RULE_FIELDS = {
    "id",
    "namespace",
    "polarity",
    "state",
    "text",
    "trigger",
    "domain",
    "frequency",
    "exposures",
    "lift",
    "source_episode",
    "version",
    "created_at",
    "updated_at",
}
EPISODE_FIELDS = {
    "id",
    "namespace",
    "mode",
    "status",
    "reason",
    "question",
    "answer",
    "rules_injected",
    "rules_learned",
    "cost",
}


def create(gw: Gateway, namespace: str, text: str = RULE, **more: Any) -> dict[str, Any]:
    body = {"namespace": namespace, "polarity": "positive", "text": text, "trigger": QUESTION}
    response = gw.admin("POST", "/rules", json={**body, **more})
    assert response.status_code == 201, response.text
    return dict(response.json())


def change(gw: Gateway, path: str, *, method: str = "POST", **body: Any) -> dict[str, Any]:
    response = gw.admin(method, path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def history(gw: Gateway, rule_id: str) -> list[dict[str, Any]]:
    response = gw.admin("GET", f"/rules/{rule_id}")
    assert response.status_code == 200, response.text
    return list(response.json()["history"])


def refused(response: httpx.Response, status: int, param: str | None = None) -> dict[str, Any]:
    """The error of a refusal, checked for its envelope, status and the field that it names."""
    assert response.status_code == status, response.text
    error = check_error(response.json())
    if param is not None:
        assert error["param"] == param, error
        assert param in error["message"] or status == 404, error
    return error


def ask(gw: Gateway, namespace: str, mode: str = "steer", **options: Any) -> httpx.Response:
    """One question that every rule of these tests is near to."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "ttcl": {"mode": mode, "namespace": namespace, **options},
    }
    url = f"{gw.base_url}/chat/completions"
    response = httpx.post(url, json=body, headers=gw.headers, timeout=30)
    assert response.status_code == 200, response.text
    return response


def sent(gw: Gateway, up: ScriptedUpstream, namespace: str) -> str:
    """What the upstream gets of the next question."""
    before = len(up.chats)
    ask(gw, namespace, learn=False)
    (call,) = up.chats[before:]
    return call.text


# -- who may come in ----------------------------------------------------------------------------

PATHS = [
    ("GET", "/rules"),
    ("POST", "/rules"),
    ("GET", "/rules/r"),
    ("PATCH", "/rules/r"),
    ("POST", "/rules/r/retire"),
    ("POST", "/rules/r/restore"),
    ("GET", "/examples"),
    ("POST", "/examples"),
    ("GET", "/examples/e"),
    ("PATCH", "/examples/e"),
    ("POST", "/examples/e/retire"),
    ("POST", "/examples/e/settle"),
    ("GET", "/examples:conflicts"),
    ("POST", "/examples:import"),
    ("GET", "/episodes"),
    ("GET", "/episodes/e"),
    ("GET", "/stats"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (f"Basic {ADMIN_KEY}", 401),
        ("Bearer", 401),
        (f"Bearer {CLIENT_KEY}", 403),
    ],
)
def test_only_the_admin_key_opens(
    gw: Gateway, method: str, path: str, header: str | None, status: int
) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = httpx.request(method, f"{gw.url}/admin/v1{path}", headers=headers)
    refused(response, status)
    assert ("www-authenticate" in response.headers) is (status == 401)


def test_a_key_that_is_no_ascii_is_a_401(gw: Gateway) -> None:
    headers = {"Authorization": "Bearer schlüssel".encode()}
    refused(httpx.get(f"{gw.url}/admin/v1/rules", headers=headers), 401)


# -- every error in one shape -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/rules/r/s/t", "/rules/r/nothing", "", "/"])
def test_an_unknown_path_is_an_enveloped_404(gw: Gateway, path: str) -> None:
    error = refused(gw.admin("GET", path), 404)
    assert error["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/rules"), ("PUT", "/rules/r"), ("GET", "/rules/r/retire"), ("POST", "/stats")],
)
def test_a_wrong_method_is_an_enveloped_405_that_says_what_is_allowed(
    gw: Gateway, method: str, path: str
) -> None:
    response = gw.admin(method, path)
    assert refused(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"null", b'"text"', b""])
def test_a_body_that_is_no_object_is_a_400(gw: Gateway, body: bytes) -> None:
    response = gw.admin("POST", "/rules", content=body)
    refused(response, 400)


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_an_unknown_rule_is_a_404(gw: Gateway, method: str) -> None:
    body = {"text": "x"} if method == "PATCH" else None
    error = refused(gw.admin(method, "/rules/rule_nowhere", json=body), 404, "rule")
    assert error["code"] == "rule_not_found"


@pytest.mark.parametrize("action", ["retire", "restore"])
def test_an_action_on_an_unknown_rule_is_a_404(gw: Gateway, action: str) -> None:
    refused(gw.admin("POST", f"/rules/rule_nowhere/{action}", json={}), 404, "rule")


def test_an_unknown_episode_is_a_404(gw: Gateway) -> None:
    error = refused(gw.admin("GET", "/episodes/ep_nowhere"), 404, "episode")
    assert error["code"] == "episode_not_found"


# -- list ---------------------------------------------------------------------------------------


def test_the_list_pages_through_all_rules_once_with_an_exact_total(
    gw: Gateway, namespace: str
) -> None:
    written = [create(gw, namespace, f"Rule number {n} of five.")["id"] for n in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        params = {"namespace": namespace, "limit": "2", **({"cursor": cursor} if cursor else {})}
        page = gw.admin("GET", "/rules", params=params).json()
        assert page["object"] == "list"
        assert page["total"] == 5
        seen += [rule["id"] for rule in page["data"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == written[::-1]


def test_a_rule_written_while_paging_neither_repeats_nor_hides_one(
    gw: Gateway, namespace: str
) -> None:
    written = [create(gw, namespace, f"Rule number {n} of four.")["id"] for n in range(4)]
    params = {"namespace": namespace, "limit": "2"}
    first = gw.admin("GET", "/rules", params=params).json()
    create(gw, namespace, "Written in between.")
    second = gw.admin("GET", "/rules", params={**params, "cursor": first["next_cursor"]}).json()
    assert [r["id"] for r in first["data"] + second["data"]] == written[::-1]
    assert second["total"] == 5


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {"a", "b", "c"}),
        ({"polarity": "negative"}, {"b"}),
        ({"state": "retired"}, {"c"}),
        ({"state": "active"}, {"a", "b"}),
        ({"domain": "mathematics"}, {"b"}),
        ({"q": "BETA"}, {"b"}),
        ({"q": "gamma trigger"}, {"c"}),
        ({"q": "100%"}, {"a"}),
        ({"q": "%"}, {"a"}),
        ({"q": "_"}, set()),
        ({"source_episode": "ep_nowhere"}, set()),
        ({"polarity": "positive", "state": "active"}, {"a"}),
    ],
)
def test_filters_and_the_total_that_goes_with_them(
    gw: Gateway, namespace: str, filters: dict[str, str], expected: set[str]
) -> None:
    names = {
        create(gw, namespace, "Alpha is 100% sure.", trigger="")["id"]: "a",
        create(
            gw,
            namespace,
            "Avoid beta.",
            polarity="negative",
            domain="mathematics",
            trigger="",
        )["id"]: "b",
        create(gw, namespace, "Prefer delta.", state="retired", trigger="gamma trigger")["id"]: "c",
    }
    page = gw.admin("GET", "/rules", params={"namespace": namespace, **filters}).json()
    assert {names[rule["id"]] for rule in page["data"]} == expected
    assert page["total"] == len(expected)
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "eyJhIjoxfQ=="}, "cursor"),
        ({"cursor": "x" * 501}, "cursor"),
        ({"polarity": "neutral"}, "polarity"),
        ({"state": "asleep"}, "state"),
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"namespace": "no/slash"}, "namespace"),
        ({"namespace": ""}, "namespace"),
        ({"domain": "d" * 65}, "domain"),
        ({"q": "q" * 501}, "q"),
    ],
)
def test_a_wrong_query_value_is_a_400_that_names_it(
    gw: Gateway, query: dict[str, str], param: str
) -> None:
    refused(gw.admin("GET", "/rules", params=query), 400, param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"cursor": "nonsense"}, "cursor"),
        ({"status": "done"}, "status"),
        ({"mode": "off"}, "mode"),
        ({"limit": "0"}, "limit"),
    ],
)
def test_a_wrong_query_value_of_the_episodes_is_a_400_that_names_it(
    gw: Gateway, query: dict[str, str], param: str
) -> None:
    refused(gw.admin("GET", "/episodes", params=query), 400, param)


def test_a_cursor_of_another_listing_is_refused(gw: Gateway, namespace: str) -> None:
    create(gw, namespace, "One.")
    create(gw, namespace, "Two.")
    page = gw.admin("GET", "/rules", params={"namespace": namespace, "limit": "1"}).json()
    assert page["next_cursor"]
    refused(gw.admin("GET", "/episodes", params={"cursor": page["next_cursor"]}), 400, "cursor")


@pytest.mark.parametrize("path", ["/rules", "/episodes"])
def test_an_unknown_namespace_is_a_404(gw: Gateway, path: str) -> None:
    error = refused(gw.admin("GET", path, params={"namespace": "nowhere"}), 404, "namespace")
    assert error["code"] == "namespace_not_found"


# -- create -------------------------------------------------------------------------------------


def test_a_created_rule_has_the_promised_shape_and_one_event(gw: Gateway, namespace: str) -> None:
    rule = create(
        gw, namespace, actor="ana", reason="seen in a review", trigger="subtraction", domain="maths"
    )
    assert set(rule) >= RULE_FIELDS
    assert rule["object"] == "rule"
    expected = {
        "namespace": namespace,
        "polarity": "positive",
        "state": "active",
        "text": RULE,
        "trigger": "subtraction",
        "domain": "maths",
        "frequency": 1,
        "exposures": 0,
        "lift": None,
        "source_episode": None,
        "version": 1,
    }
    assert {name: rule[name] for name in expected} == expected
    (event,) = history(gw, rule["id"])
    assert (event["kind"], event["actor"], event["reason"]) == (
        "rule.created",
        "ana",
        "seen in a review",
    )
    assert event["before"] is None
    assert event["after"]["text"] == RULE


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"namespace": "no/slash"}, "namespace"),
        ({"namespace": None}, "namespace"),
        ({"polarity": "neutral"}, "polarity"),
        ({"state": "asleep"}, "state"),
        ({"text": ""}, "text"),
        ({"text": " \n\t"}, "text"),
        ({"text": "\x00"}, "text"),
        ({"text": 5}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"trigger": "x" * 501}, "trigger"),
        ({"domain": ""}, "domain"),
        ({"actor": ""}, "actor"),
        ({"reason": "x" * 2001}, "reason"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_it_and_writes_nothing(
    gw: Gateway, namespace: str, change: dict[str, Any], param: str
) -> None:
    body = {"namespace": namespace, "polarity": "positive", "text": RULE, **change}
    refused(gw.admin("POST", "/rules", json=body), 400, param)
    assert gw.rules(namespace) == []


@pytest.mark.parametrize("missing", ["namespace", "polarity", "text"])
def test_a_missing_value_is_a_400_that_names_it(gw: Gateway, namespace: str, missing: str) -> None:
    body = {"namespace": namespace, "polarity": "positive", "text": RULE}
    del body[missing]
    refused(gw.admin("POST", "/rules", json=body), 400, missing)


def test_a_rule_becomes_one_clean_line(gw: Gateway, namespace: str) -> None:
    rule = create(gw, namespace, "  Two\nlines\x07 and\t a bell. ")
    assert rule["text"] == "Two lines and a bell."


def test_the_same_text_twice_is_a_409_that_names_the_rule(gw: Gateway, namespace: str) -> None:
    first = create(gw, namespace)
    body = {"namespace": namespace, "polarity": "positive", "text": f" {RULE} "}
    error = refused(gw.admin("POST", "/rules", json=body), 409)
    assert first["id"] in error["message"]
    assert len(gw.rules(namespace)) == 1
    # Neither the other polarity nor another namespace is the same rule.
    create(gw, namespace, polarity="negative")
    create(gw, f"{namespace}-b")


# -- patch --------------------------------------------------------------------------------------


def test_a_patch_changes_what_it_names_and_leaves_one_event(gw: Gateway, namespace: str) -> None:
    rule = create(gw, namespace)
    changed = change(
        gw,
        f"/rules/{rule['id']}",
        method="PATCH",
        trigger="taking away",
        expected_version=1,
        actor="ben",
        reason="too narrow",
    )
    assert changed["version"] == 2
    assert changed["trigger"] == "taking away"
    assert changed["text"] == RULE
    _, event = history(gw, rule["id"])
    assert (event["kind"], event["actor"], event["reason"]) == ("rule.patched", "ben", "too narrow")
    assert event["before"]["trigger"] == QUESTION
    assert event["after"]["trigger"] == "taking away"


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", ""), ("POST", "/retire"), ("POST", "/restore")]
)
def test_an_old_version_is_a_409_that_says_which_it_is_now(
    gw: Gateway, namespace: str, method: str, path: str
) -> None:
    rule = create(gw, namespace)
    change(gw, f"/rules/{rule['id']}", method="PATCH", domain="maths")
    change(gw, f"/rules/{rule['id']}", method="PATCH", domain="algebra")
    body: dict[str, Any] = {"expected_version": 1}
    if method == "PATCH":
        body["text"] = OTHER
    error = refused(gw.admin(method, f"/rules/{rule['id']}{path}", json=body), 409)
    assert "version 3" in error["message"]
    assert len(history(gw, rule["id"])) == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text": ""}, "text"),
        ({"text": "\n"}, "text"),
        ({"text": "x", "expected_version": 0}, "expected_version"),
        ({"state": "retired"}, "state"),
        ({"polarity": "negative"}, "polarity"),
        ({"domain": ""}, "domain"),
    ],
)
def test_a_wrong_patch_is_a_400_that_names_the_field(
    gw: Gateway, namespace: str, body: dict[str, Any], param: str
) -> None:
    rule = create(gw, namespace)
    refused(gw.admin("PATCH", f"/rules/{rule['id']}", json=body), 400, param)
    assert len(history(gw, rule["id"])) == 1


def test_a_patch_that_changes_nothing_is_a_400(gw: Gateway, namespace: str) -> None:
    rule = create(gw, namespace)
    refused(gw.admin("PATCH", f"/rules/{rule['id']}", json={"reason": "no change"}), 400)
    assert len(history(gw, rule["id"])) == 1


def test_a_patch_to_the_text_of_another_rule_is_a_409(gw: Gateway, namespace: str) -> None:
    create(gw, namespace)
    other = create(gw, namespace, OTHER)
    refused(gw.admin("PATCH", f"/rules/{other['id']}", json={"text": RULE}), 409)


# -- retire, restore ----------------------------------------------------------------------------


def test_retire_and_restore_move_the_rule_and_leave_one_event_each(
    gw: Gateway, namespace: str
) -> None:
    rule = create(gw, namespace)
    path = f"/rules/{rule['id']}"
    assert change(gw, f"{path}/retire", actor="cat", reason="harms")["state"] == "retired"
    refused(gw.admin("POST", f"{path}/retire", json={}), 409)
    assert change(gw, f"{path}/restore", actor="dan", reason="no, helps")["state"] == "active"
    refused(gw.admin("POST", f"{path}/restore", json={}), 409)
    events = history(gw, rule["id"])
    assert [(e["kind"], e["actor"], e["reason"]) for e in events[1:]] == [
        ("rule.retired", "cat", "harms"),
        ("rule.restored", "dan", "no, helps"),
    ]


def test_restore_gives_an_old_text_back_as_a_new_version(gw: Gateway, namespace: str) -> None:
    rule = create(gw, namespace)
    path = f"/rules/{rule['id']}"
    change(gw, path, method="PATCH", text=OTHER)
    restored = change(gw, f"{path}/restore", version=1, actor="eve", reason="was better")
    assert (restored["text"], restored["version"], restored["state"]) == (RULE, 3, "active")
    last = history(gw, rule["id"])[-1]
    assert (last["kind"], last["actor"], last["reason"]) == ("rule.restored", "eve", "was better")
    refused(gw.admin("POST", f"{path}/restore", json={"version": 9}), 404, "rule")
    refused(gw.admin("POST", f"{path}/restore", json={"version": 0}), 400, "version")


# -- what it changes steers at once -------------------------------------------------------------


def test_a_created_rule_steers_and_a_retired_one_stops_at_once(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    rule = create(gw, namespace)
    path = f"/rules/{rule['id']}"
    assert RULE in sent(gw, up, namespace)
    change(gw, f"{path}/retire")
    assert RULE not in sent(gw, up, namespace)
    change(gw, f"{path}/restore")
    assert RULE in sent(gw, up, namespace)


def test_a_patched_rule_steers_with_its_new_text_at_once(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    rule = create(gw, namespace)
    path = f"/rules/{rule['id']}"
    change(gw, path, method="PATCH", text=OTHER)
    text = sent(gw, up, namespace)
    assert OTHER in text
    assert RULE not in text
    change(gw, f"{path}/restore", version=1)
    text = sent(gw, up, namespace)
    assert RULE in text
    assert OTHER not in text


@pytest.mark.parametrize("state", ["candidate", "quarantined", "retired"])
def test_only_active_rules_steer(
    gw: Gateway, up: ScriptedUpstream, namespace: str, state: str
) -> None:
    create(gw, namespace, state=state)
    create(gw, namespace, OTHER)
    text = sent(gw, up, namespace)
    assert OTHER in text
    assert RULE not in text


def test_rules_do_not_cross_namespaces(gw: Gateway, up: ScriptedUpstream, namespace: str) -> None:
    create(gw, namespace)
    assert RULE not in sent(gw, up, f"{namespace}-b")


def test_an_exposure_is_counted(gw: Gateway, namespace: str) -> None:
    rule = create(gw, namespace)
    ask(gw, namespace, learn=False)
    ask(gw, namespace, learn=False)
    assert gw.admin("GET", f"/rules/{rule['id']}").json()["exposures"] == 2


# -- episodes and stats -------------------------------------------------------------------------


def test_an_explored_episode_shows_its_whole_trace(
    gw: Gateway, up: ScriptedUpstream, namespace: str
) -> None:
    rule = create(gw, namespace)
    script_majority(up, "Adding up, the answer is \\boxed{17}.", "Taking away: \\boxed{7}.")
    episode_id = ask(gw, namespace, "explore").headers["x-ttcl-episode"]
    episode = gw.settled(episode_id)
    assert set(episode) >= EPISODE_FIELDS | {"trajectories", "selection"}
    assert (episode["status"], episode["reason"]) == ("learned", None)
    assert (episode["namespace"], episode["mode"]) == (namespace, "explore")
    assert episode["question"] == QUESTION
    assert episode["answer"] == "Taking away: \\boxed{7}."
    names = [t["name"] for t in episode["trajectories"]]
    assert names == ["teacher", "student-1", "student-2", "student-3"]
    for trajectory in episode["trajectories"]:
        assert trajectory["text"]
        assert trajectory["judged"]["usable"] is True
    selection = episode["selection"]
    assert (selection["case"], selection["task"], selection["worse"]) == (
        "majority",
        "closed",
        "teacher",
    )
    assert [hit["id"] for hit in episode["rules_injected"]] == [rule["id"]]
    assert {r["polarity"] for r in episode["rules_learned"]} == {"positive", "negative"}
    learned = gw.admin("GET", "/rules", params={"source_episode": episode_id}).json()
    assert learned["total"] == 2
    assert episode["cost"]["calls"] == 5  # Teacher, Tutor, three Students
    assert RULE in str(episode["messages_sent"])


def test_the_list_of_episodes_filters_and_leaves_the_trace_out(gw: Gateway, namespace: str) -> None:
    steered = ask(gw, namespace, learn=False).headers["x-ttcl-episode"]
    explored = ask(gw, namespace, "explore", learn=False).headers["x-ttcl-episode"]
    page = gw.admin("GET", "/episodes", params={"namespace": namespace}).json()
    assert page["object"] == "list"
    assert [e["id"] for e in page["data"]] == [explored, steered]
    assert page["total"] == 2
    for episode in page["data"]:
        assert set(episode) >= EPISODE_FIELDS
        assert "trajectories" not in episode
        assert episode["reason"] == "learning_off"
    only = gw.admin("GET", "/episodes", params={"namespace": namespace, "mode": "steer"}).json()
    assert [e["id"] for e in only["data"]] == [steered]
    skipped = {"namespace": namespace, "status": "skipped", "limit": "1"}
    first = gw.admin("GET", "/episodes", params=skipped).json()
    assert (first["total"], len(first["data"])) == (2, 1)
    second = gw.admin("GET", "/episodes", params={**skipped, "cursor": first["next_cursor"]}).json()
    assert [e["id"] for e in second["data"]] == [steered]
    assert second["next_cursor"] is None


def test_stats_count_exactly(gw: Gateway, namespace: str) -> None:
    create(gw, namespace)
    create(gw, namespace, OTHER, polarity="negative")
    create(gw, namespace, "Retired from the start.", state="retired")
    stats = gw.admin("GET", "/stats").json()
    assert stats["object"] == "stats"
    assert stats["rules_by_namespace"][namespace] == {"active": 2, "retired": 1}
    assert sum(stats["rules"].values()) == sum(
        sum(states.values()) for states in stats["rules_by_namespace"].values()
    )
    assert sum(stats["rules_by_polarity"].values()) == stats["rules"]["active"]
    assert stats["index"]["indexed"] == stats["index"]["stored"]
    assert stats["index"]["behind"] == 0
