"""Cases 1-5: streaming."""

from __future__ import annotations

import time

import pytest

from tests.compat.helpers import ask, check_error, check_stream_shape, for_client, is_teacher
from tests.fakes import Fault, Reply
from tests.gateway import MODEL

PIECES = ("The ", "answer — ", "naïve ", "☃ ", "is ", "seven.")
ANSWER = "".join(PIECES)


async def test_01_chunks_agree_and_end_once(gw, up, mode) -> None:
    up.default = Reply(ANSWER)
    stream = await gw.sse(ask(mode))
    check_stream_shape(stream.frames, MODEL)
    assert stream.text() == ANSWER
    assert stream.finishes() == ["stop"]
    assert (stream.done, stream.after_done) == (1, [])


async def test_01_official_client(gw, up, mode) -> None:
    up.default = Reply(ANSWER)
    async with gw.client() as client:
        stream = await client.chat.completions.create(**for_client(ask(mode)), stream=True)
        chunks = [chunk async for chunk in stream]
    check_stream_shape([chunk.model_dump() for chunk in chunks], MODEL)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == ANSWER


async def test_01_model_is_the_name_that_was_asked_for(gw, up, mode) -> None:
    name = f"{MODEL}+{mode}"
    stream = await gw.sse(ask(None, model=name))
    check_stream_shape(stream.frames, name)
    assert up.chats[0].body["model"] == MODEL


async def test_01_off_leaves_the_bytes_alone(gw, up) -> None:
    head = b'"id" : "x-1","object":"chat.completion.chunk","created":1 ,"model":"scripted-model"'
    odd = (
        b"data: {" + head + b',"vendor":1.50,"choices":[{"index":0,"delta":{"role":"assistant",'
        b'"content":"\\u00e9"}, "finish_reason":null}]}\n\n: a comment\n\n'
        b"data: {" + head + b',"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )
    up.default = Reply(body=odd, headers={"content-type": "text/event-stream"}, wire_split=7)
    stream = await gw.sse(ask("off"))
    assert stream.raw == odd


async def test_01_a_date_for_every_chunk_becomes_one(gw, up, mode) -> None:
    """llama.cpp stamps each chunk with the time at which it was made."""
    head = b'"id":"x-1","object":"chat.completion.chunk","model":"scripted-model"'
    body = (
        b"data: {" + head + b',"created":7,"choices":[{"index":0,"delta":{"role":"assistant",'
        b'"content":null},"finish_reason":null}]}\n\n'
        b"data: {" + head + b',"created":8,"choices":[{"index":0,"delta":{"content":"hi"},'
        b'"finish_reason":null}]}\n\n'
        b"data: {" + head + b',"created":9,"choices":[{"index":0,"delta":{},'
        b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    up.default = Reply(body=body, headers={"content-type": "text/event-stream"})
    stream = await gw.sse(ask(mode))
    check_stream_shape(stream.frames, MODEL)
    assert stream.text() == "hi"


async def test_01_a_stream_without_role_gets_one(gw, up, mode) -> None:
    """llama.cpp leaves the role out when its first token is only part of a character."""
    head = b'"id":"x-1","object":"chat.completion.chunk","created":1,"model":"scripted-model"'
    body = (
        b"data: {" + head + b',"choices":[{"index":0,"delta":{"content":"\\ud83c\\udf1f"},'
        b'"finish_reason":null}]}\n\n'
        b"data: {" + head + b',"choices":[{"index":0,"delta":{"content":" hi"},'
        b'"finish_reason":null}]}\n\n'
        b"data: {" + head + b',"choices":[{"index":0,"delta":{},'
        b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    up.default = Reply(body=body, headers={"content-type": "text/event-stream"})
    stream = await gw.sse(ask(mode))
    check_stream_shape(stream.frames, MODEL)
    assert stream.text() == "🌟 hi"


@pytest.mark.parametrize("mode", ["off", "steer"])
async def test_02_deltas_arrive_as_they_are_made(gw, up, mode) -> None:
    up.default = Reply(ANSWER, chunks=PIECES, chunk_delay=0.08)
    stream = await gw.sse(ask(mode))
    contents = [
        (at, frame["choices"][0]["delta"]["content"])
        for at, frame in zip(stream.times, stream.frames, strict=True)
        if frame["choices"][0]["delta"].get("content")
    ]
    assert [text for _, text in contents] == list(PIECES)
    await up.settled()
    # A gateway that has `[DONE]` may be gone before the connection is.
    ended = up.chats[0].finished or up.chats[0].aborted
    assert ended is not None
    assert ended - contents[0][0] > 0.3
    assert contents[-1][0] - contents[0][0] > 0.3


async def test_02_characters_survive_chunk_borders(gw, up, mode) -> None:
    up.default = Reply(ANSWER, chunks=PIECES, wire_split=5)
    stream = await gw.sse(ask(mode))
    assert stream.text() == ANSWER
    assert sum(bool(c["delta"].get("content")) for c in stream.choices()) > 1


async def test_02_explore_pings_from_its_start(gw, up) -> None:
    up.default = Reply(ANSWER, delay=1.2)
    started = time.monotonic()
    async with gw.open_stream(ask("explore")) as stream:
        events = stream.events()
        assert await anext(events) == "comment"
        assert time.monotonic() - started < 1.0
        assert "ping" in stream.comments[0][1]
        await stream.read()
    assert stream.text() == ANSWER
    assert sum(bool(c["delta"].get("content")) for c in stream.choices()) > 1


@pytest.mark.parametrize("null_usage", [True, False])
async def test_03_usage_chunk_when_asked_for(gw, up, mode, null_usage) -> None:
    if mode == "off" and not null_usage:
        pytest.skip("off passes on what the upstream sends")
    up.null_usage = null_usage
    up.default = Reply(ANSWER)
    stream = await gw.sse(ask(mode, stream_options={"include_usage": True}))
    *before, last = stream.frames
    assert last["choices"] == []
    usage = last["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 0
    assert all(frame["choices"] for frame in before)
    assert [frame.get("usage", "absent") for frame in before] == [None] * len(before)


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
async def test_03_no_usage_chunk_otherwise(gw, up, mode, options) -> None:
    fields = {"stream_options": options} if options else {}
    stream = await gw.sse(ask(mode, **fields))
    assert all(frame["choices"] for frame in stream.frames)
    assert not any(frame.get("usage") for frame in stream.frames)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply.error(400, "a scripted refusal"), 400),
        (Reply.error(429, "slow down", headers={"Retry-After": "3"}), 429),
        (Reply.error(500, "boom", type="InternalServerError"), 500),
        (Reply(fault=Fault.REFUSE), 502),
    ],
    ids=["400", "429", "500", "refused"],
)
async def test_04_failure_before_the_first_byte(
    learner, up, mode, namespace, reply, status
) -> None:
    up.default = reply
    async with learner.open_stream(ask(mode, ttcl={"namespace": namespace})) as stream:
        await stream.response.aread()
        if stream.status == 200:
            # An exploration has sent its pings by then; nothing else may.
            assert mode == "explore"
            _check_error_frame_ends(stream.response.content)
        else:
            assert stream.status == status
            check_error(stream.response.json())
    _check_nothing_learned(learner, up, stream, namespace)


async def test_04_explore_checks_the_request_before_its_first_ping(gw, up) -> None:
    async with gw.open_stream(ask("explore", model="no-such-model")) as stream:
        await stream.response.aread()
    assert stream.status == 404
    assert check_error(stream.response.json())["code"] == "model_not_found"


@pytest.mark.parametrize("mode", ["off", "steer"])
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.ERROR_FRAME])
async def test_04_failure_after_the_first_byte(learner, up, mode, namespace, fault) -> None:
    up.default = Reply(ANSWER, fault=fault, after=3)
    stream = await learner.sse(ask(mode, ttcl={"namespace": namespace}))
    assert stream.status == 200
    assert len(stream.errors()) == 1
    check_error({"error": stream.errors()[0]})
    assert "error" in stream.frames[-1]
    assert (stream.done, stream.after_done) == (1, [])
    assert stream.finishes() == []
    _check_nothing_learned(learner, up, stream, namespace)


@pytest.mark.parametrize("mode", ["off", "steer"])
@pytest.mark.parametrize(
    "error", [b'{"error":"out of memory"}', b'{"error":{"code":500,"message":"out of memory"}}']
)
async def test_04_error_frames_are_put_in_shape(gw, up, mode, error) -> None:
    first = (
        b'data: {"id":"x","object":"chat.completion.chunk","model":"scripted-model","choices":'
        b'[{"index":0,"delta":{"role":"assistant","content":"hi"},"finish_reason":null}]}\n\n'
    )
    body = first + b"data: " + error + b"\n\n"
    up.default = Reply(body=body, headers={"content-type": "text/event-stream"})
    stream = await gw.sse(ask(mode))
    assert stream.text() == "hi"
    assert len(stream.errors()) == stream.done == 1
    assert check_error({"error": stream.errors()[0]})["message"] == "out of memory"


@pytest.mark.parametrize("reply", [Reply.error(500), Reply(fault=Fault.REFUSE)], ids=["500", "cut"])
async def test_04_failure_after_the_first_ping(learner, up, namespace, reply) -> None:
    up.default = reply.but(delay=0.7)
    async with learner.open_stream(ask("explore", ttcl={"namespace": namespace})) as stream:
        await stream.response.aread()
    assert stream.status == 200
    assert stream.response.content.startswith(b": ping")
    _check_error_frame_ends(stream.response.content)
    _check_nothing_learned(learner, up, stream, namespace)


def _check_error_frame_ends(raw: bytes) -> None:
    lines = [line for line in raw.decode().split("\n") if not line.startswith(":")]
    events = [event for event in "\n".join(lines).split("\n\n") if event]
    assert len(events) == 2
    assert events[0].startswith('data: {"error"')
    assert events[1] == "data: [DONE]"


def _check_nothing_learned(learner, up, stream, namespace) -> None:
    sent = len(up.chats)
    time.sleep(0.2)
    assert len(up.chats) == sent
    assert learner.rules(namespace) == []
    episode = learner.episode(stream.response.headers.get("x-ttcl-episode", "none"))
    assert episode is None or episode["status"] in ("skipped", "failed")


async def test_05_headers_of_a_stream(gw, up, mode) -> None:
    stream = await gw.sse(ask(mode))
    headers = stream.response.headers
    assert headers["content-type"].split(";")[0] == "text/event-stream"
    assert "no-cache" in headers["cache-control"]
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers


async def test_explore_calls_are_told_apart(gw, up) -> None:
    """The suite's own footing: one Teacher, one Tutor, three Students."""
    await gw.sse(ask("explore"))
    await up.settled()
    teachers = [call for call in up.chats if is_teacher(call.body)]
    assert (len(teachers), len(up.chats)) == (1, 5)
