"""Who has no key sends no body: refused on every path before it is read, and whoever has one sends
it in time and within bounds."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from app.api.entrance import MAX_JSON_BYTES, Door, Doors, WholeBody
from app.domain.json_text import MOST_VALUES, has_more_values
from tests.fakes import ScriptedUpstream
from tests.gateway import ADMIN_KEY, CLIENT_KEY, MODEL, Gateway, running_gateway

PATHS = (
    "/v1/chat/completions",
    "/v1/feedback",
    "/v1/feedback:batch",
    "/v1/embeddings",
    "/v1/nothing-here",
    "/tokenize",
    "/admin/v1/rules",
    "/admin/v1/rules:import",
    "/admin/v1/rules:explain",
    "/admin/v1/nothing-here",
)


@pytest.fixture(scope="module")
def open_gateway() -> Iterator[Gateway]:
    """Without keys."""
    with ScriptedUpstream() as upstream, running_gateway(upstream, api_keys=()) as gateway:
        yield gateway


def first_answer(gateway: Gateway, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Status line of the answer to a POST of whose 19 MB only `body` is ever sent."""
    address = httpx.URL(gateway.url)
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {address.host}",
        "Content-Length: 19000000",
        "Content-Type: application/json",
        *headers,
    ]
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return connection.makefile("rb").readline().strip()


@pytest.mark.parametrize("path", PATHS)
def test_without_a_key_nothing_of_a_body_is_waited_for(gw: Gateway, path: str) -> None:
    assert first_answer(gw, path) == b"HTTP/1.1 401 Unauthorized"
    wrong = first_answer(gw, path, "Authorization: Bearer wrong", body=b'{"model": "')
    assert wrong == b"HTTP/1.1 401 Unauthorized"


@pytest.mark.parametrize("path", [each for each in PATHS if each.startswith("/admin")])
def test_a_clients_key_opens_no_admin_body(gw: Gateway, path: str) -> None:
    given = first_answer(gw, path, f"Authorization: Bearer {CLIENT_KEY}")
    assert given == b"HTTP/1.1 403 Forbidden"


def test_compressed_bodies_wait_for_the_key_too(gw: Gateway) -> None:
    for path in PATHS:
        given = first_answer(gw, path, "Content-Encoding: gzip", body=gzip.compress(b"{}")[:9])
        assert given == b"HTTP/1.1 401 Unauthorized", path


def test_a_key_behind_the_body_is_none(gw: Gateway) -> None:
    """As a trailer of a chunked body, in one packet with its head."""
    address = httpx.URL(gw.url)
    body = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
    sent = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n"
        b"Trailer: Authorization\r\n\r\n%x\r\n%s\r\n0\r\nAuthorization: Bearer %s\r\n\r\n"
        % (len(body), body, CLIENT_KEY.encode())
    )
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/v1/feedback", "/admin/v1/rules", "/admin/v1/rules/x/retire"])
def test_one_object_is_small(gw: Gateway, path: str) -> None:
    key = CLIENT_KEY if path.startswith("/v1") else ADMIN_KEY
    body = b'{"reason": "' + b"x" * MAX_JSON_BYTES + b'"}'
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = httpx.post(f"{gw.url}{path}", content=body, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    # Told by no length, and compressed.
    packed = {**headers, "Content-Encoding": "gzip"}
    chunks = (piece for piece in [gzip.compress(body)])
    assert httpx.post(f"{gw.url}{path}", content=chunks, headers=packed).status_code == 413


BOMBS = {
    "parts": b'[{"role":"user","content":[%s]}]' % b",".join([b'{"type":"text"}'] * MOST_VALUES),
    "keys": b'[{"role":"user","content":"hi"}],"o":{%s}'
    % b",".join(b'"%d":1' % number for number in range(MOST_VALUES + 1)),
    "depth": b"[" * 2_000_000 + b"]" * 2_000_000,
    "number": b'[{"role":"user","content":"hi"}],"seed":' + b"9" * 2_000_000,
    "unclosed": b'[{"role":"user","content":"' + b"[{," * 1_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_is_named_and_reaches_nobody(
    gw: Gateway, up: ScriptedUpstream, bomb: str
) -> None:
    before = len(up.chats)
    body = b'{"model":"%s","messages":%s}' % (MODEL.encode(), BOMBS[bomb])
    answer = await gw.post(body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("too_many_values", "invalid_json", "invalid_value")
    assert len(up.chats) == before


def test_what_stands_in_strings_is_no_value() -> None:
    inside = orjson.dumps({"content": ',[{"\\' * MOST_VALUES})
    assert not has_more_values(inside, 10)
    assert has_more_values(orjson.dumps({"content": [1] * 12}), 10)
    assert has_more_values(b'{"a":"\\\\",' + b'"b":[],' * 12 + b'"c":1}', 10)
    assert not has_more_values(b'{"a":"\\\\\\",,,,,,,,,,,,,,"}', 10)


# -- one ASGI application, and a client that is scripted


async def answered(
    pieces: list[bytes], *, path: str = "/v1/chat/completions", hangs: bool = False
) -> tuple[int, bytes]:
    """Status and body of what a middleware with small bounds says to these pieces of a body."""
    sent: list[dict[str, Any]] = []
    left = list(pieces)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"], "in one piece"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    async def receive() -> dict[str, Any]:
        if not left and hangs:
            await asyncio.Event().wait()
        return {
            "type": "http.request",
            "body": left.pop(0) if left else b"",
            "more_body": bool(left) or hangs,
        }

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"transfer-encoding", b"chunked")]}
    guard = WholeBody(app, Doors(), limit=100, idle=0.02, whole=0.05)
    await guard(scope, receive, send)
    content = b"".join(each.get("body", b"") for each in sent[1:])
    return sent[0]["status"], content


async def test_pieces_become_one() -> None:
    assert await answered([b"one ", b"and ", b"two"]) == (200, b"one and two")


async def test_a_body_that_stops_is_given_up() -> None:
    status, content = await answered([b"{"], hangs=True)
    assert status == 408
    assert orjson.loads(content)["error"]["code"] == "request_timeout"


async def test_a_body_that_is_too_long_is_refused_where_it_is() -> None:
    status, _ = await answered([b"x" * 60, b"x" * 60])
    assert status == 413


def test_each_path_has_its_door() -> None:
    doors = Doors(["/extra", "/more/*"])
    for path in ("/v1/chat/completions", "/v1", "/v1/x", "/extra", "/more/x", "/rerank"):
        assert doors.of(path) is Door.CLIENT, path
    for path in ("/admin", "/admin/v1/rules", "/admin/x"):
        assert doors.of(path) is Door.ADMIN, path
    for path in ("/", "/healthz", "/console/login", "/more", "/adminx"):
        assert doors.of(path) is Door.OPEN, path


# -- without keys


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "http://127.0.0.1:9"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ],
)
def test_an_open_gateway_is_taught_by_no_web_page(
    open_gateway: Gateway, headers: dict[str, str], status: int
) -> None:
    body = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
    answer = httpx.post(
        f"{open_gateway.url}/v1/chat/completions",
        content=body,
        headers={"Content-Type": "application/json", **headers},
    )
    assert answer.status_code == status, answer.text
    assert status == 200 or "error" in answer.json()


def test_with_keys_a_page_needs_one_and_that_is_enough(gw: Gateway) -> None:
    answer = httpx.get(f"{gw.url}/v1/models", headers={**gw.headers, "Origin": "https://any.one"})
    assert answer.status_code == 200
