"""Every inference path of the model server: bytes, query, status and headers both ways."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.api.compression import zstd  # type: ignore[attr-defined]
from app.api.passthrough import passing
from app.exceptions import ConfigurationError
from app.upstream.paths import PASSED, acceptable, counted
from app.upstream.usage import UsageReader
from tests.app.api.inference_server import InferenceServer, Told, streamed
from tests.gateway import CLIENT_KEY, NO_TLS, Gateway, running_gateway

KEY = {"Authorization": f"Bearer {CLIENT_KEY}"}
LIMIT = 100_000


@pytest.fixture(scope="module")
def _server() -> Iterator[InferenceServer]:
    with InferenceServer() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(_server: InferenceServer) -> Iterator[Gateway]:
    settings: dict[str, Any] = {
        "pass_paths": ("/custom", "/infer/*"),
        "cors_origins": ("https://page.example",),
        "mode_names": False,
        "max_body_bytes": LIMIT,
        "learn": False,
    }
    with running_gateway(_server, **settings) as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture
def server(_server: InferenceServer) -> InferenceServer:
    _server.history.clear()
    _server.answers.clear()
    _server.default = Told()
    return _server


def ask(gateway: Gateway, method: str, target: str, **more: Any) -> httpx.Response:
    headers = {**KEY, **more.pop("headers", {})}
    return httpx.request(
        method, gateway.url + target, headers=headers, verify=NO_TLS, timeout=30, **more
    )


PATHS = [path.replace("*", "some/thing-1.x") for path in (*PASSED, "/custom", "/infer/*")]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_passed_with_its_bytes(gateway: Gateway, server: InferenceServer, path) -> None:
    told = Told(body=b'{"x" :\n1}', headers=[("content-type", "application/json; charset=utf-8")])
    server.default = told
    response = ask(gateway, "POST", f"{path}?a=%2F1&b", content=b'{"in": [1 , 2]}')
    (asked,) = server.history
    assert (asked.method, asked.target, asked.body) == (
        "POST", f"{path}?a=%2F1&b", b'{"in": [1 , 2]}',
    )  # fmt: skip
    assert (response.status_code, response.content) == (200, told.body)
    assert response.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_method_is_kept(gateway: Gateway, server: InferenceServer, method) -> None:
    assert ask(gateway, method, "/v1/files/file-1").status_code == 200
    assert server.history[0].method == method


def test_head_is_the_servers_to_answer(gateway: Gateway, server: InferenceServer) -> None:
    server.default = Told(body=[], headers=[("content-length", "123"), ("x-own", "1")])
    response = ask(gateway, "HEAD", "/v1/files/file-1")
    assert (response.content, response.headers["content-length"]) == (b"", "123")
    assert server.history[0].method == "HEAD"


def test_a_form_with_a_file_is_passed(gateway: Gateway, server: InferenceServer) -> None:
    sound = bytes(range(256)) * 20
    ask(gateway, "POST", "/v1/audio/transcriptions", data={"model": "w"}, files={"file": sound})
    (asked,) = server.history
    assert sound in asked.body
    boundary = (asked.header("content-type") or "").partition("boundary=")[2]
    assert asked.body.startswith(f"--{boundary}".encode())


@pytest.mark.parametrize("status", [201, 204, 400, 404, 418, 429, 500, 503, 529])
def test_a_status_and_its_body_are_kept(gateway: Gateway, server: InferenceServer, status) -> None:
    body = b"" if status == 204 else b"<own>words</own>"
    headers = [("content-type", "text/xml"), ("retry-after", "7"), ("content-length", "16")]
    server.default = Told(status, body, headers[: None if body else 2])
    response = ask(gateway, "POST", "/v1/embeddings", json={})
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["retry-after"] == "7"
    assert len(server.history) == 1


def test_headers_are_kept_both_ways(gateway: Gateway, server: InferenceServer) -> None:
    server.default.headers += [
        ("x-ratelimit-remaining-requests", "9"),
        ("x-request-id", "theirs"),
        ("set-cookie", "a=b"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("access-control-allow-origin", "*"),
    ]
    sent: dict[str, Any] = {
        "X-Tenant": "é".encode(),
        "OpenAI-Beta": "a",
        "X-TTCL-Mode": "off",
        "Cookie": "ttcl=1",
    }
    sent |= {"X-Api-Key": "other", "Connection": "keep-alive, X-Mine", "X-Mine": "1"}
    response = ask(gateway, "POST", "/v1/rerank", json={}, headers=sent)
    asked = server.history[0]
    assert (asked.header("x-tenant"), asked.header("openai-beta")) == ("Ã©", "a")
    dropped = ("authorization", "x-api-key", "cookie", "x-ttcl-mode", "x-mine")
    assert [name for name in dropped if asked.header(name) is not None] == []
    assert response.headers["x-ratelimit-remaining-requests"] == "9"
    assert response.headers["x-request-id"] == "theirs"
    assert asked.header("x-request-id") == response.headers["x-ttcl-request-id"]
    assert not {"set-cookie", "x-hop", "access-control-allow-origin"} & set(response.headers)


def test_a_compressed_answer_is_passed_as_it_is(gateway: Gateway, server: InferenceServer) -> None:
    packed = gzip.compress(b'{"long": "text"}', mtime=0)
    server.default = Told(
        body=packed, headers=[("content-encoding", "gzip"), ("content-length", str(len(packed)))]
    )
    response = ask(gateway, "POST", "/v1/embeddings", json={})
    assert response.json() == {"long": "text"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/sleep",
        "/infer/sleep",
        "/infer/WAKE_UP",
        "/infer/x/reset_prefix_cache",
        "/infer/update_weights_from_disk",
        "/infer/slots/1",
        "/infer/models/unload",
        "/infer/api/pull",
        "/v1/files/%2e%2e/load_lora_adapter",
        "/v1/files/a%2f..%2f..%2fsleep",
        "/v1/files//etc",
        "/v1/files/a%5cb",
        "/v1/files/a%252fb",
        "/v1/files/a%00b",
        "/v1/unknown",
        "/v1/embeddings/more",
        "/V1/EMBEDDINGS",
        "/custom/more",
    ],
)
def test_what_is_not_listed_never_gets_there(gateway: Gateway, server: InferenceServer, path):
    response = ask(gateway, "POST", path, json={})
    assert response.status_code == 404, response.text
    assert response.json()["error"]["code"] == "not_found"
    assert server.history == []


@pytest.mark.parametrize(
    "path",
    ["/sleep", "/v1/load_lora_adapter", "custom", "/*", "/a//b", "/admin/*", "/a?b", "/a/.."],
)
def test_a_setting_can_not_open_what_manages_the_server(path: str) -> None:
    with pytest.raises(ConfigurationError, match="TTCL_PASS_PATHS"):
        passing([path])


def test_every_listed_path_is_acceptable_and_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "clients.md").read_text()
    assert [path for path in PASSED if not acceptable(path.removesuffix("/*"))] == []
    assert [path for path in PASSED if f"`{path}`" not in text] == []


def test_what_makes_the_model_work_is_counted() -> None:
    assert counted("POST", "/v1/completions")
    assert counted("POST", "/v1/messages")
    assert not counted("GET", "/v1/completions")
    for path in ("/tokenize", "/v1/messages/count_tokens", "/v1/files", "/v1/batches/b/cancel"):
        assert not counted("POST", path)


# -- streams


async def test_a_stream_comes_as_it_is_made(gateway: Gateway, server: InferenceServer) -> None:
    server.default = streamed(b"event: ping\ndata: {}\n\n", b"data: half", None)
    async with (
        httpx.AsyncClient(verify=NO_TLS) as http,
        http.stream("POST", f"{gateway.url}/v1/responses", headers=KEY, json={}) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        got = b""
        async for piece in response.aiter_raw():
            got += piece
            if got.endswith(b"half"):
                break
    assert got == b"event: ping\ndata: {}\n\ndata: half"
    deadline = time.monotonic() + 2
    while not server.history[0].aborted:
        assert time.monotonic() < deadline, "the model server was left at work"
        await asyncio.sleep(0.01)


def test_a_cut_answer_is_not_taken_for_whole(gateway: Gateway, server: InferenceServer) -> None:
    server.default = Told(body=[b"half"], headers=[("content-length", "9")])
    with pytest.raises(httpx.RemoteProtocolError):
        ask(gateway, "POST", "/v1/audio/speech", json={})


def test_a_stream_of_comments_alone_has_an_end(server: InferenceServer) -> None:
    comments = streamed(*[b": ping\n"] * 400)
    comments.pause = 0.02
    server.default = comments
    server.answers["/v1/models"] = Told(body={"data": [{"id": "m"}]})
    with running_gateway(server, upstream_timeout=0.3, learn=False) as gateway:  # type: ignore[arg-type]
        with pytest.raises(httpx.RemoteProtocolError):
            ask(gateway, "POST", "/v1/completions", json={})
        body = {"model": "m", "messages": [{"role": "user", "content": "Q"}], "stream": True}
        for path in ("/v1/chat/completions", "/v1/messages"):
            answer = ask(gateway, "POST", path, json={**body, "max_tokens": 9})
            assert answer.status_code == 504
            assert "nothing but comments" in answer.json()["error"]["message"]


def test_no_server_is_a_502(tmp_path: Path) -> None:
    with InferenceServer() as gone:
        pass
    with running_gateway(gone, learn=False) as gateway:  # type: ignore[arg-type]
        response = ask(gateway, "POST", "/v1/embeddings", json={})
    assert response.status_code == 502
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


# -- keys, rates and budgets


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
def test_other_clients_headers_carry_the_key(gateway: Gateway, server, header) -> None:
    for path in ("/v1/messages", "/v1/chat/completions"):
        url = gateway.url + path
        good = httpx.post(url, headers={header: CLIENT_KEY}, json={}, verify=NO_TLS)
        assert good.status_code in (200, 400), good.text
        assert httpx.post(url, headers={header: "no"}, verify=NO_TLS).status_code == 401
        both = {"Authorization": "Bearer no", header: CLIENT_KEY}
        assert httpx.post(url, headers=both, verify=NO_TLS).status_code == 401


def made_key(gateway: Gateway, **limits: Any) -> dict[str, str]:
    body = {"name": "k", "namespaces": ["default"], "permissions": ["chat"], **limits}
    response = gateway.admin("POST", "/keys", json={**body, "actor": "t", "reason": "t"})
    assert response.status_code == 201, response.text
    return {"Authorization": f"Bearer {response.json()['secret']}"}


def test_a_rate_is_shared_by_all_paths(gateway: Gateway, server: InferenceServer) -> None:
    key = made_key(gateway, requests_per_minute=2)
    first = ask(gateway, "GET", "/version", headers=key)
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert ask(gateway, "POST", "/v1/rerank", headers=key).status_code == 200
    refused = ask(gateway, "POST", "/v1/embeddings", headers=key)
    assert (refused.status_code, len(server.history)) == (429, 2)


MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":'
    b'{"input_tokens":50,"cache_read_input_tokens":7,"output_tokens":1}}}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"hello"}}\n\n'
    b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":43}}\n\n'
)
RESPONSES = (
    b'data: {"type":"response.output_text.delta","delta":"hi"}\n\n'
    b'data: {"type":"response.completed","response":{"usage":{"input_tokens":60,'
    b'"output_tokens":40,"total_tokens":100}}}\n\n'
)
SILENT = b'data: {"choices":[{"index":0,"text":"' + b"x" * 320 + b'"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    "told",
    [
        Told(body={"usage": {"prompt_tokens": 100, "total_tokens": 100}}),
        Told(body={"usage": {"total_tokens": 100}}),
        streamed(MESSAGES[:70], MESSAGES[70:]),
        streamed(RESPONSES),
        streamed(SILENT[:100], SILENT[100:]),
        Told(body={"data": [{"embedding": [0.1]}]}),
    ],
    ids=["embeddings", "rerank", "messages", "responses", "no usage", "no usage, not streamed"],
)
def test_a_budget_counts_every_format(gateway: Gateway, server: InferenceServer, told) -> None:
    key = made_key(gateway, tokens_per_day=75)
    server.default = told
    body = {"prompt": "y" * 400 if b"usage" not in repr(told).encode() else "y"}
    assert ask(gateway, "POST", "/v1/completions", headers=key, json=body).status_code == 200
    refused = ask(gateway, "POST", "/v1/completions", headers=key, json=body)
    assert refused.json()["error"]["code"] == "budget_exceeded"


def test_what_was_refused_or_only_read_costs_nothing(gateway: Gateway, server) -> None:
    key = made_key(gateway, tokens_per_day=10)
    usage = {"usage": {"prompt_tokens": 99}}
    server.default = Told(400, usage)
    assert ask(gateway, "POST", "/v1/completions", headers=key, json=usage).status_code == 400
    server.default = Told(200, usage)
    assert ask(gateway, "GET", "/v1/responses/resp_1", headers=key).status_code == 200
    assert ask(gateway, "POST", "/v1/completions", headers=key, json={}).status_code == 200


def _tokens(kind: str, *chunks: bytes, body: bytes = b"{}", whole: bool = True) -> tuple[int, int]:
    reader = UsageReader(kind)
    for chunk in chunks:
        reader.read(chunk)
    cost = reader.cost(body, whole=whole)
    return cost.prompt_tokens, cost.completion_tokens


SSE = "text/event-stream"


def test_usage_is_read_whatever_comes() -> None:
    assert _tokens(SSE, *(bytes([byte]) for byte in MESSAGES)) == (57, 43)
    assert _tokens(SSE, RESPONSES[:60], body=b'{"input": "12345678"}', whole=False) == (2, 1)
    assert _tokens("application/json", b'{"choices": [{"text": "12345678"}]}') == (0, 2)
    assert _tokens("application/json", b"{no", body=b'{"input": [1, 2, [3]]}') == (3, 0)
    assert _tokens("audio/mpeg", b"\x00" * 999, body=b"\xff\xfe") == (0, 0)
    for odd in (b'{"usage": 5}', b'{"usage": {"prompt_tokens": -1}}', b"[]", b'{"choices": [5]}'):
        assert _tokens("application/json", odd) == (0, 0)
    deep = b'{"prompt": ' + b"[" * 190 + b'"abcd"' + b"]" * 190 + b"}"
    assert _tokens("application/json", b"{}", body=deep) == (1, 0)


# -- bodies that come compressed

ENCODE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("encoding", ENCODE)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/chat/completions"])
def test_a_compressed_body_is_decoded(gateway: Gateway, server, encoding, path) -> None:
    server.default = Told(body={"choices": [{"message": {"content": "x"}}], "data": [{"id": "m"}]})
    plain = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    headers = {"Content-Encoding": encoding, "X-TTCL-Mode": "off"}
    response = ask(gateway, "POST", path, headers=headers, content=ENCODE[encoding](plain))
    assert response.status_code == 200, response.text
    assert server.history[-1].body == plain
    assert server.history[-1].header("content-encoding") is None


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b" " * (LIMIT + 1), mtime=0), 413),
        ("gzip", gzip.compress(b" " * LIMIT, mtime=0) + gzip.compress(b" ", mtime=0), 413),
        ("zstd", zstd.compress(b" " * 50_000_000), 413),
        ("gzip, gzip", gzip.compress(gzip.compress(b" " * (LIMIT + 1), mtime=0), mtime=0), 413),
        ("br", b"{}", 415),
        ("gzip, gzip, gzip", b"{}", 415),
        ("gzip", b"{}", 400),
        ("zstd", b"{}", 400),
        ("deflate", b"\xff\xff", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
    ],
)
def test_a_body_that_can_not_be_decoded(gateway, server, encoding, body, status) -> None:
    headers = {"Content-Encoding": encoding}
    response = ask(gateway, "POST", "/v1/chat/completions", headers=headers, content=body)
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert server.history == []


def test_a_mark_before_the_text_is_no_part_of_it(gateway: Gateway, server) -> None:
    server.default = Told(body={"choices": [{"message": {"content": "x"}}], "data": [{"id": "m"}]})
    body = b'\xef\xbb\xbf{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    response = ask(gateway, "POST", "/v1/chat/completions", content=body)
    assert response.status_code == 200, response.text


# -- models, pages of browsers, and what answers here


def test_models_keep_the_servers_own_fields(gateway: Gateway, server: InferenceServer) -> None:
    row = {"id": "m", "object": "model", "created": "yesterday", "root": None, "meta": [1]}
    server.answers["/v1/models"] = Told(body={"data": [row, {"id": "n", "max_model_len": 9}]})
    gateway.app.state.ttcl.upstream._models_at = float("-inf")
    first, second = ask(gateway, "GET", "/v1/models").json()["data"]
    assert {name: first[name] for name in row} == row
    assert (second["max_model_len"], second["created"], second["owned_by"]) == (9, 0, "upstream")
    assert ask(gateway, "GET", "/v1/models/m").json() == first


@pytest.mark.parametrize("status", [404, 405, 403, 500, 200])
def test_a_server_without_a_list_works_with_a_named_model(server, status) -> None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    server.answers["/v1/models"] = Told(status, b"<html>")
    server.default = Told(body=answer)
    with running_gateway(server, upstream_model="m", learn=False) as gateway:  # type: ignore[arg-type]
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for name in ("m", "m+off"):
            response = ask(gateway, "POST", "/v1/chat/completions", json={**body, "model": name})
            assert response.json()["choices"] == answer["choices"], response.text
        listed = ask(gateway, "GET", "/v1/models").json()["data"]
        assert [each["id"] for each in listed] == ["m", "m+off", "m+explore"]
        other = ask(gateway, "POST", "/v1/chat/completions", json={**body, "model": "n+off"})
        assert other.json()["error"]["code"] == "model_not_found"


def test_only_the_named_origins_may_ask_from_a_page(gateway: Gateway, server) -> None:
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        origin = {"Origin": "https://page.example"}
        good = ask(gateway, "OPTIONS", path, headers={**origin, **asking})
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "https://page.example"
        bad = ask(gateway, "OPTIONS", path, headers={"Origin": "https://other.example", **asking})
        assert "access-control-allow-origin" not in bad.headers
    response = ask(gateway, "POST", "/v1/embeddings", headers=origin, json={})
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert server.history[-1].header("origin") is None
    for path in ("/admin/v1/rules", "/console"):
        closed = ask(gateway, "OPTIONS", path, headers={**origin, **asking})
        assert "access-control-allow-origin" not in closed.headers


def test_head_is_answered_where_get_is(gateway: Gateway, server: InferenceServer) -> None:
    for path in ("/healthz", "/", "/metrics", "/v1/models"):
        response = ask(gateway, "HEAD", path)
        assert (response.status_code, response.content) == (200, b""), path
    assert ask(gateway, "HEAD", "/v1/chat/completions").status_code == 405


def test_the_root_says_what_answers_here(gateway: Gateway) -> None:
    said = httpx.get(gateway.url, verify=NO_TLS).json()
    assert said["service"] == "ttcl"
    for path in said["places"].values():
        if not path.startswith(("/v1/chat", "/v1/feedback", "/admin")):
            found = ask(gateway, "GET", path, follow_redirects=True)
            assert found.status_code in (200, 503), path
