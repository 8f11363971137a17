"""Cases 22-24: disconnects, models, request ids and retries."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import openai
import pytest

from tests.compat.helpers import POSITIVE, ask, for_client
from tests.fakes import Fault, Reply, is_distiller, is_structured_step, is_student
from tests.gateway import MODEL, NO_TLS


@contextlib.asynccontextmanager
async def hanging_up(gateway, body, **headers: str) -> AsyncIterator[asyncio.Task]:
    """A client whose request runs as a task; cancelling it closes the connection."""

    async def talk() -> None:
        async with (
            httpx.AsyncClient(timeout=30, verify=NO_TLS) as http,
            http.stream(
                "POST",
                f"{gateway.base_url}/chat/completions",
                json=body,
                headers={**gateway.headers, **headers},
            ) as response,
        ):
            async for _ in response.aiter_bytes():
                pass

    task = asyncio.create_task(talk())
    yield task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def check_all_aborted(learner, up, namespace, left: float) -> None:
    await up.settled(2.0)
    for call in up.chats:
        assert call.aborted is None or call.aborted - left < 1.0
    sent = len(up.chats)
    await asyncio.sleep(0.3)
    assert len(up.chats) == sent
    assert not any(is_distiller(call.body) for call in up.chats)
    assert learner.rules(namespace) == []
    episodes = learner.admin("GET", "/episodes", params={"namespace": namespace})
    if episodes.status_code == 200:
        assert {e["status"] for e in episodes.json()["data"]} <= {"skipped", "failed"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_22_gone_before_the_first_byte(learner, up, mode, namespace, stream) -> None:
    up.when(lambda body: not is_structured_step(body), Reply(delay=30))
    # Teacher and three Students; the Tutor has answered by the time that all of them are open.
    expected = 4 if mode == "explore" else 1
    body = ask(mode, ttcl={"namespace": namespace}, stream=stream)
    async with hanging_up(learner, body):
        await up.until(
            lambda: sum(c.open and not is_structured_step(c.body) for c in up.chats) >= expected
        )
        left = time.monotonic()
    await check_all_aborted(learner, up, namespace, left)
    assert sum(call.aborted is not None for call in up.chats) >= expected


@pytest.mark.parametrize("mode", ["off", "steer"])
async def test_22_gone_in_mid_stream(learner, up, mode, namespace) -> None:
    up.default = Reply("one two three four", fault=Fault.HANG, after=3)
    async with learner.open_stream(ask(mode, ttcl={"namespace": namespace})) as stream:
        events = stream.events()
        while len(stream.frames) < 3:
            await anext(events)
        left = time.monotonic()
    await check_all_aborted(learner, up, namespace, left)
    assert up.chats[0].aborted is not None


async def test_22_gone_while_exploring(learner, up, namespace) -> None:
    """The Teacher has answered, the Students are still at it."""
    up.when(is_student, Reply(delay=30))
    async with learner.open_stream(ask("explore", ttcl={"namespace": namespace})) as stream:
        await anext(stream.events())
        await up.until(lambda: sum(is_student(call.body) for call in up.chats) == 3)
        left = time.monotonic()
    await check_all_aborted(learner, up, namespace, left)
    assert sum(call.aborted is not None for call in up.chats) == 3


async def test_22_the_official_client_hangs_up(learner, up, mode, namespace) -> None:
    up.when(lambda body: not is_structured_step(body), Reply(delay=30))
    async with learner.client(timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(
                **for_client(ask(mode, ttcl={"namespace": namespace}))
            )
        left = time.monotonic()
    await check_all_aborted(learner, up, namespace, left)


async def test_23_models_and_their_modes(gw) -> None:
    async with gw.client() as client:
        listed = [model async for model in client.models.list()]
    names = {model.id for model in listed}
    assert {MODEL, f"{MODEL}+off", f"{MODEL}+explore"} <= names
    assert {model.object for model in listed} == {"model"}
    async with httpx.AsyncClient(headers=gw.headers, verify=NO_TLS) as http:
        for name in sorted(names):
            for spelt in (name, quote(name, safe="")):
                response = await http.get(f"{gw.base_url}/models/{spelt}")
                assert response.status_code == 200, spelt
                assert response.json()["id"] == name
    async with gw.client() as client:
        assert (await client.models.retrieve(f"{MODEL}+explore")).id == f"{MODEL}+explore"


async def test_23_the_answer_names_what_was_asked_for(gw, up, mode) -> None:
    async with gw.client() as client:
        answer = await client.chat.completions.create(
            **for_client(ask(None, model=f"{MODEL}+{mode}"))
        )
    assert answer.model == f"{MODEL}+{mode}"
    assert {call.body["model"] for call in up.chats} == {MODEL}


async def test_23_names_with_slashes(gw, up, shared_upstream) -> None:
    assert (await gw.post(ask("off", model="org/no-such"))).status_code == 404
    async with httpx.AsyncClient(headers=gw.headers, verify=NO_TLS) as http:
        assert (await http.get(f"{gw.base_url}/models/org/no-such")).status_code == 404


@pytest.mark.parametrize("stream", [False, True])
async def test_24_request_id_is_echoed_and_passed_on(gw, up, mode, stream) -> None:
    given = f"trace-{uuid.uuid4()}"
    response = await gw.post(ask(mode, stream=stream), X_Request_ID=given)
    assert response.headers["x-request-id"] == given
    assert given in {call.headers.get("x-request-id") for call in up.chats}


async def test_24_an_id_is_made_where_there_is_none(gw, up, mode) -> None:
    first, second = await gw.post(ask(mode)), await gw.post(ask(mode))
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    failed = await gw.post(ask(mode, model="other"), X_Request_ID="abc")
    assert (failed.status_code, failed.headers["x-request-id"]) == (404, "abc")


@pytest.mark.parametrize("given", ["x" * 200, "two words", "caf\u00e9"])
async def test_24_an_unfit_id_is_replaced(gw, up, given) -> None:
    async with httpx.AsyncClient(headers=gw.headers, verify=NO_TLS) as http:
        response = await http.post(
            f"{gw.base_url}/chat/completions",
            json=ask("off"),
            headers={"X-Request-ID": given.encode("latin-1")},
        )
    assert response.status_code == 200
    assert response.headers["x-request-id"] not in ("", given)


def frequency_of(gateway, namespace: str) -> int:
    return sum(r["frequency"] for r in gateway.rules(namespace) if r["text"] == POSITIVE)


@pytest.mark.parametrize("mode", ["steer", "explore"])
@pytest.mark.parametrize("retry", ["same id", "client's retry", "both at once"])
async def test_24_a_retried_request_learns_once(learner, up, mode, namespace, retry) -> None:
    up.default = Reply("\\boxed{7}")
    body = ask(mode, ttcl={"namespace": namespace})
    name = f"retried-{uuid.uuid4()}"
    first, second = {"X_Request_ID": name}, {"X_Request_ID": name}
    if retry == "client's retry":
        first, second = {"x_stainless_retry_count": "0"}, {"x_stainless_retry_count": "1"}
    if retry == "both at once":
        answers = await asyncio.gather(learner.post(body, **first), learner.post(body, **second))
    else:
        answers = [await learner.post(body, **first)]
        learner.settled(answers[0].headers["x-ttcl-episode"])
        answers.append(await learner.post(body, **second))
    assert [a.status_code for a in answers] == [200, 200]
    for answer in answers:
        learner.settled(answer.headers["x-ttcl-episode"])
    await up.settled()
    assert frequency_of(learner, namespace) == 1
    assert sum(is_distiller(call.body) for call in up.chats) == 1


@pytest.mark.parametrize("retry", ["same id", "client's retry"])
async def test_24_a_retry_of_a_lost_request_is_learned_from(learner, up, namespace, retry) -> None:
    up.enqueue(Reply(delay=30))
    up.default = Reply("\\boxed{7}")
    body = ask("steer", ttcl={"namespace": namespace})
    headers = {"X-Request-ID": f"lost-{uuid.uuid4()}"} if retry == "same id" else {}
    async with hanging_up(learner, body, **headers):
        await up.until(lambda: up.chats)
    await up.settled()
    if retry != "same id":
        headers = {"x-stainless-retry-count": "1"}
    answer = await learner.post(body, **headers)
    assert learner.settled(answer.headers["x-ttcl-episode"])["status"] == "learned"
    assert frequency_of(learner, namespace) == 1


async def test_24_another_request_with_the_same_words_learns_again(learner, up, namespace) -> None:
    up.default = Reply("\\boxed{7}")
    for _ in range(2):
        answer = await learner.post(ask("explore", ttcl={"namespace": namespace}))
        assert learner.settled(answer.headers["x-ttcl-episode"])["status"] == "learned"
    assert frequency_of(learner, namespace) == 2


async def test_24_the_same_id_from_another_namespace_is_another_request(learner, up) -> None:
    up.default = Reply("\\boxed{7}")
    name = f"shared-{uuid.uuid4()}"
    for _ in range(2):
        own = f"ns-{uuid.uuid4().hex[:12]}"
        answer = await learner.post(ask("explore", ttcl={"namespace": own}), X_Request_ID=name)
        learner.settled(answer.headers["x-ttcl-episode"])
        assert frequency_of(learner, own) == 1
