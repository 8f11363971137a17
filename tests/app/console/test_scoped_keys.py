"""Keys of people open the console: within their namespaces, to look or to change, under their name;
and no longer than they are good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.console.test_login import of_world, posts
from tests.app.console.visitor import Visitor, read
from tests.app.console.world import CLINIC, SHOP, TALES, World
from tests.gateway import ADMIN_KEY, Gateway
from tests.live import LiveServer

READ, WRITE = "admin-read", "admin-write"


def make_key(site: Gateway, name: str, namespace: str, *permissions: str) -> dict[str, Any]:
    body = {"name": name, "namespaces": [namespace], "permissions": list(permissions)}
    made = site.admin("POST", "/keys", json=body)
    assert made.status_code == 201, made.text
    return dict(made.json())


@pytest.fixture
def rosalind(site: Gateway) -> Iterator[Visitor]:
    """Who may change things, in the clinic alone."""
    key = make_key(site, "rosalind", CLINIC, READ, WRITE)
    with Visitor(site.url) as one:
        assert one.log_in(key["secret"], actor="somebody else").status_code == 303
        yield one


def test_a_keys_own_name_is_the_actor_whatever_was_typed(
    site: Gateway, rosalind: Visitor, world: World
) -> None:
    fields = {"namespace": CLINIC, "polarity": "positive", "text": "Name the doctor on duty."}
    page = rosalind.done("/rules", "/rules", **fields, reason="asked for")
    assert "rosalind" in page.text
    event = site.admin("GET", "/events", params={"namespace": CLINIC}).json()["data"][0]
    assert (event["kind"], event["actor"], event["reason"]) == (
        "rule.created",
        "rosalind",
        "asked for",
    )
    told = rosalind.page("/events", actor="rosalind").text
    assert "with key key_" in told


def test_lists_show_its_namespaces_alone(rosalind: Visitor, world: World) -> None:
    for path in ("", "/rules", "/examples", "/episodes", "/namespaces", "/events", "/jobs"):
        page = rosalind.page(path)
        assert SHOP not in page.text, path
        assert TALES[0][0] not in page.text, path
    assert "/console/keys" not in rosalind.page("").links


def test_what_is_elsewhere_is_none_for_it(site: Gateway, rosalind: Visitor, world: World) -> None:
    elsewhere = [path for path in of_world(world) if SHOP in path or world.episode in path]
    elsewhere += [f"/rules/{id}" for id in (world.learned, world.held, world.retired)]
    elsewhere += [f"/export/rules?namespace={SHOP}", f"/playground?namespace={SHOP}"]
    for path in elsewhere:
        assert rosalind.get(path).status_code == 404, path
    for path in ("/keys", "/settings"):
        assert rosalind.get(path).status_code == 403, path
    token = read(rosalind.get("").text).forms["/console/logout"]["csrf"]
    for path in (
        f"/rules/{world.learned}/retire",
        f"/episodes/{world.episode}/teach",
        f"/namespaces/{SHOP}/freeze",
        f"/effect/{SHOP}/resume",
        f"/episodes/{world.episode}/judge",
    ):
        response = rosalind.post(path, csrf=token, reason="r", label="x")
        assert response.status_code == 404, path
    for path, fields in (
        ("/rules", {"polarity": "positive", "text": "Mine."}),
        ("/examples", {"question": "Q", "answer": "A"}),
        ("/explain", {"text": "pens"}),
        ("/playground", {"question": "pens"}),
        ("/prune", {"kind": "rules", "policy": "fifo", "keep": "0", "token": "t"}),
        ("/transfer", {"lines": "{}", "apply": "yes"}),
    ):
        response = rosalind.post(path, csrf=token, reason="r", namespace=SHOP, **fields)
        assert response.status_code == 404, path
    bulk = {f"pick:{world.learned}": "1"}
    after = rosalind.post("/rules/bulk", csrf=token, reason="r", do="retire", **bulk)
    assert "There is no rule" in read(rosalind.http.get(after.headers["location"]).text).text
    line = f'{{"namespace": "{SHOP}", "polarity": "positive", "text": "Smuggled in."}}'
    taken = rosalind.post("/transfer", csrf=token, reason="r", lines=line, apply="yes")
    assert "there is no" in read(taken.text).text
    for path in ("/jobs/pause", "/keys", "/keys/admin/rotate"):
        assert rosalind.post(path, csrf=token, reason="r").status_code == 403, path
    assert site.admin("GET", f"/rules/{world.learned}").json()["state"] == "active"
    exported = rosalind.get("/export/rules").text
    assert CLINIC in exported
    assert SHOP not in exported


def test_who_may_look_only_changes_nothing(site: Gateway, world: World) -> None:
    key = make_key(site, "reader", "*", READ)
    with Visitor(site.url) as reader:
        assert reader.log_in(key["secret"]).status_code == 303
        assert "may look only" in reader.page("/rules").text
        token = read(reader.get("").text).forms["/console/logout"]["csrf"]
        free = {"/console/logout", "/console/explain"}
        for address in set(posts(site)) - free:
            response = reader.http.post(address, data={"csrf": token, "reason": "r"})
            # The playground changes nothing, but it spends.
            asks = address.startswith("/console/playground")
            assert response.status_code in ((400, 403) if asks else (403, 404)), address
        asked = reader.post("/playground", csrf=token, question="Q", namespace=CLINIC)
        assert asked.status_code == 403


def test_a_key_without_admin_permissions_opens_nothing(site: Gateway, stranger: Visitor) -> None:
    key = make_key(site, "client", CLINIC, "chat", "learn")
    assert stranger.log_in(key["secret"], X_Forwarded_For="203.0.113.77").status_code == 401


def test_a_session_ends_with_its_key(site: Gateway, stranger: Visitor, visitor: Visitor) -> None:
    key = make_key(site, "leaving", "*", READ, WRITE)
    stranger.log_in(key["secret"])
    stranger.page("/rules")
    visitor.done("/keys", f"/keys/{key['id']}/revoke", reason="left the company")
    assert stranger.get("/rules").status_code == 303


def test_a_restart_signs_nobody_out(site: Gateway, visitor: Visitor, stranger: Visitor) -> None:
    """A second server on the same store stands for the one after the restart."""
    stranger.log_in(actor="eve")
    server = LiveServer(site.app, lifespan="off")
    server.start()
    try:
        for one, name in ((visitor, "ada"), (stranger, "eve")):
            with Visitor(server.url) as again:
                again.http.cookies.update(one.http.cookies)
                assert name in again.page("/rules").text
    finally:
        server.stop()


def test_the_notice_of_one_session_is_not_anothers(site: Gateway, visitor: Visitor) -> None:
    form = read(visitor.get("/namespaces").text).forms["/console/namespaces"]
    made = visitor.post("/namespaces", **{**form, "name": "notices", "reason": "r"})
    sealed = made.cookies["ttcl_console_notice"]
    with Visitor(site.url) as other:
        other.log_in()
        for forged in (sealed, sealed[:-1], "x.y", "."):
            other.http.cookies.set("ttcl_console_notice", forged, path="/console")
            assert "Made. Requests" not in other.page("/rules").text
    visitor.http.cookies.set("ttcl_console_notice", sealed, path="/console")
    assert "Made. Requests" in visitor.page("/rules").text


def test_the_service_own_names_are_nobodys(stranger: Visitor) -> None:
    response = stranger.log_in(ADMIN_KEY, actor="System")
    assert response.status_code == 400
    assert re.search("acts by this name", response.text)
