"""Who gets in: logging in and out, sessions, CSRF, and what every page's headers forbid."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from app.access.throttle import FAILURES, WINDOW, Throttle
from tests.app.console.visitor import Visitor, read
from tests.app.console.world import CLINIC, EVIL, SHOP, World
from tests.gateway import ADMIN_KEY, CLIENT_KEY, Gateway

PAGES = (
    "",
    "/effect",
    f"/effect/{SHOP}",
    "/rules",
    "/quarantine",
    "/episodes",
    "/namespaces",
    f"/namespaces/{SHOP}",
    f"/namespaces/{SHOP}/rollback?event=2",
    "/jobs",
    "/prune",
    f"/prune?namespace={SHOP}&policy=fifo&keep=2",
    "/explain",
)


def of_world(world: World) -> list[str]:
    rules = [f"/rules/{id}" for id in (world.learned, world.script, world.held, world.edited)]
    return [*PAGES, *rules, f"/episodes/{world.episode}"]


def posts(site: Gateway) -> list[str]:
    """Every address of the console that takes a POST, with something in its places."""
    found = {
        re.sub(r"\{.*?\}", "1", route.path)
        for route in _routes(site.app)
        if "POST" in (route.methods or ()) and route.path.startswith("/console")
    }
    return sorted(found - {"/console/login"})


def _routes(app: Any) -> list[Any]:
    from fastapi.routing import iter_route_contexts

    return [context for context in iter_route_contexts(app.routes) if hasattr(context, "methods")]


# -- logging in ---------------------------------------------------------------------------------


def test_every_page_asks_strangers_to_log_in(stranger: Visitor, world: World) -> None:
    for path in of_world(world):
        response = stranger.get(path)
        assert response.status_code == 303, path
        assert response.headers["location"].startswith("/console/login"), path


def test_the_console_is_found_with_a_slash_too(visitor: Visitor) -> None:
    assert visitor.get("/").headers["location"] == "/console"


def test_logging_in_leads_to_where_one_wanted_to_go(stranger: Visitor) -> None:
    asked = stranger.get("/rules", q="pens")
    login = stranger.http.get(asked.headers["location"])
    form = {**read(login.text).forms["/console/login"], "key": ADMIN_KEY}
    entered = stranger.post("/login", **form)
    assert (entered.status_code, entered.headers["location"]) == (303, "/console/rules?q=pens")


@pytest.mark.parametrize(
    "after",
    ["https://evil.example/", "//evil.example", "/console.evil", "/v1/models", "/console\nx", "\\"],
)
def test_logging_in_never_leads_out_of_the_console(stranger: Visitor, after: str) -> None:
    assert stranger.log_in(after=after).headers["location"] == "/console"


def test_the_cookie_is_for_the_server_and_this_site_only(stranger: Visitor) -> None:
    response = stranger.log_in()
    (cookie,) = [c for c in response.headers.get_list("set-cookie") if "ttcl_console=" in c]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/console"} <= parts
    assert "secure" not in parts
    assert ADMIN_KEY not in cookie
    assert len(cookie.split("=")[1].split(";")[0]) >= 43


def test_over_https_the_cookie_is_secure(stranger: Visitor) -> None:
    form = {**read(stranger.get("/login").text).forms["/console/login"], "key": ADMIN_KEY}
    https = {"X-Forwarded-Proto": "https"}  # as a reverse proxy on this machine says it
    response = stranger.http.post("/console/login", data=form, headers=https)
    cookies = response.headers.get_list("set-cookie")
    assert any("ttcl_console=" in c and "secure" in c.lower() for c in cookies)


@pytest.mark.parametrize("key", ["", "wrong", CLIENT_KEY, ADMIN_KEY + "x", "schlüssel"])
def test_no_other_key_opens(stranger: Visitor, key: str) -> None:
    response = stranger.log_in(key, X_Forwarded_For=f"203.0.113.{len(key)}")
    assert response.status_code == 401
    assert "not the admin key" in response.text
    assert stranger.get("/rules").status_code == 303


def test_the_log_in_form_is_protected_too(stranger: Visitor) -> None:
    assert stranger.post("/login", key=ADMIN_KEY).status_code == 403
    stranger.get("/login")
    assert stranger.post("/login", key=ADMIN_KEY, csrf="0" * 64).status_code == 403
    assert stranger.get("/rules").status_code == 303


def test_after_some_wrong_keys_the_right_one_has_to_wait_too(stranger: Visitor) -> None:
    here = {"X_Forwarded_For": "203.0.113.99"}
    for _ in range(FAILURES):
        assert stranger.log_in("wrong", **here).status_code == 401
    refused = stranger.log_in(**here)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= WINDOW
    assert stranger.log_in().status_code == 303  # from another address


def test_the_limit_is_of_an_address_and_a_while() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(FAILURES):
        throttle.failed("2001:db8::1")
    assert throttle.wait("2001:db8::ffff") == pytest.approx(WINDOW)
    assert throttle.wait("2001:db8:0:1::1") == throttle.wait("192.0.2.1") == 0
    now[0] = WINDOW + 1
    assert throttle.wait("2001:db8::1") == 0


def test_a_right_key_clears_the_wrong_ones() -> None:
    throttle = Throttle(lambda: 0.0)
    for _ in range(FAILURES - 1):
        throttle.failed("192.0.2.1")
    throttle.succeeded("192.0.2.1")
    throttle.failed("192.0.2.1")
    assert throttle.wait("192.0.2.1") == 0


# -- sessions -----------------------------------------------------------------------------------


def test_logging_out_ends_the_session_and_not_just_the_cookie(visitor: Visitor) -> None:
    cookie = visitor.http.cookies["ttcl_console"]
    assert visitor.send("", "/logout").headers["location"] == "/console/login"
    visitor.http.cookies.set("ttcl_console", cookie)
    assert visitor.get("/rules").status_code == 303


def test_a_made_up_cookie_is_no_session(stranger: Visitor) -> None:
    stranger.http.cookies.set("ttcl_console", ADMIN_KEY)
    assert stranger.get("/rules").status_code == 303


# -- forms --------------------------------------------------------------------------------------


def test_no_form_is_taken_without_its_token(site: Gateway, visitor: Visitor) -> None:
    addresses = posts(site)
    assert len(addresses) >= 15
    for address in addresses:
        for token in ({}, {"csrf": ""}, {"csrf": "x" * 43}):
            response = visitor.http.post(address, data={"reason": "r", **token})
            assert response.status_code == 403, address
    assert visitor.get("/rules").status_code == 200  # the log-out among them


def test_no_form_is_taken_from_strangers(site: Gateway, stranger: Visitor) -> None:
    for address in posts(site):
        assert stranger.http.post(address, data={"reason": "r"}).status_code == 303, address


def test_one_sessions_token_is_not_anothers(site: Gateway, visitor: Visitor) -> None:
    token = read(visitor.get("").text).forms["/console/logout"]["csrf"]
    with Visitor(site.url) as other:
        other.log_in()
        assert other.post("/logout", csrf=token).status_code == 403


def test_the_token_may_be_in_a_header(visitor: Visitor) -> None:
    token = read(visitor.get("").text).forms["/console/logout"]["csrf"]
    response = visitor.http.post("/console/logout", headers={"X-CSRF-Token": token})
    assert response.status_code == 303


def test_a_form_that_is_too_large_is_a_413(visitor: Visitor) -> None:
    assert visitor.post("/logout", csrf="x" * 1_000_001).status_code == 413


# -- headers and escaping -----------------------------------------------------------------------


def test_every_page_forbids_what_it_does_not_need(visitor: Visitor, world: World) -> None:
    for path in [*of_world(world), "/rules/none", "/login"]:
        headers = visitor.get(path).headers
        if "location" not in headers:
            policy = headers["content-security-policy"]
            assert policy == (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
            )
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["content-type"] == "text/html; charset=utf-8"


def test_no_page_carries_code_or_style_or_asks_elsewhere(visitor: Visitor, world: World) -> None:
    for path in of_world(world):
        html = visitor.get(path).text
        for tag, attributes in read(html).tags:
            assert tag != "style", path
            assert tag != "script" or attributes == {
                "src": "/console/static/console.js",
                "defer": None,
            }, path
            assert not any(name.startswith("on") or name == "style" for name in attributes), path
            for name in ("src", "href", "action"):
                value = attributes.get(name)
                assert value is None or re.match(r"/(?!/)|#|data:,$", value), (path, value)


def test_texts_of_rules_are_only_ever_text(visitor: Visitor, world: World) -> None:
    places = [
        f"/rules/{world.script}",
        "/rules?q=dose",
        f"/namespaces/{CLINIC}",
        f"/namespaces/{CLINIC}/rollback?event=1",
        f"/prune?namespace={CLINIC}&policy=fifo&keep=0",
    ]
    for place in places:
        response = visitor.get(place)
        if response.status_code == 404:  # event 1 is of another namespace
            continue
        assert EVIL not in response.text, place
        tags = [tag for tag, _ in read(response.text).tags]
        assert tags.count("script") == 1, place
        assert "img" not in tags, place
    assert EVIL in visitor.page(f"/rules/{world.script}").text


def test_what_is_typed_comes_back_as_text(visitor: Visitor) -> None:
    for path in ("/rules", "/episodes", "/quarantine", "/jobs", "/prune"):
        response = visitor.get(path, q=EVIL, namespace=EVIL[:90], sort=EVIL, state=EVIL[:90])
        assert "<script>document" not in response.text, path
    page = visitor.send("/explain", "/explain", text=EVIL, namespace=f"x{uuid.uuid4().hex}")
    assert "<script>document" not in page.text


def test_the_static_files_are_ours_and_cached_by_content(stranger: Visitor) -> None:
    for name, kind in (("console.css", "text/css"), ("console.js", "text/javascript")):
        first = stranger.get(f"/static/{name}")
        assert first.headers["content-type"].startswith(kind)
        again = stranger.http.get(
            f"/console/static/{name}", headers={"If-None-Match": first.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
    assert stranger.get("/static/..%2Fsite.py").status_code in (303, 404)
    assert stranger.get("/static/console.py").status_code == 404
