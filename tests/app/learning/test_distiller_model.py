"""Rules written by another model than the served one: on a server of its own, and while that is
down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import Reply, ScriptedUpstream, is_distiller, is_tutor, text_of
from tests.gateway import MODEL, NO_TLS, Gateway, running_gateway

KEY = "key-of-the-writers"
LARGE, SECOND = "large-model", "second-model"
SERVED_RULE = "Count every piece twice before you say how many there are."
LARGE_RULE = "Write the parts down one by one before adding them together."
TRIGGER = "questions about counting pieces"


def written(rule: str) -> Reply:
    return Reply.of_json({"positive": rule, "negative": "", "trigger": TRIGGER})


@pytest.fixture(scope="module")
def served() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=[MODEL, SECOND]) as upstream:
        upstream.when(is_tutor, Reply.of_json({"variants": []}))
        upstream.when(is_distiller, written(SERVED_RULE))
        upstream.default = Reply("So it is \\boxed{4}.")
        yield upstream


@pytest.fixture(scope="module")
def large() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(models=[LARGE]) as upstream:
        upstream.api_key = KEY
        upstream.when(is_distiller, written(LARGE_RULE))
        yield upstream


@pytest.fixture(scope="module")
def gw(served: ScriptedUpstream, large: ScriptedUpstream) -> Iterator[Gateway]:
    given = {
        "distiller_base_url": large.base_url,
        "distiller_model": LARGE,
        "distiller_api_key": KEY,
        "learn_call_concurrency": 1,
    }
    with running_gateway(served, **given) as gateway:
        yield gateway


async def taught(gw: Gateway, namespace: str, question: str = "How many are left?") -> Any:
    """The episode of an explored question, once it was learned from."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "ttcl": {"mode": "explore", "namespace": namespace},
    }
    response = await gw.post(body)
    assert response.status_code == 200, response.text
    return gw.settled(response.headers["X-TTCL-Episode"], within=60)


def learned(gw: Gateway, namespace: str) -> list[tuple[str, str]]:
    return [(rule["text"], rule["written_by"]) for rule in gw.rules(namespace)]


def spent(gw: Gateway, namespace: str) -> Any:
    return gw.admin("GET", f"/namespaces/{namespace}/spending").json()["total"]


async def test_the_large_model_writes_and_is_named(
    gw: Gateway, served: ScriptedUpstream, large: ScriptedUpstream
) -> None:
    before = len(large.chats)
    episode = await taught(gw, "written")
    assert episode["status"] == "learned", episode["reason"]
    assert learned(gw, "written") == [(LARGE_RULE, LARGE)]
    assert episode["distiller"]["model"] == LARGE
    assert "fallback" not in episode["distiller"]
    (call,) = large.chats[before:]
    assert call.body["model"] == LARGE
    assert "How many are left?" in text_of(call.body)
    assert not any(is_distiller(each.body) for each in served.chats)
    account = spent(gw, "written")
    assert account["distiller"]["calls"] == 1
    assert account["distiller"]["tokens"] > 0
    assert account["exploration"]["calls"] == 0, "the client waited for that itself"
    found = gw.admin("GET", "/rules", params={"namespace": "written", "written_by": LARGE})
    assert [rule["text"] for rule in found.json()["data"]] == [LARGE_RULE]
    other = gw.admin("GET", "/rules", params={"namespace": "written", "written_by": MODEL})
    assert other.json()["data"] == []


async def test_while_it_is_down_the_served_model_writes_and_it_is_said(
    gw: Gateway, large: ScriptedUpstream
) -> None:
    model = gw.app.state.ttcl.distiller_model
    large.down()
    try:
        episode = await taught(gw, "down")
        assert learned(gw, "down") == [(SERVED_RULE, MODEL)]
        said = episode["distiller"]
        assert said["model"] == MODEL
        assert said["fallback"]
        # It rests: the next job does not wait for it.
        assert model.rests
        await taught(gw, "still-down")
        assert learned(gw, "still-down") == [(SERVED_RULE, MODEL)]
        checks = httpx.get(f"{gw.url}/readyz", verify=NO_TLS).json()
        assert checks["status"] == "degraded"
        assert checks["checks"]["distiller"]["reason"] == model.failure
        assert "ttcl_distiller_stand_ins_total 2.0" in gw.app.state.ttcl.metrics.render().decode()
    finally:
        large.up()
    model._rests_until = 0.0
    await taught(gw, "up")
    assert learned(gw, "up") == [(LARGE_RULE, LARGE)]
    assert model.failure is None


async def test_a_refusal_is_of_one_prompt(gw: Gateway, large: ScriptedUpstream) -> None:
    large.reset()
    large.when("much too long", Reply.error(400, "the context length is exceeded"))
    large.when(is_distiller, written(LARGE_RULE))
    await taught(gw, "refused", "How many are left, in a text that is much too long?")
    assert learned(gw, "refused") == [(SERVED_RULE, MODEL)]
    assert gw.app.state.ttcl.distiller_model.failure is None
    await taught(gw, "taken")
    assert learned(gw, "taken") == [(LARGE_RULE, LARGE)]


async def test_another_model_of_the_same_server(served: ScriptedUpstream) -> None:
    """The client's switches for thinking are for the model that it asked."""
    before = len(served.chats)
    with running_gateway(served, distiller_model=SECOND) as gateway:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "How many?"}],
            "reasoning_effort": "low",
            "ttcl": {"mode": "explore", "namespace": "same"},
        }
        response = await gateway.post(body)
        gateway.settled(response.headers["X-TTCL-Episode"], within=60)
        assert learned(gateway, "same") == [(SERVED_RULE, SECOND)]
    calls = [each.body for each in served.chats[before:] if is_distiller(each.body)]
    assert [(each["model"], "reasoning_effort" in each) for each in calls] == [(SECOND, False)]
