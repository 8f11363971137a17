"""The page that says whether steering helps, and the banner where it was found to harm."""

from __future__ import annotations

import httpx
import pytest

from app.console import charts
from tests.app.console.visitor import Visitor
from tests.gateway import CLIENT_KEY, MODEL, NO_TLS, PATIENCE, Gateway

HARMED = "harmed"
CLIENT = {"Authorization": f"Bearer {CLIENT_KEY}"}


@pytest.fixture(scope="module")
def harmed(site: Gateway) -> str:
    """A namespace in which every steered answer was wrong, and every other right."""
    settings = {"control_rate": 0.5}
    body = {"name": HARMED, "settings": settings, "actor": "tests", "reason": "arranged"}
    assert site.admin("POST", "/namespaces", json=body).status_code == 201
    site.add_rule(HARMED, "Say the number of the ticket.", "number of a ticket")
    with httpx.Client(headers=CLIENT, timeout=PATIENCE, verify=NO_TLS) as http:
        for number in range(100):
            asked = {
                "model": MODEL,
                "messages": [{"role": "user", "content": "What is the number of a ticket?"}],
                "metadata": {"conversation_id": f"c{number}"},
                "ttcl": {"namespace": HARMED, "learn": False},
            }
            answer = http.post(f"{site.base_url}/chat/completions", json=asked)
            if "x-ttcl-arm" not in answer.headers:
                return HARMED
            told = {
                "episode_id": answer.headers["x-ttcl-episode"],
                "verified": answer.headers["x-ttcl-arm"] == "control",
            }
            http.post(f"{site.base_url}/feedback", json=told)
    raise AssertionError("the guard did not trip")


def test_harm_is_said_first_and_ended_by_a_person(visitor: Visitor, harmed: str) -> None:
    overview = visitor.page("")
    assert "Does it help?" in overview.text
    assert f"Steering of {harmed} is suspended" in overview.text
    assert "steering harms by verifier" in overview.text
    assert f"/console/effect/{harmed}" in visitor.page("/effect").links
    shown = visitor.get(f"/effect/{harmed}").text
    assert 'class="band"' in shown
    assert "Difference of -" in shown
    page = visitor.page(f"/effect/{harmed}")
    assert "Conversations with an outcome" in page.text
    assert "tokens in all" in page.text
    done = visitor.done(
        f"/effect/{harmed}", f"/effect/{harmed}/resume", reason="the rule is mended"
    )
    assert "Steered again" in done.text
    assert "No outcome was told yet" in done.text
    assert "suspended" not in visitor.page("").text


def test_a_namespace_that_nobody_knows(visitor: Visitor) -> None:
    assert visitor.get("/effect/nowhere").status_code == 404


def test_an_interval_is_drawn_around_zero() -> None:
    assert charts.interval([], []) is None
    drawn = charts.interval(["1", "2"], [(-100.0, 50.0, 100.0), (4.0, 12.0, 20.0)])
    assert drawn is not None
    assert [tick.label for tick in drawn.ticks] == ["-50", "0", "+50"]
    top, middle, bottom = (tick.at for tick in reversed(drawn.ticks))
    assert top < middle < bottom
    assert middle == drawn.zero
    # What is wider than the scale ends at its edge.
    xs_and_ys = [tuple(map(float, point.split(","))) for point in drawn.band.split()]
    assert {y for _, y in xs_and_ys[:1]} == {top}
    assert xs_and_ys[-1][1] == bottom
    assert all(top <= y <= bottom for _, y in xs_and_ys)
