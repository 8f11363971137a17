"""What people need daily: many rows at once, keys, settings, the history, import and export,
namespaces made and deleted, cost by day."""

from __future__ import annotations

import json

import pytest

from app.console.words import because, happened
from tests.app.console.visitor import Visitor, read
from tests.app.console.world import EVIL, SHOP, World
from tests.gateway import Gateway

RULES = ("Name the unit.", "Name the day.", "Name the town.")


def states(site: Gateway, namespace: str) -> dict[str, str]:
    return {rule["text"]: rule["state"] for rule in site.rules(namespace)}


def test_chosen_rows_are_changed_and_what_changed_meanwhile_is_told(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    ids = [site.add_rule(namespace, text, "")["id"] for text in RULES]
    form = visitor.page("/rules", namespace=namespace).forms["/console/rules/bulk"]
    chosen = {name: value for name, value in form.items() if name[5:] in ids[:2]}
    assert len(chosen) == 2
    site.admin("PATCH", f"/rules/{ids[0]}", json={"text": "Theirs.", "actor": "bob"})
    base = {name: value for name, value in form.items() if not name.startswith("pick:")}
    base |= {"do": "retire", "reason": "too many"}
    done = visitor.post("/rules/bulk", **base, **chosen)
    assert done.headers["location"] == f"/console/rules?namespace={namespace}&sort=newest"
    told = read(visitor.http.get(done.headers["location"]).text).text
    assert "1 rule was retired. Not done:" in told
    assert states(site, namespace) == {
        "Theirs.": "active",
        "Name the day.": "retired",
        "Name the town.": "active",
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"do": "retire", "reason": "r"}, "Choose at least one row"),
        ({"do": "erase", "reason": "r", "pick:x": "1"}, "Say what to do"),
        ({"do": "retire", "pick:x": "1"}, "Say why"),
        ({"do": "retire", "reason": "r", "pick:x": "one"}, "not a whole number"),
    ],
)
def test_a_wrong_choice_of_rows_is_a_400(
    visitor: Visitor, fields: dict[str, str], said: str
) -> None:
    token = read(visitor.get("").text).forms["/console/logout"]["csrf"]
    for kind in ("rules", "examples"):
        response = visitor.post(f"/{kind}/bulk", csrf=token, **fields)
        assert response.status_code == 400
        assert said in read(response.text).text


def test_lists_are_filtered_by_days(site: Gateway, visitor: Visitor, namespace: str) -> None:
    site.add_rule(namespace, RULES[0], "")
    for path, some, none in (
        ("/rules", "1 rule", "No rule fits"),
        ("/episodes", "episode", "No episode fits"),
        ("/events", "change", "No change fits"),
    ):
        where = {} if path == "/episodes" else {"namespace": namespace}
        assert some in visitor.page(path, since="2020-01-01", until="9999-12-30", **where).text
        assert none in visitor.page(path, until="2020-01-01", **where).text
        for wrong in ("yesterday", "9999-12-31", "2026-13-01"):
            response = visitor.get(path, until=wrong)
            assert response.status_code == 400, wrong
            assert "until: not a day" in response.text


def test_a_rule_is_written_by_hand(site: Gateway, visitor: Visitor, namespace: str) -> None:
    site.admin("POST", "/namespaces", json={"name": namespace})
    fields = {"namespace": namespace, "polarity": "negative", "text": "Avoid rounding early."}
    page = visitor.done("/rules", "/rules", **fields, trigger="sums", reason="handbook")
    assert "by hand" in page.text
    assert "a person vouches for it" in page.text
    refused = visitor.send("/rules", "/rules", **{**fields, "text": " "}, reason="r")
    assert refused.status_code == 400


def test_a_key_is_made_shown_once_changed_and_revoked(site: Gateway, visitor: Visitor) -> None:
    page = visitor.page("/keys")
    form = {**page.forms["/console/keys"], "name": f"desk {EVIL}", "namespaces": "a, b"}
    form |= {"may:chat": "yes", "expires": "2999-01-01", "reason": "a new client"}
    for name in ("may:learn", "may:admin-read", "may:admin-write"):
        form.pop(name, None)
    made = visitor.post("/keys", **form)
    assert made.status_code == 201
    assert EVIL not in made.text
    secret = next(word for word in read(made.text).text.split() if word.startswith("ttcl_"))
    (key,) = [k for k in site.admin("GET", "/keys").json()["data"] if k["name"].startswith("desk")]
    assert (key["namespaces"], key["permissions"]) == (["a", "b"], ["chat"])
    assert key["expires_at"].startswith("2999-01-01")
    assert secret not in visitor.get("/keys").text
    here = f"/keys/{key['id']}"
    changed = {"name": "desk", "requests_per_minute": "7", "may:chat": "yes", "reason": "slower"}
    page = visitor.done("/keys", f"{here}/change", **changed)
    assert "7 a minute" in page.text
    rotated = visitor.send("/keys", f"{here}/rotate", overlap_hours="0", reason="once a year")
    assert secret not in rotated.text
    assert "ttcl_" in read(rotated.text).text
    assert "revoked" in visitor.done("/keys", f"{here}/revoke", reason="gone").text
    wrong = visitor.send("/keys", "/keys", name="", namespaces="*", reason="r")
    assert wrong.status_code == 400


def test_settings_are_shown_without_secrets(visitor: Visitor) -> None:
    page = visitor.page("/settings")
    assert "TTCL_LEARN_SAMPLE_RATE" in page.text
    assert "TTCL_HOLD_OUT_RATE" in page.text
    assert page.text.count("set, not shown") >= 2
    for secret in ("client-key", "admin-key"):
        assert secret not in page.text


def test_a_namespace_is_made_set_up_and_deleted(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    visitor.done("/namespaces", "/namespaces", name=namespace, reason="a new team")
    again = visitor.send("/namespaces", "/namespaces", name=namespace, reason="r")
    assert again.status_code == 409
    assert visitor.send("/namespaces", "/namespaces", name=EVIL, reason="r").status_code == 400
    here = f"/namespaces/{namespace}"
    wanted = {"sample_rate": "0.5", "max_positive": "3", "guard": "no", "policy": "gated"}
    page = visitor.done(f"{here}/settings", f"{here}/settings", **wanted, reason="cheaper")
    assert "sample rate 0.5" in page.text
    stored = site.admin("GET", here).json()["settings"]
    assert {name: stored[name] for name in wanted} == {
        "sample_rate": 0.5,
        "max_positive": 3,
        "guard": False,
        "policy": "gated",
    }
    form = visitor.page(f"{here}/settings").forms[f"/console{here}/settings"]
    assert (form["sample_rate"], form["max_positive"]) == ("0.5", "3")
    for wrong in ({"sample_rate": "2"}, {"max_positive": "many"}, {"control_rate": "x"}, {}):
        fields = {"guard": "no", "policy": "gated", **wrong, "reason": "r"}
        response = visitor.send(f"{here}/settings", f"{here}/settings", **fields)
        assert response.status_code == 400, wrong
    refused = visitor.send(here, f"{here}/delete", confirm="another", reason="r")
    assert refused.status_code == 400
    page = visitor.done(here, f"{here}/delete", confirm=namespace, reason="the team is gone")
    assert f"Deleted: {namespace}" in page.text
    assert visitor.get(here).status_code == 404


def test_the_form_of_settings_has_every_setting_of_a_namespace() -> None:
    from app.console.pages.settings import GROUPS, LABELS
    from rules_store.models.namespaces import NamespaceSettings

    shown = [name for names in GROUPS.values() for name in names]
    assert sorted(shown) == sorted(NamespaceSettings.model_fields) == sorted(LABELS)


def test_rules_go_out_and_come_in(site: Gateway, visitor: Visitor, namespace: str) -> None:
    site.add_rule(namespace, RULES[0], "numbers")
    out = visitor.get("/export/rules", namespace=namespace)
    assert "attachment" in out.headers["content-disposition"]
    (line,) = out.text.splitlines()
    assert json.loads(line)["text"] == RULES[0]
    into = f"{namespace}-2"
    site.admin("POST", "/namespaces", json={"name": into})
    lines = f"{line}\n{{broken {EVIL}\n"
    fields = {"kind": "rules", "namespace": into, "lines": lines}
    checked = visitor.send("/transfer", "/transfer", **fields)
    assert "It would take in 1" in read(checked.text).text
    assert "Line 2: not JSON" in read(checked.text).text
    assert EVIL not in checked.text
    assert site.rules(into) == []
    taken = visitor.send("/transfer", "/transfer", **fields, apply="yes", reason="moved")
    assert "Taken in: 1" in read(taken.text).text
    assert [rule["text"] for rule in site.rules(into)] == [RULES[0]]
    assert visitor.send("/transfer", "/transfer", lines=" ").status_code == 400
    assert visitor.get("/export/rules", namespace="nowhere").status_code == 404


def test_the_overview_says_what_it_costs_over_a_chosen_range(
    visitor: Visitor, world: World
) -> None:
    page = visitor.page("", days="7")
    assert "requests in the last 7 days" in page.text
    assert "calls to the model for each request" in page.text
    assert "Calls for learning a day" in page.text
    for wrong in (EVIL[:90], "30000", "030", "-1"):
        assert "in the last 30 days" in visitor.page("", days=wrong).text
    curve = visitor.page(f"/namespaces/{SHOP}", days="1")
    assert sum(tag == "polyline" for tag, _ in curve.tags) == 5


def test_words_of_our_own_are_not_shown(visitor: Visitor, world: World) -> None:
    for path in ("/rules", "/quarantine", "/episodes", f"/episodes/{world.episode}", "/events"):
        text = visitor.page(path).text
        for own in ("tutor gave", "no contrast", "too_long", "_", "all but age"):
            if own != "_" or path == "/quarantine":
                assert own not in text.replace("quarantine_", ""), (path, own)


def test_reasons_and_events_in_words() -> None:
    assert because("no_contrast:unusable") == (
        "the answers taught nothing (fewer than two answers could be used)"
    )
    assert because("too_long: 33 words") == "too long for a rule (33 words)"
    assert because("upstream_error:502") == "the model server failed (502)"
    assert because("it was: wrong") == "it was: wrong"
    assert because("a_new_reason") == "a new reason"
    assert happened("rule.patched") == "rule edited"
    assert happened("thing.done") == "thing done"


def test_every_event_that_the_store_writes_has_its_words() -> None:
    import re
    from pathlib import Path

    import rules_store.operations
    from app.console.words import _EVENTS

    folder = Path(rules_store.operations.__file__).parent
    kinds = {
        kind
        for file in folder.glob("*.py")
        for kind in re.findall(
            r'"((?:rule|example|namespace|key|job|learning|episodes)s?\.[a-z_]+)"',
            file.read_text(),
        )
    }
    assert len(kinds) > 30
    assert kinds <= set(_EVENTS), kinds - set(_EVENTS)
