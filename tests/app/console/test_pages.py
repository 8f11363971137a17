"""What the pages show and do, as HTTP without a browser: the same works without script."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.app.console.visitor import Page, Visitor, read
from tests.app.console.world import LOST, SHOP, TALES, World
from tests.gateway import MODEL, Gateway

TEXT = "Name the unit of every number that is written down."
OTHER = "Say what is counted before the counting begins."


@pytest.fixture
def rule(site: Gateway, namespace: str) -> dict[str, Any]:
    return site.add_rule(namespace, TEXT, "numbers with units")


def state_of(site: Gateway, rule_id: str) -> dict[str, Any]:
    return dict(site.admin("GET", f"/rules/{rule_id}").json())


def last_event(site: Gateway, rule_id: str) -> tuple[str, str, str]:
    event = state_of(site, rule_id)["history"][-1]
    return event["kind"], event["actor"], event["reason"]


def items(page: Page, prefix: str = "/console/rules/") -> list[str]:
    """Ids of what is listed, in order."""
    return [link.removeprefix(prefix) for link in page.links if re.match(prefix + r"[^?]+$", link)]


def alert(response: httpx.Response) -> str:
    found = re.search(r'class="notice problem" role="alert">(.*?)</p>', response.text)
    assert found, response.text
    return found[1]


# -- rules --------------------------------------------------------------------------------------


def test_rules_are_searched_and_filtered(visitor: Visitor, world: World) -> None:
    found = visitor.page("/rules", q="CLOCK times", namespace=SHOP)
    assert "1 rule" in found.text
    assert "Avoid adding clock times" in found.text
    retired = visitor.page("/rules", namespace=SHOP, state="retired")
    assert items(retired) == [world.retired]
    negative = visitor.page("/rules", namespace=SHOP, polarity="negative")
    assert len(items(negative)) == 4
    assert "No rule fits" in visitor.page("/rules", q="nothing says this").text


async def test_what_a_rule_is_worth_is_shown_and_filtered(
    site: Gateway, visitor: Visitor, namespace: str, rule: dict[str, Any]
) -> None:
    path = f"/rules/{rule['id']}"
    assert "not measured yet" in visitor.page(path).text
    assert items(visitor.page("/rules", namespace=namespace, lift="measured")) == []
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": TEXT}],
        "ttcl": {"mode": "steer", "namespace": namespace, "learn": False},
    }
    answer = (await site.post(body)).json()["ttcl"]
    assert [each["id"] for each in answer["rules"]] == [rule["id"]]
    told = {"episode_id": answer["episode"], "verified": True}
    sent = httpx.post(f"{site.base_url}/feedback", json=told, headers=site.headers, timeout=30)
    assert sent.status_code == 201, sent.text
    text = " ".join(visitor.page(path).text.split())
    # Nothing went without it, so there is nothing that it could be compared with.
    assert "100 % of the outcomes with the rule were right. Without it there is none yet" in text
    assert "Lift" not in text
    assert "nothing to compare with yet" in text
    assert "50 %" not in text
    for lift, shown in (("above_zero", [rule["id"]]), ("below_zero", [])):
        found = visitor.page("/rules", namespace=namespace, lift=lift)
        assert items(found) == shown
    listed = " ".join(visitor.page("/rules", namespace=namespace).text.split())
    assert "no comparison yet" in listed
    assert "by hand" in listed


def test_rules_come_in_pages_with_the_total(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    made = [site.add_rule(namespace, f"Rule number {n}.", "")["id"] for n in range(35)]
    first = visitor.page("/rules", namespace=namespace)
    assert "35 rules" in first.text
    (following,) = [link for link in first.links if "cursor=" in link]
    second = read(visitor.http.get(following).text)
    assert items(first) + items(second) == made[::-1]
    oldest = visitor.page("/rules", namespace=namespace, sort="oldest")
    assert items(oldest)[:3] == made[:3]


def test_a_rules_page_shows_where_it_came_from(visitor: Visitor, world: World) -> None:
    response = visitor.get(f"/rules/{world.learned}")
    page = read(response.text)
    question, _, _, positive, *_ = TALES[2]
    assert positive in page.text
    assert question in page.text
    assert "Better, y+" in page.text
    assert "Worse, y\N{MINUS SIGN}" in page.text
    # What differs is marked, what is common is not.
    assert re.search(r'<mark class="plus">two hours</mark>', response.text)
    assert '<mark class="minus">2:35</mark>' in response.text
    assert '<mark class="plus">9:40' not in response.text
    assert "75 % of the usable answers agreed" in page.text
    for name in ("teacher", "student-1", "student-2", "student-3"):
        assert name in page.text
    assert "not measured yet" in page.text
    assert f"/console/episodes/{world.episode}" in page.links


def test_a_rules_page_shows_no_other_namespaces_episode(
    site: Gateway, visitor: Visitor, world: World, namespace: str
) -> None:
    rule = {"polarity": "positive", "text": "Read it twice.", "source_episode": world.episode}
    params = {"namespace": namespace}
    done = site.admin("POST", "/rules:import", params=params, content=json.dumps(rule))
    assert done.json()["imported"] == 1, done.text
    (made,) = site.rules(namespace)
    page = visitor.page(f"/rules/{made['id']}")
    assert TALES[2][0] not in page.text
    assert "not stored in this namespace" in page.text
    assert f"/console/episodes/{world.episode}" not in page.links


def test_use_is_drawn_and_tabled(visitor: Visitor, world: World) -> None:
    page = visitor.page(f"/rules/{world.learned}")
    assert "2 uses in the last 30 days" in str(page.tags)  # the drawing's own words
    assert "Uses by day" in page.text
    assert sum(tag == "rect" for tag, _ in page.tags) == 30
    unused = visitor.page(f"/rules/{world.held}")
    assert not any(tag == "rect" for tag, _ in unused.tags)


def test_an_edit_is_a_new_version_with_who_and_why(
    site: Gateway, visitor: Visitor, rule: dict[str, Any]
) -> None:
    here = f"/rules/{rule['id']}"
    page = visitor.done(here, f"{here}/edit", text=OTHER, reason="plainer")
    assert "Saved as version 2" in page.text
    now = state_of(site, rule["id"])
    assert (now["text"], now["trigger"], now["version"]) == (OTHER, rule["trigger"], 2)
    assert last_event(site, rule["id"]) == ("rule.patched", "ada", "plainer")
    assert "plainer" in page.text
    again = visitor.page(here)
    assert "Saved as version" not in again.text  # told once


def test_of_two_edits_the_second_is_shown_the_first(
    site: Gateway, visitor: Visitor, rule: dict[str, Any]
) -> None:
    here = f"/rules/{rule['id']}"
    form = read(visitor.get(here).text).forms[f"/console{here}/edit"]
    visitor.done(here, f"{here}/edit", text=OTHER, reason="first")
    late = visitor.post(f"{here}/edit", **{**form, "text": "Mine.", "reason": "second"})
    assert late.status_code == 409
    assert "version 2" in alert(late)
    page = read(late.text)
    assert OTHER in page.text
    # What was typed is kept, and may be sent on top of what is shown now.
    typed = page.forms[f"/console{here}/edit"]
    assert (typed["text"], typed["reason"], typed["expected_version"]) == ("Mine.", "second", "2")
    assert state_of(site, rule["id"])["text"] == OTHER
    assert visitor.post(f"{here}/edit", **typed).status_code == 303


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reason": " "}, "Say why"),
        ({"text": " ", "reason": "r"}, "text"),
        ({"text": "x" * 2001, "reason": "r"}, "text"),
        ({"domain": "", "reason": "r"}, "domain"),
        ({"expected_version": "two", "reason": "r"}, "expected_version"),
    ],
)
def test_a_wrong_edit_changes_nothing_and_says_so(
    site: Gateway, visitor: Visitor, rule: dict[str, Any], fields: dict[str, str], said: str
) -> None:
    here = f"/rules/{rule['id']}"
    response = visitor.send(here, f"{here}/edit", **{"text": OTHER, **fields})
    assert response.status_code == 400
    assert said in alert(response)
    assert state_of(site, rule["id"])["version"] == 1


def test_an_edit_to_another_rules_text_is_refused(
    site: Gateway, visitor: Visitor, rule: dict[str, Any], namespace: str
) -> None:
    site.add_rule(namespace, OTHER, "")
    here = f"/rules/{rule['id']}"
    response = visitor.send(here, f"{here}/edit", text=OTHER, reason="r")
    assert response.status_code == 409
    assert "same text" in alert(response)


def test_retire_and_restore(site: Gateway, visitor: Visitor, rule: dict[str, Any]) -> None:
    here = f"/rules/{rule['id']}"
    visitor.done(here, f"{here}/retire", reason="harms")
    assert state_of(site, rule["id"])["state"] == "retired"
    assert last_event(site, rule["id"]) == ("rule.retired", "ada", "harms")
    visitor.done(here, f"{here}/restore", reason="no, helps")
    assert state_of(site, rule["id"])["state"] == "active"
    assert last_event(site, rule["id"]) == ("rule.restored", "ada", "no, helps")


def test_an_old_version_comes_back(site: Gateway, visitor: Visitor, rule: dict[str, Any]) -> None:
    here = f"/rules/{rule['id']}"
    visitor.done(here, f"{here}/edit", text=OTHER, reason="plainer")
    page = visitor.page(here)
    form = page.forms[f"/console{here}/restore"]
    assert form["version"] == "1"
    response = visitor.post(f"{here}/restore", **{**form, "reason": "was better"})
    assert response.status_code == 303
    now = state_of(site, rule["id"])
    assert (now["text"], now["version"]) == (TEXT, 3)


@pytest.mark.parametrize(
    ("move", "state", "kind"),
    [("release", "active", "rule.released"), ("reject", "retired", "rule.rejected")],
)
def test_what_is_held_back_is_released_or_rejected(
    site: Gateway, visitor: Visitor, rule: dict[str, Any], namespace: str, move: str, state: str,
    kind: str,
) -> None:  # fmt: skip
    here = f"/rules/{rule['id']}"
    visitor.done(here, f"{here}/quarantine", reason="looks odd")
    listed = visitor.page("/quarantine", namespace=namespace)
    assert "looks odd" in listed.text
    response = visitor.send(f"/quarantine?namespace={namespace}", f"{here}/{move}", reason="seen")
    assert response.headers["location"] == "/console/quarantine"
    assert state_of(site, rule["id"])["state"] == state
    assert last_event(site, rule["id"]) == (kind, "ada", "seen")
    assert "Nothing waits" in visitor.page("/quarantine", namespace=namespace).text


def test_a_learned_rule_that_was_held_back_says_why(visitor: Visitor, world: World) -> None:
    page = visitor.page("/quarantine", namespace=SHOP)
    assert world.held in items(page)
    assert "boxed" in page.text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/rules/none", "/episodes/none", "/namespaces/none", "/rules/%00"]
)
def test_what_is_not_there_is_a_page_that_says_so(visitor: Visitor, path: str) -> None:
    response = visitor.get(path)
    assert response.status_code == (400 if "%00" in path else 404)
    assert response.headers["content-type"].startswith("text/html")
    assert "/console" in read(response.text).links


@pytest.mark.parametrize(
    "path", ["/rules", "/episodes", "/quarantine", "/jobs", "/namespaces", f"/namespaces/{SHOP}"]
)
def test_a_cursor_that_nobody_gave_out_is_a_400(visitor: Visitor, path: str, world: World) -> None:
    for cursor in ("x", "cnVsZXM6LTE", "a" * 600, "\0"):
        assert visitor.get(path, cursor=cursor).status_code == 400, cursor


# -- episodes -----------------------------------------------------------------------------------


def test_an_episode_tells_its_whole_story(site: Gateway, visitor: Visitor, world: World) -> None:
    posted = httpx.post(
        f"{site.base_url}/feedback",
        headers=site.headers,
        json={"episode_id": world.episode, "score": 0.5, "comment": "fine, but long"},
    )
    assert posted.status_code in (200, 201), posted.text
    page = visitor.page(f"/episodes/{world.episode}")
    for said in (
        TALES[2][0],
        "9:40 plus 2:35 is 11:75",
        "Carry minutes above sixty",
        "5 calls",
        "fine, but long",
        "Some rewordings changed the question",
        "What the model was sent",
    ):
        assert said in page.text, said


def test_episodes_are_filtered(visitor: Visitor, world: World) -> None:
    page = visitor.page("/episodes", namespace=SHOP, mode="explore", status="learned")
    assert len(items(page, "/console/episodes/")) == 4
    failed = visitor.page("/episodes", status="failed")
    assert LOST[0] in failed.text


# -- namespaces, jobs ---------------------------------------------------------------------------


def test_a_namespace_shows_its_counts_and_its_curve(visitor: Visitor, world: World) -> None:
    page = visitor.page(f"/namespaces/{SHOP}")
    assert sum(tag == "polyline" for tag, _ in page.tags) == 5
    assert "Days on which something happened" in page.text
    assert "11 episodes" in page.text
    assert f"/console/namespaces/{SHOP}" in visitor.page("/namespaces").links


def test_a_frozen_namespace_refuses_changes_until_it_is_unfrozen(
    site: Gateway, visitor: Visitor, rule: dict[str, Any], namespace: str
) -> None:
    space = f"/namespaces/{namespace}"
    assert "frozen" in visitor.done(space, f"{space}/freeze", reason="an audit").text
    here = f"/rules/{rule['id']}"
    refused = visitor.send(here, f"{here}/retire", reason="r")
    assert refused.status_code == 409
    assert "frozen" in alert(refused)
    assert state_of(site, rule["id"])["state"] == "active"
    visitor.done(space, f"{space}/unfreeze", reason="done")
    visitor.done(here, f"{here}/retire", reason="r")


def test_going_back_is_previewed_done_and_undone(
    site: Gateway, visitor: Visitor, rule: dict[str, Any], namespace: str
) -> None:
    here, space = f"/rules/{rule['id']}", f"/namespaces/{namespace}"
    visitor.done(space, f"{space}/snapshot", label="before", reason="to be safe")
    visitor.done(here, f"{here}/edit", text=OTHER, reason="plainer")
    later = site.add_rule(namespace, "A later rule.", "")
    # Snapshots are listed above the events.
    back = next(link for link in visitor.page(space).links if "rollback?event=" in link)
    preview = back.removeprefix("/console")
    page = visitor.page(preview)
    assert "2 rules change, 1 of them is newer" in page.text
    assert state_of(site, later["id"])["state"] == "active"
    done = visitor.done(preview, f"{space}/rollback", reason="it was better")
    assert "2 rules are as after event" in done.text
    assert state_of(site, rule["id"])["text"] == TEXT
    assert state_of(site, later["id"])["state"] == "retired"
    undo = re.search(r"Going back to event (\d+) undoes it", done.text)
    assert undo
    visitor.done(f"{space}/rollback?event={undo[1]}", f"{space}/rollback", reason="no")
    assert state_of(site, rule["id"])["text"] == OTHER
    assert state_of(site, later["id"])["state"] == "active"


def test_going_back_is_refused_when_something_happened_since_the_preview(
    site: Gateway, visitor: Visitor, rule: dict[str, Any], namespace: str
) -> None:
    space = f"/namespaces/{namespace}"
    event = state_of(site, rule["id"])["history"][0]["id"]
    site.add_rule(namespace, OTHER, "")
    page = visitor.page(f"{space}/rollback", event=event)
    form = page.forms[f"/console{space}/rollback"]
    site.add_rule(namespace, "Unseen.", "")
    response = visitor.post(f"{space}/rollback", **{**form, "reason": "r"})
    assert response.status_code == 409
    assert "changed since the preview" in alert(response)
    assert len([r for r in site.rules(namespace) if r["state"] == "active"]) == 3
    del form["before_event"]
    assert visitor.post(f"{space}/rollback", **{**form, "reason": "r"}).status_code == 400
    assert len([r for r in site.rules(namespace) if r["state"] == "active"]) == 3


def test_a_failed_job_is_tried_again(visitor: Visitor, world: World) -> None:
    page = visitor.page("/jobs", state="failed")
    assert "the distiller's model is gone" in page.text
    (retry,) = [action for action in page.forms if action.endswith("/retry")]
    after = visitor.done("/jobs", retry.removeprefix("/console"), reason="is it back?")
    assert "will be tried again" in after.text


def test_learning_is_paused_and_resumed(visitor: Visitor) -> None:
    assert "Learning is paused" in visitor.done("/jobs", "/jobs/pause", reason="quiet").text
    assert "Learning goes on" in visitor.done("/jobs", "/jobs/resume", reason="go").text


# -- prune, explain -----------------------------------------------------------------------------


def test_pruning_retires_exactly_what_the_preview_lists(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    made = [site.add_rule(namespace, f"Rule number {n}.", "")["id"] for n in range(5)]
    at = f"/prune?namespace={namespace}&policy=fifo&keep=3"
    page = visitor.page(at)
    assert "2 of 5 active rules go, 3 stay" in page.text
    assert items(page) == made[:2]
    after = visitor.done(at, "/prune", reason="too many")
    assert "2 rules were retired" in after.text
    states = {rule["id"]: rule["state"] for rule in site.rules(namespace)}
    assert [states[id] for id in made] == ["retired"] * 2 + ["active"] * 3
    kind, actor, reason = last_event(site, made[0])
    assert (kind, actor) == ("rule.retired", "ada")
    assert reason.startswith("too many")


def test_an_outdated_preview_prunes_nothing(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    for n in range(3):
        site.add_rule(namespace, f"Rule number {n}.", "")
    at = f"/prune?namespace={namespace}&policy=fifo&keep=2"
    form = visitor.page(at).forms["/console/prune"]
    site.add_rule(namespace, "One more.", "")
    response = visitor.post("/prune", **{**form, "reason": "r"})
    assert response.status_code == 409
    assert "changed since the preview" in alert(response)
    assert "2 of 4 active rules go" in read(response.text).text
    assert all(rule["state"] == "active" for rule in site.rules(namespace))


@pytest.mark.parametrize(
    "query", ["policy=fifo&keep=", "policy=fifo&keep=-1", "policy=age&days=x", "policy=nonsense"]
)
def test_a_wrong_order_to_prune_says_what_is_missing(
    visitor: Visitor, world: World, query: str
) -> None:
    response = visitor.get(f"/prune?namespace={SHOP}&{query}")
    assert response.status_code == 400
    assert alert(response)


def test_explain_says_which_rules_and_why(visitor: Visitor, world: World) -> None:
    response = visitor.send(
        "/explain", "/explain", namespace=SHOP, text="Pens: half as many as an amount of another?"
    )
    assert response.status_code == 200, response.text
    page = read(response.text)
    assert "would be injected" in page.text
    assert "below the floor" in page.text
    assert "it is retired" in page.text
    assert "What the model would be sent" in page.text
    assert "<advice>" in page.text


def test_explaining_nothing_is_a_400(visitor: Visitor, world: World) -> None:
    response = visitor.send("/explain", "/explain", namespace=SHOP, text="  ")
    assert response.status_code == 400
    assert "question" in alert(response)


def test_the_overview_counts_and_checks(visitor: Visitor, world: World) -> None:
    page = visitor.page("")
    assert "ready" in page.text
    assert "in quarantine" in page.text
    assert "scripted-model" in page.text
    assert re.search(r"\d+ of \d+ rules and \d+ of \d+ examples in the index", page.text)
