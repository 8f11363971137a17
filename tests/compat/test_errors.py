"""Cases 19-21: the shape of errors, their status, and what a failing loop step leads to."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest

from app.upstream.embeddings import EmbeddingFailed
from tests.compat.helpers import (
    QUESTION,
    RULE,
    RULED,
    ask,
    check_error,
    for_client,
    script_loop,
    visible_call,
)
from tests.fakes import (
    Fault,
    HashEmbedder,
    Reply,
    ScriptedUpstream,
    is_distiller,
    is_student,
    is_teacher,
    is_tutor,
)
from tests.gateway import ADMIN_KEY, NO_TLS, Gateway, running_gateway

UNKNOWN = [
    ("GET", "/v1", 404),
    ("GET", "/v1/nothing", 404),
    ("GET", "/v1/%ff%00", 404),
    ("HEAD", "/v1/nothing", 404),
    ("GET", "/v1/models/no-such-model", 404),
    ("GET", "/v1/chat/completions", 405),
    ("DELETE", "/v1/models", 405),
    ("GET", "/admin/v1/nothing", 404),
    ("GET", "/admin/v1/rules/no-such-rule", 404),
    ("GET", "/admin/v1/episodes/no-such-episode", 404),
    ("GET", "/admin/v1/rules?limit=many", 400),
    ("GET", "/admin/v1/rules?cursor=%00bogus", 400),
    ("GET", "/admin/v1/rules?polarity=sideways", 400),
    ("POST", "/admin/v1/rules", 400),
]


@pytest.mark.parametrize(("method", "path", "status"), UNKNOWN)
def test_19_every_path_has_the_envelope(gw, method, path, status) -> None:
    key = ADMIN_KEY if path.startswith("/admin") else gw.headers["Authorization"][7:]
    headers = {"Authorization": f"Bearer {key}"}
    response = httpx.request(method, gw.url + path, headers=headers, timeout=30, verify=NO_TLS)
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    if method != "HEAD":
        check_error(response.json())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"detail":"told by a framework"}', "application/json"),
        (422, b'{"detail":[{"loc":["body"],"msg":"wrong"}]}', "application/json"),
        (400, b'{"error":"a bare string"}', "application/json"),
        (400, b'"a bare string"', "application/json"),
        (404, b"<html>not here</html>", "text/html"),
        (500, b"Internal Server Error", "text/plain"),
        (502, b"<html>bad gateway</html>", "text/html"),
        (500, b"\xff\xfe\x00", "application/octet-stream"),
        (503, b"", "text/plain"),
    ],
)
async def test_19_upstream_errors_are_put_in_shape(
    gw, up, mode, stream, status, body, kind
) -> None:
    up.default = Reply(status=status, body=body, headers={"content-type": kind})
    if stream:
        got = await gw.sse_or_error(ask(mode))
        check_error(got.envelope)
        assert got.status == status or (mode == "explore" and got.status == 200)
        return
    response = await gw.post(ask(mode))
    assert response.status_code == status
    assert response.headers["content-type"].startswith("application/json")
    check_error(response.json())


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.WRONG_JSON, Fault.EMPTY_CHOICES])
@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_19_nonsense_with_status_200_is_a_502(gw, up, mode, fault) -> None:
    up.default = Reply(fault=fault)
    response = await gw.post(ask(mode))
    assert response.status_code == 502, response.text
    check_error(response.json())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"model": NaN}', b"model=x", b"[" * 5000],
    ids=lambda raw: repr(raw[:16]),
)
async def test_20_bad_json_is_400(gw, up, raw) -> None:
    response = await gw.post(raw)
    assert response.status_code == 400, response.text
    check_error(response.json())
    assert up.chats == []


async def test_20_context_overflow_is_400(gw, up, mode) -> None:
    response = await gw.post(ask(mode, max_tokens=9000))
    assert response.status_code == 400
    error = check_error(response.json())
    assert "maximum context length" in error["message"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic Y2xpZW50LWtleTo=", "Bearer", "x"])
def test_20_bad_key_is_401(gw, up, header) -> None:
    headers = {"Authorization": header} if header else {}
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/admin/v1/rules"),
    ):
        response = httpx.request(method, gw.url + path, headers=headers, verify=NO_TLS)
        assert response.status_code == 401, path
        check_error(response.json())
    assert up.chats == []


def test_20_a_client_key_may_not_administer(gw) -> None:
    response = httpx.get(f"{gw.url}/admin/v1/rules", headers=gw.headers, verify=NO_TLS)
    assert response.status_code == 403
    assert check_error(response.json())["type"] == "permission_error"


async def test_20_unknown_model_is_404(gw, up, mode) -> None:
    response = await gw.post(ask(mode, model="no-such-model"))
    assert response.status_code == 404
    error = check_error(response.json())
    # In mode off it is the upstream that says so.
    assert (error["code"], error["param"]) == (404 if mode == "off" else "model_not_found", "model")
    async with gw.client() as client:
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**for_client(ask(mode, model="other")))


@pytest.fixture
def small(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream, max_body_bytes=2048, learn=False) as running:
        yield running


async def test_20_large_body_is_413_declared_or_chunked(small, up) -> None:
    body = ask("off", question="x" * 4000)
    declared = await small.post(body)
    assert declared.status_code == 413
    check_error(declared.json())

    async def pieces():
        for _ in range(8):
            yield b" " * 1000

    async with httpx.AsyncClient(verify=NO_TLS) as http:
        chunked = await http.post(
            f"{small.base_url}/chat/completions", content=pieces(), headers=small.headers
        )
    assert chunked.status_code == 413
    check_error(chunked.json())
    assert up.chats == []


async def test_20_429_keeps_retry_after(gw, up, mode) -> None:
    up.default = Reply.error(429, "slow down", headers={"Retry-After": "7"})
    response = await gw.post(ask(mode))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert check_error(response.json())["message"] == "slow down"


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
async def test_20_upstream_4xx_is_kept(gw, up, mode, status) -> None:
    up.default = Reply.error(status, "said by the model server", param="temperature")
    response = await gw.post(ask(mode))
    assert response.status_code == status
    error = check_error(response.json())
    assert error["message"] == "said by the model server"
    assert error["param"] == "temperature"


async def test_20_refused_connection_is_502(gw, up, mode) -> None:
    up.default = Reply(fault=Fault.REFUSE)
    response = await gw.post(ask(mode))
    assert response.status_code == 502
    check_error(response.json())


async def test_20_upstream_down_is_502_and_comes_back(mode) -> None:
    with ScriptedUpstream() as upstream, running_gateway(upstream, learn=False) as gateway:
        assert (await gateway.post(ask(mode))).status_code == 200
        upstream.down()
        response = await gateway.post(ask(mode))
        assert response.status_code in (502, 503)
        check_error(response.json())
        upstream.up()
        assert (await gateway.post(ask(mode))).status_code == 200


async def test_20_503_keeps_retry_after(gw, up, mode) -> None:
    up.default = Reply.error(503, "starting", headers={"Retry-After": "9"})
    response = await gw.post(ask(mode))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "9"
    check_error(response.json())


@pytest.mark.parametrize("stream", [False, True])
async def test_20_silent_upstream_is_504(up, shared_upstream, stream) -> None:
    up.default = Reply(fault=Fault.HANG)
    with running_gateway(shared_upstream, upstream_timeout=0.3, learn=False) as gateway:
        for mode in ("off", "steer"):
            response = await gateway.post(ask(mode, stream=stream))
            if response.status_code == 200:  # the upstream's headers had come already
                assert stream
                assert b'"error"' in response.content
                assert response.content.endswith(b"data: [DONE]\n\n")
            else:
                assert response.status_code == 504
                check_error(response.json())
        if not stream:
            response = await gateway.post(ask("explore"))
            assert response.status_code == 504
            check_error(response.json())


async def test_20_transient_503_is_retried_once(gw, up, mode) -> None:
    up.enqueue(Reply.error(503, "just a moment"))
    assert (await gw.post(ask(mode))).status_code == 200


LOOP_FAULTS = [
    ("tutor", is_tutor, Reply.error(500, "no tutor")),
    ("tutor-garbage", is_tutor, Reply("this is no JSON at all")),
    ("students", is_student, Reply.error(500, "no students")),
    ("students-refuse", is_student, Reply(fault=Fault.REFUSE)),
    ("students-empty", is_student, Reply("")),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("condition", "fault"), [f[1:] for f in LOOP_FAULTS], ids=[f[0] for f in LOOP_FAULTS]
)
async def test_21_a_failing_step_leaves_the_teachers_answer(
    shared_upstream, stream, condition, fault
) -> None:
    shared_upstream.reset()
    shared_upstream.when(condition, fault)
    script_loop(shared_upstream)
    shared_upstream.default = Reply("the Teacher says the answer is 7")
    with running_gateway(shared_upstream, learn=False) as gateway:
        if stream:
            got = await gateway.sse(ask("explore"))
            assert got.text() == "the Teacher says the answer is 7"
            assert got.errors() == []
        else:
            answer = (await gateway.post(ask("explore"))).json()
            text = answer["choices"][0]["message"]["content"]
            assert text == "the Teacher says the answer is 7"
            assert answer["ttcl"]["degraded"]


async def test_21_silent_students_do_not_hold_the_answer(shared_upstream) -> None:
    shared_upstream.reset()
    script_loop(shared_upstream)
    shared_upstream.when(is_student, Reply(fault=Fault.HANG))
    shared_upstream.default = Reply("the answer is 7")
    with running_gateway(shared_upstream, learn=False, explore_timeout=0.5) as gateway:
        answer = (await gateway.post(ask("explore"))).json()
        assert answer["choices"][0]["message"]["content"] == "the answer is 7"
        assert answer["ttcl"]["degraded"]
        await shared_upstream.settled(1.0)


async def test_21_a_failing_teacher_leaves_the_students_answer(shared_upstream) -> None:
    shared_upstream.reset()
    script_loop(shared_upstream)
    shared_upstream.when(is_teacher, Reply.error(500, "no teacher"))
    shared_upstream.default = Reply("the answer is 7")
    with running_gateway(shared_upstream, learn=False) as gateway:
        answer = (await gateway.post(ask("explore"))).json()
        assert answer["choices"][0]["message"]["content"] == "the answer is 7"
        assert answer["ttcl"]["degraded"]


async def test_21_a_failing_distiller_hurts_nobody(learner, up, namespace) -> None:
    up.reset()
    up.when(is_distiller, Reply("I would rather not."))
    script_loop(up)
    up.default = Reply("the answer is 7")
    response = await learner.post(ask("explore", ttcl={"namespace": namespace}))
    assert response.json()["choices"][0]["message"]["content"] == "the answer is 7"
    episode = learner.settled(response.headers["x-ttcl-episode"])
    assert episode["status"] in ("skipped", "failed")
    assert episode["reason"]
    assert learner.rules(namespace) == []


@pytest.mark.parametrize("trouble", ["failure", "hang"])
@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_21_without_embeddings_the_answer_goes_unsteered(
    up, shared_upstream, mode, trouble
) -> None:
    embedder = HashEmbedder()
    with running_gateway(
        shared_upstream, embedder=embedder, learn=False, embedding_timeout=0.2
    ) as gateway:
        gateway.add_rule(RULED, RULE, QUESTION)
        if trouble == "hang":
            embedder.hang = True
        else:
            embedder.failure = EmbeddingFailed("no vectors today")
        response = await gateway.post(ask(mode))
        assert response.status_code == 200, response.text
        assert response.json()["ttcl"]["degraded"]
        assert RULE not in visible_call(up, mode).text
        embedder.hang, embedder.failure = False, None
        up.history.clear()
        steered = await gateway.post(ask(mode))
        assert not steered.json()["ttcl"].get("degraded")
        assert RULE in visible_call(up, mode).text
