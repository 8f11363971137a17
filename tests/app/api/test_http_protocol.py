"""Connections of old clients, and of those that offer another protocol, over raw sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.compat.helpers import QUESTION
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import CLIENT_KEY, MODEL, Gateway, running_gateway

PATH = b"/v1/chat/completions"
UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEA")


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        upstream.max_model_len = None
        yield upstream


@pytest.fixture(scope="module")
def _gateway(server: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(server, learn=False) as running:
        yield running


@pytest.fixture
def gateway(_gateway: Gateway, server: ScriptedUpstream) -> Gateway:
    server.reset()
    server.default = Reply("one two three")
    return _gateway


def asked(mode: str, *, stream: bool, filling: int = 0) -> bytes:
    said = QUESTION + " and so on" * filling
    body = {"model": MODEL, "messages": [{"role": "user", "content": said}], "stream": stream}
    return json.dumps({**body, "ttcl": {"mode": mode}}).encode()


def head(body: bytes, *more: bytes, version: bytes = b"1.1", method: bytes = b"POST") -> bytes:
    lines = [
        method + b" " + PATH + b" HTTP/" + version,
        b"Host: localhost",
        b"Authorization: Bearer " + CLIENT_KEY.encode(),
        b"Content-Type: application/json",
        b"Content-Length: " + str(len(body)).encode(),
        *more,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def exchange(gateway: Gateway, *pieces: bytes) -> bytes:
    """All that comes back on a connection until the gateway closes it."""
    port = int(gateway.url.rpartition(":")[2])
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
        while part := sock.recv(65536):
            got += part
    return got


def split(answer: bytes) -> tuple[bytes, bytes]:
    told, _, body = answer.partition(b"\r\n\r\n")
    return told.lower(), body


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("more", [(), (b"Connection: keep-alive",)], ids=["plain", "kept"])
def test_an_http_1_0_client_gets_a_stream_without_chunks(gateway, mode, more) -> None:
    body = asked(mode, stream=True)
    told, got = split(exchange(gateway, head(body, *more, version=b"1.0") + body))
    assert told.startswith(b"http/1.1 200")
    assert b"transfer-encoding" not in told
    assert b"connection: close" in told
    assert got.startswith(b"data: {")
    assert got.endswith(b"data: [DONE]\n\n")
    assert all(line.startswith(b"data: ") for line in got.split(b"\n\n") if line)


@pytest.mark.parametrize("mode", ["off", "steer"])
def test_an_http_1_0_client_gets_a_whole_answer(gateway, mode) -> None:
    body = asked(mode, stream=False, filling=30_000)
    sent = head(body, version=b"1.0") + body
    told, got = split(
        exchange(gateway, *(sent[at : at + 50_000] for at in range(0, len(sent), 50_000)))
    )
    assert b"content-length" in told
    assert json.loads(got)["choices"][0]["message"]["content"] == "one two three"


@pytest.mark.parametrize("path", [b"/healthz", b"/v1/models"])
def test_an_http_1_0_client_without_a_host(gateway, path) -> None:
    key = b"Authorization: Bearer " + CLIENT_KEY.encode()
    told, got = split(exchange(gateway, b"GET " + path + b" HTTP/1.0\r\n" + key + b"\r\n\r\n"))
    assert told.startswith(b"http/1.1 200")
    assert json.loads(got)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("filling", [0, 20_000], ids=["small", "large"])
def test_an_offer_of_another_protocol_is_declined_and_the_request_answered(
    gateway, stream, filling
) -> None:
    body = asked("steer", stream=stream, filling=filling)
    told, got = split(exchange(gateway, head(body, *UPGRADE), body))
    assert told.startswith(b"http/1.1 200")
    assert b"one" in got


def test_such_a_body_may_come_in_chunks(gateway) -> None:
    body = asked("steer", stream=False)
    sent = head(b"", *UPGRADE).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    half = len(body) // 2
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])]
    told, _ = split(exchange(gateway, sent, *chunks, b"0\r\n\r\n"))
    assert told.startswith(b"http/1.1 200")


def test_it_may_be_offered_on_a_connection_in_use(gateway) -> None:
    body = asked("steer", stream=False)
    port = int(gateway.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        for more in ((), UPGRADE):
            sock.sendall(head(body, *more) + body)
            got = b""
            while b'"ttcl"' not in got or not got.endswith(b"}"):
                part = sock.recv(65536)
                assert part, got
                got += part
            assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("more", [UPGRADE, ()], ids=["offer", "1.0"])
def test_sent_behind_another_one_it_is_not_read(gateway, server, more) -> None:
    """The connection ends behind the first answer, and no answers are mixed up."""
    server.default = Reply("one two three", delay=0.2)
    body = asked("steer", stream=False)
    second = head(body, *more, version=b"1.1" if more else b"1.0") + body
    got = exchange(gateway, head(body) + body + second)
    assert got.count(b"HTTP/1.1 200") == 1
    assert got.endswith(b"}")
    assert len(server.chats) == 1


def test_without_a_key_it_is_refused_as_any(gateway) -> None:
    body = asked("steer", stream=True)
    for sent in (head(body, *UPGRADE), head(body, version=b"1.0")):
        refused = sent.replace(CLIENT_KEY.encode(), b"wrong")
        told, got = split(exchange(gateway, refused + body))
        assert told.startswith(b"http/1.1 401")
        assert json.loads(got)["error"]["message"]


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.0\r\nbad\x00header: 1\r\n\r\n"]
)
def test_nonsense_is_refused_as_before(gateway, sent) -> None:
    assert exchange(gateway, sent).startswith(b"HTTP/1.1 400")
