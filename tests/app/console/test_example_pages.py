"""Pages of examples as HTTP, without a browser: the list, one example, conflicts, quarantine."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.app.console.test_pages import alert, items
from tests.app.console.visitor import Visitor, read
from tests.app.console.world import EVIL, World
from tests.gateway import MODEL, Gateway

QUESTION = "My card was charged twice for one coffee"


def add(site: Gateway, namespace: str, question: str = QUESTION, **more: Any) -> dict[str, Any]:
    body = {"namespace": namespace, "question": question, "answer": "charged_twice", **more}
    response = site.admin("POST", "/examples", json=body)
    assert response.status_code == 201, response.text
    return dict(response.json())


@pytest.fixture
def example(site: Gateway, namespace: str) -> dict[str, Any]:
    return add(site, namespace)


def stored(site: Gateway, example_id: str) -> dict[str, Any]:
    return dict(site.admin("GET", f"/examples/{example_id}").json())


def last_event(site: Gateway, example_id: str) -> tuple[str, str, str]:
    event = stored(site, example_id)["history"][0]
    return event["kind"], event["actor"], event["reason"]


def listed(visitor: Visitor, **params: Any) -> list[str]:
    return items(visitor.page("/examples", **params), "/console/examples/")


def test_examples_are_searched_filtered_and_paged(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    made = [
        add(site, namespace, f"Question number {n} of many", trust="score")["id"] for n in range(52)
    ]
    one = add(site, namespace, label="twice", source_episode="ep_1")["id"]
    first = visitor.page("/examples", namespace=namespace)
    assert "53 examples" in first.text
    (following,) = [link for link in first.links if "cursor=" in link]
    second = read(visitor.http.get(following).text)
    both = items(first, "/console/examples/") + items(second, "/console/examples/")
    assert both == [one, *made[::-1]]
    assert listed(visitor, namespace=namespace, q="COFFEE") == [one]
    assert listed(visitor, namespace=namespace, trust="label") == [one]
    assert listed(visitor, namespace=namespace, episode="ep_1") == [one]
    assert listed(visitor, namespace=namespace, state="retired") == []
    assert listed(visitor, namespace=namespace, lift="measured") == []
    assert listed(visitor, namespace=namespace, sort="oldest")[0] == made[0]
    assert "No example fits" in visitor.page("/examples", q="nothing says this").text


def test_an_example_is_written_by_hand(site: Gateway, visitor: Visitor, namespace: str) -> None:
    site.admin("POST", "/namespaces", json={"name": namespace})
    fields = {"namespace": namespace, "question": QUESTION, "answer": "Twice.", "label": "twice"}
    page = visitor.done("/examples", "/examples", **fields, reason="from the handbook")
    assert "It is recalled from now on." in page.text
    (made,) = site.admin("GET", "/examples", params={"namespace": namespace}).json()["data"]
    assert (made["trust"], made["label"]) == ("label", "twice")
    assert last_event(site, made["id"]) == ("example.created", "ada", "from the handbook")
    fields = {**fields, "question": "Write to ann@example.com", "reason": "r"}
    assert (
        "Held back until you release it: contains personal data"
        in visitor.done("/examples", "/examples", **fields).text
    )
    for wrong, said in (({"reason": ""}, "Say why"), ({"answer": " "}, "answer")):
        refused = visitor.send("/examples", "/examples", **{**fields, **wrong})
        assert refused.status_code == 400
        assert said in alert(refused)
        assert read(refused.text).forms["/console/examples"]["question"] == fields["question"]


def test_an_example_is_edited_and_moved(
    site: Gateway, visitor: Visitor, example: dict[str, Any]
) -> None:
    path = f"/examples/{example['id']}"
    page = visitor.page(path)
    assert QUESTION in page.text
    assert "right answer told" in page.text
    assert "It was not shown yet." in page.text
    page = visitor.done(path, f"{path}/edit", answer="twice", label="t", reason="shorter")
    assert "Saved as version 2." in page.text
    assert (stored(site, example["id"])["answer"], stored(site, example["id"])["label"]) == (
        "twice",
        "t",
    )
    until = {"label": "", "expires_at": "2031-05-06", "reason": "for a while"}
    page = visitor.done(path, f"{path}/edit", **until)
    now = stored(site, example["id"])
    assert (now["label"], now["expires_at"]) == (None, "2031-05-06T00:00:00+00:00")
    assert page.forms[f"/console{path}/edit"]["expires_at"] == "2031-05-06"
    for verb, state, said in (
        ("retire", "retired", "Retired"),
        ("restore", "active", "Restored"),
        ("quarantine", "quarantined", "In quarantine"),
        ("release", "active", "Released"),
    ):
        assert said in visitor.done(path, f"{path}/{verb}", reason=f"to {verb}").text
        assert stored(site, example["id"])["state"] == state
        assert last_event(site, example["id"])[1:] == ("ada", f"to {verb}")
    history = visitor.page(path).text
    assert "to quarantine" in history
    assert "shorter" in history


def test_of_two_editors_the_second_is_told(
    site: Gateway, visitor: Visitor, example: dict[str, Any]
) -> None:
    path = f"/examples/{example['id']}"
    form = visitor.page(path).forms[f"/console{path}/edit"]
    site.admin("PATCH", f"/examples/{example['id']}", json={"answer": "Theirs."})
    refused = visitor.post(f"{path}/edit", **{**form, "answer": "Mine.", "reason": "r"})
    assert refused.status_code == 409
    assert "version 2" in alert(refused)
    again = read(refused.text).forms[f"/console{path}/edit"]
    assert (again["answer"], again["reason"]) == ("Mine.", "r")
    assert stored(site, example["id"])["answer"] == "Theirs."
    assert visitor.get("/examples/example_none").status_code == 404


def test_a_conflict_is_shown_side_by_side_and_settled(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    assert "No examples contradict" in visitor.page("/conflicts", namespace=namespace).text
    wrong = add(site, namespace, answer="It is a refund.", label="refund")
    right = add(site, namespace, answer="It was charged twice.", label="charged_twice")
    page = visitor.page("/conflicts", namespace=namespace)
    assert "1 conflict" in page.text
    assert "100 % alike" in page.text
    assert [link for link in page.links if "/examples/example_" in link] == [
        f"/console/examples/{right['id']}",
        f"/console/examples/{wrong['id']}",
    ]
    assert "1 conflict of examples" in visitor.page(f"/namespaces/{namespace}").text
    assert "contradicts it" in visitor.page(f"/examples/{right['id']}").text
    settle = f"/examples/{right['id']}/settle"
    after = visitor.done(f"/conflicts?namespace={namespace}", settle, reason="the handbook")
    assert "Settled" in after.text
    assert stored(site, wrong["id"])["state"] == "retired"
    assert stored(site, right["id"])["state"] == "active"
    late = visitor.post(settle, csrf=after.forms["/console/logout"]["csrf"], reason="once more")
    assert late.status_code == 409


def test_held_back_examples_wait_in_quarantine(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    held = add(site, namespace, answer="Write to ann@example.com.")
    page = visitor.page("/quarantine", namespace=namespace)
    assert "Held back: contains personal data (e-mail" in page.text
    at = f"/quarantine?namespace={namespace}"
    visitor.done(at, f"/examples/{held['id']}/release", reason="an invented address")
    assert stored(site, held["id"])["state"] == "active"
    assert "Nothing waits here" in visitor.page("/quarantine", namespace=namespace).text


def test_an_episode_names_its_examples(site: Gateway, visitor: Visitor, namespace: str) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "ttcl": {"mode": "steer", "namespace": namespace},
    }
    answer = httpx.post(
        f"{site.base_url}/chat/completions", json=body, headers=site.headers, timeout=30
    )
    episode = answer.headers["x-ttcl-episode"]
    made = add(site, namespace, source_episode=episode)
    page = visitor.page(f"/episodes/{episode}")
    assert f"/console/examples/{made['id']}" in page.links
    assert f"/console/episodes/{episode}" in visitor.page(f"/examples/{made['id']}").links


def test_the_right_answer_is_taught_on_the_episodes_page(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Eight boxes hold seven eggs each, how many?"}],
        "ttcl": {"mode": "steer", "namespace": namespace},
    }
    url = f"{site.base_url}/chat/completions"
    answer = httpx.post(url, json=body, headers=site.headers, timeout=30)
    episode = answer.headers["x-ttcl-episode"]
    here = f"/episodes/{episode}"
    for fields, said in (
        ({"label": "56"}, "Say why"),
        ({"reason": "r"}, "at least one of"),
        ({"label": "x" * 4001, "reason": "r"}, "label"),
        ({"correction": "x" * 32_001, "reason": "r"}, "correction"),
    ):
        refused = visitor.send(here, f"{here}/teach", **fields)
        assert refused.status_code == 400
        assert said in alert(refused)
    kept = read(refused.text).forms[f"/console{here}/teach"]
    assert (len(kept["correction"]), kept["reason"]) == (32_001, "r")
    form = read(visitor.get(here).text).forms[f"/console{here}/teach"]
    taught = {**form, "label": "56", "correction": "Eight times seven is 56.", "reason": "counted"}
    for _ in range(2):  # a form that is sent twice counts once
        done = visitor.post(f"{here}/teach", **taught)
        assert done.status_code == 303
    page = read(visitor.http.get(done.headers["location"]).text)
    assert "Taken. It is kept as an example." in page.text
    assert "right answer: 56" in page.text
    assert "ada: counted" in page.text
    (made,) = site.admin("GET", "/examples", params={"namespace": namespace}).json()["data"]
    assert (made["label"], made["source_episode"], made["trust"]) == ("56", episode, "label")
    assert f"/console/examples/{made['id']}" in page.links
    page = visitor.done(here, f"{here}/teach", verdict="outdated", reason="the shop is closed")
    assert "1 example retired." in page.text
    assert stored(site, made["id"])["state"] == "retired"
    assert visitor.post("/episodes/ep_none/teach", **taught).status_code == 404


def test_an_examples_texts_are_never_code(
    site: Gateway, visitor: Visitor, namespace: str, world: World
) -> None:
    one = add(site, namespace, f"Which dose? {EVIL}", answer=EVIL, label=f"1 {EVIL}")
    add(site, namespace, f"Which dose? {EVIL}", answer=f"another {EVIL}", label=f"2 {EVIL}")
    for path in ("/examples", f"/examples/{one['id']}", "/conflicts"):
        text = visitor.get(path, namespace=namespace).text
        assert EVIL not in text
        assert "&lt;script&gt;" in text, path


def test_pruning_examples_shows_what_goes(site: Gateway, visitor: Visitor, namespace: str) -> None:
    made = [add(site, namespace, f"Question number {n} of many")["id"] for n in range(3)]
    site.add_rule(namespace, "Say which number it is.", "")
    query = f"/prune?namespace={namespace}&kind=examples&policy=fifo&keep=1"
    page = visitor.page("/prune", namespace=namespace, kind="examples", policy="fifo", keep="1")
    assert "2 of 3 active examples go, 1 stays." in page.text
    assert items(page, "/console/examples/") == made[:2]
    after = visitor.done(query, "/prune", reason="too many")
    assert "2 examples were retired." in after.text
    states = [stored(site, each)["state"] for each in made]
    assert states == ["retired", "retired", "active"]
    assert [rule["state"] for rule in site.rules(namespace)] == ["active"]
    similar = visitor.get(
        "/prune", namespace=namespace, kind="examples", policy="similarity", keep="1"
    )
    assert similar.status_code == 400
    assert "fifo, age or utility" in alert(similar)


def test_going_back_takes_examples_back_too(
    site: Gateway, visitor: Visitor, example: dict[str, Any], namespace: str
) -> None:
    here, space = f"/examples/{example['id']}", f"/namespaces/{namespace}"
    visitor.done(space, f"{space}/snapshot", label="before", reason="to be safe")
    visitor.done(here, f"{here}/edit", answer="thrice", reason="a mistake")
    site.add_rule(namespace, "A later rule.", "")
    space_page = visitor.page(space)
    assert f"/console{here}" in space_page.links
    back = next(link for link in space_page.links if "rollback?event=" in link)
    preview = back.removeprefix("/console")
    page = visitor.page(preview)
    assert "1 rule and 1 example change, 1 of them is newer" in page.text
    assert f"/console{here}" in page.links
    done = visitor.done(preview, f"{space}/rollback", reason="it was right")
    assert "1 rule and 1 example are as after event" in done.text
    assert stored(site, example["id"])["answer"] == "charged_twice"


def test_importing_is_left_to_the_api_but_its_examples_are_shown(
    site: Gateway, visitor: Visitor, namespace: str
) -> None:
    line = {"namespace": namespace, "question": QUESTION, "answer": "a", "trust": "verifier"}
    told = site.admin("POST", "/examples:import", content=json.dumps(line))
    assert told.json()["imported"] == 1
    (shown,) = listed(visitor, namespace=namespace)
    assert "verified" in visitor.page(f"/examples/{shown}").text
