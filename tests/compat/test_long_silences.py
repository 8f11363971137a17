"""Explorations that take longer than a client, or what stands before it, waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.compat.helpers import ask, check_stream_shape
from tests.fakes import Fault, Reply, ScriptedUpstream, is_structured_step, is_student, is_teacher
from tests.gateway import MODEL, NO_TLS, Gateway, running_gateway


@pytest.fixture(scope="module")
def _hasty(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream, learn=False, explore_wait=0.3) as running:
        yield running


@pytest.fixture
def hasty(_hasty: Gateway, up: ScriptedUpstream) -> Gateway:
    return _hasty


def teachers(up: ScriptedUpstream) -> int:
    return sum(is_teacher(call.body) for call in up.chats)


# -- the bound -------------------------------------------------------------------------------------


async def test_the_students_are_not_waited_for_without_end(hasty, up) -> None:
    up.when(is_student, Reply("\\boxed{8}", delay=30))
    up.when(is_teacher, Reply("\\boxed{7}"))
    answer = (await hasty.post(ask("explore"))).json()
    assert answer["choices"][0]["message"]["content"] == "7"
    assert "explore_cut_short" in answer["ttcl"]["degraded"]
    assert answer["ttcl"]["exploration"]["chosen"] == "teacher"
    await up.settled(2.0)
    assert all(call.aborted for call in up.chats if is_student(call.body))


async def test_the_teacher_is_waited_for_as_in_mode_off(hasty, up) -> None:
    up.when(is_student, Reply("\\boxed{8}"))
    up.when(is_teacher, Reply("\\boxed{7}", delay=0.8))
    answer = (await hasty.post(ask("explore"))).json()
    assert answer["choices"][0]["message"]["content"] == "7"
    assert "explore_cut_short" in answer["ttcl"]["degraded"]


async def test_where_the_teacher_fails_what_came_back_counts(hasty, up) -> None:
    up.when(is_student, [Reply("\\boxed{8}"), Reply("\\boxed{8}"), Reply(delay=30)])
    up.when(is_teacher, Reply(fault=Fault.CUT, after=1))
    answer = (await hasty.post(ask("explore"))).json()
    assert answer["choices"][0]["message"]["content"] == "8"
    assert {"explore_cut_short", "teacher_failed"} <= set(answer["ttcl"]["degraded"])


async def test_a_stream_goes_on(hasty, up) -> None:
    up.when(is_student, Reply("\\boxed{8}", delay=0.8))
    up.when(is_teacher, Reply("\\boxed{7}"))
    stream = await hasty.sse(ask("explore"))
    text = "".join(c["delta"].get("content") or "" for f in stream.frames for c in f["choices"])
    assert text == "8"


# -- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "calls"),
    [({"x_stainless_retry_count": "1"}, 1), ({"Idempotency_Key": "a"}, 1), ({}, 2)],
    ids=["retry", "key", "together"],
)
async def test_a_request_that_is_the_same_again_joins(gw, up, headers, calls) -> None:
    """Of two that come together nobody knows that they are one."""
    up.when(is_teacher, Reply("\\boxed{7}", delay=0.4))
    body = ask("explore")
    key = {name: value for name, value in headers.items() if name == "Idempotency_Key"}
    first = asyncio.create_task(gw.post(body, **key))
    await up.until(lambda: teachers(up) == 1)
    second = (await gw.post(body, **headers)).json()
    assert ((await first).json() == second) is (calls == 1)
    assert teachers(up) == calls


async def test_the_retry_of_a_client_that_gave_up_joins(gw, up) -> None:
    up.when(is_teacher, Reply("\\boxed{7}", delay=0.7))
    body = ask("explore")
    url = f"{gw.base_url}/chat/completions"
    async with httpx.AsyncClient(verify=NO_TLS, headers=gw.headers) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(url, json=body, timeout=0.45)
        answer = await http.post(url, json=body)
    assert answer.status_code == 200, answer.text
    assert teachers(up) == 1
    assert not any(call.aborted for call in up.chats)


@pytest.mark.parametrize("other", ["idempotency", "namespace", "body", "header"])
async def test_another_request_does_not(gw, up, other) -> None:
    up.when(is_teacher, Reply("\\boxed{7}", delay=0.4))
    first = asyncio.create_task(gw.post(ask("explore"), Idempotency_Key="a"))
    await up.until(lambda: teachers(up) == 1)
    body, headers = ask("explore"), {"Idempotency_Key": "a"}
    if other == "idempotency":
        headers["Idempotency_Key"] = "b"
    elif other == "namespace":
        body["ttcl"]["namespace"] = "elsewhere"
    elif other == "body":
        body["user"] = "u"
    else:
        headers["X_TTCL_Max_Examples"] = "1"
    second = await gw.post(body, **headers)
    assert (await first).json()["ttcl"]["episode"] != second.json()["ttcl"]["episode"]
    assert teachers(up) == 2


# -- comments in streams ---------------------------------------------------------------------------


async def test_no_comment_where_the_answer_is_there_at_once(gw, up) -> None:
    up.default = Reply("\\boxed{7}")
    stream = await gw.sse(ask("explore"))
    assert stream.comments == []
    assert stream.raw.startswith(b"data: ")


async def test_a_comment_ends_no_event(gw, up) -> None:
    """Where an empty line follows a comment, openai-go before 3.43 reads an event without data."""
    up.when(lambda body: not is_structured_step(body), Reply("\\boxed{7}", delay=0.7))
    stream = await gw.sse(ask("explore"))
    assert stream.comments
    for event in stream.raw.decode().removesuffix("\n\n").split("\n\n"):
        assert event.splitlines()[-1].startswith("data: ")
    check_stream_shape(stream.frames, MODEL)
