"""Backpressure: learning gives way first, then new requests, never those under way."""

from __future__ import annotations

import asyncio
import socket

import httpx
import orjson
import pytest

from app.access.load_limit import LoadLimit
from app.api import streaming
from app.exceptions import Overloaded
from tests.compat.helpers import QUESTION, ask
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import NO_TLS, Gateway, running_gateway


async def until_open(gateway: Gateway, count: int) -> None:
    for _ in range(500):
        if gateway.app.state.ttcl.load.open == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{gateway.app.state.ttcl.load.open} requests under way, not {count}")


def metrics(gateway: Gateway) -> str:
    return httpx.get(f"{gateway.url}/metrics", verify=NO_TLS).text


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_too_much_is_refused_quickly(
    upstream: ScriptedUpstream, stream: bool
) -> None:
    slow = Reply("The answer is four.", delay=0.8, chunk_delay=0.1)
    upstream.when(QUESTION, slow)
    with running_gateway(upstream, max_open_requests=4) as gateway:

        async def answered() -> int:
            if not stream:
                return (await gateway.post(ask("steer"))).status_code
            got = await gateway.sse(ask("steer"))
            assert got.done == 1
            return got.status

        under_way = [asyncio.create_task(answered()) for _ in range(4)]
        await until_open(gateway, 4)
        refused = await gateway.post(ask("steer"))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"
        assert 'ttcl_requests_total{mode="unknown",status="503"} 1.0' in metrics(gateway)
        assert "ttcl_requests_open 4.0" in metrics(gateway)
        assert await asyncio.gather(*under_way) == [200] * 4
        await until_open(gateway, 0)
        assert (await gateway.post(ask("off"))).status_code == 200


async def test_learning_gives_way_before_anybody_is_refused(upstream: ScriptedUpstream) -> None:
    upstream.when(QUESTION, Reply("The answer is four.", delay=0.5))
    with running_gateway(upstream, max_open_requests=4) as gateway:
        answers = await asyncio.gather(*(gateway.post(ask("steer")) for _ in range(3)))
        assert {answer.status_code for answer in answers} == {200}
        episodes = [gateway.settled(answer.headers["x-ttcl-episode"]) for answer in answers]
        reasons = [episode["reason"] for episode in episodes]
        assert "overloaded" in reasons
        assert 'ttcl_learning_skipped_total{reason="overloaded"}' in metrics(gateway)


def test_of_several_keys_none_has_all_of_the_room() -> None:
    alone, shared = LoadLimit(4), LoadLimit(4, lambda: True)
    leave = [limit.enter("flood") for limit in (alone, shared) for _ in range(3)]
    leave.append(alone.enter("flood"))
    with pytest.raises(Overloaded, match="of this key"):
        shared.enter("flood")
    leave.append(shared.enter("other"))
    with pytest.raises(Overloaded):
        shared.enter("third")
    for each in leave:
        each()
    assert (alone.open, shared.open) == (0, 0)
    shared.enter("flood")


async def test_unread_streams_give_their_places_back(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "READ_SECONDS", 0.2)
    upstream.when(QUESTION, Reply("word " * 2_000_000))
    with running_gateway(upstream, max_open_requests=2) as gateway:
        body = orjson.dumps({**ask("steer"), "stream": True})
        address = httpx.URL(gateway.url)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.host}\r\n"
            f"Authorization: {gateway.headers['Authorization']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        unread = [socket.create_connection((address.host, address.port)) for _ in range(2)]
        for connection in unread:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head.encode() + body)
        await until_open(gateway, 2)
        await until_open(gateway, 0)
        for connection in unread:
            connection.close()


async def test_a_client_that_leaves_makes_room(upstream: ScriptedUpstream) -> None:
    upstream.when(QUESTION, Reply("The answer is four.", delay=0.2, chunk_delay=0.5))
    with running_gateway(upstream, max_open_requests=1) as gateway:
        async with gateway.open_stream(ask("steer")) as stream:
            async for kind in stream.events():
                if kind == "frame":
                    break
            assert gateway.app.state.ttcl.load.open == 1
        await until_open(gateway, 0)
