"""The fakes do what the tests that lean on them believe."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import httpx
import numpy as np
import openai
import pytest

from tests.fakes import Fault, HashEmbedder, Reply, ScriptedUpstream, is_student, is_tutor

MODEL = "scripted-model"
ASK = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.fixture
def client(upstream: ScriptedUpstream) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=upstream.base_url, api_key="none", max_retries=0)


async def test_answers_in_the_order_of_rules_queue_default(upstream, client) -> None:
    upstream.when("two", [Reply("first"), Reply("last")])
    upstream.enqueue(Reply("queued"))

    async def ask(text: str) -> str:
        done = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}]
        )
        return done.choices[0].message.content

    assert [await ask(t) for t in ("two", "one", "two", "two", "one")] == [
        "first",
        "queued",
        "last",
        "last",
        Reply.text,
    ]
    assert upstream.chats[1].body["messages"][0]["content"] == "one"


async def test_streams_choices_usage_and_logprobs(upstream, client) -> None:
    upstream.enqueue(Reply(chunks=("Ül", "é ☃"), text="Ülé ☃", alternatives=("b",), wire_split=3))
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        n=2,
        stream=True,
        logprobs=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    first = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == 0]
    assert "".join(c.delta.content or "" for c in first) == "Ülé ☃"
    tokens = [c.logprobs.content[0] for c in first if c.logprobs]
    assert [(t.token, t.logprob) for t in tokens] == [("Ül", -0.1), ("é ☃", -0.1)]
    assert [c.finish_reason for c in first][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 3


async def test_tool_calls_streamed_and_not_are_the_same(upstream, client) -> None:
    upstream.default = Reply(tool_calls=(("call_1", "add", '{"a": 1, "b": 22222}'),))
    whole = await client.chat.completions.create(model=MODEL, messages=ASK)
    stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    deltas = [
        c.choices[0].delta.tool_calls[0] async for c in stream if c.choices[0].delta.tool_calls
    ]
    call = whole.choices[0].message.tool_calls[0]
    assert whole.choices[0].finish_reason == "tool_calls"
    assert "".join(d.function.arguments for d in deltas) == call.function.arguments
    assert (deltas[0].id, deltas[0].function.name) == ("call_1", "add")


async def test_limits_and_stops_end_the_text(upstream, client) -> None:
    upstream.default = Reply("one two three STOP four")
    ask = client.chat.completions.create
    short = await ask(model=MODEL, messages=ASK, max_tokens=2)
    stopped = await ask(model=MODEL, messages=ASK, stop="STOP")
    assert (short.choices[0].finish_reason, short.choices[0].message.content) == (
        "length",
        "one two ",
    )
    assert stopped.choices[0].message.content == "one two three "


async def test_unscripted_structured_call_fits_its_schema(upstream, client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "variants": {"type": "array", "items": {"type": "string"}, "minItems": 3},
            "kind": {"enum": ["closed", "open"]},
        },
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    done = await client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=wanted, temperature=0.7
    )
    value = json.loads(done.choices[0].message.content)
    assert (len(value["variants"]), value["kind"]) == (3, "closed")
    assert is_tutor(upstream.chats[0].body)
    assert not is_student(upstream.chats[0].body)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.CUT])
async def test_broken_connections(upstream, client, fault) -> None:
    upstream.default = Reply(fault=fault, after=2)
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model=MODEL, messages=ASK)


async def test_cut_stream_gives_its_first_frames(upstream) -> None:
    upstream.default = Reply(fault=Fault.CUT, after=2)
    lines: list[str] = []

    async def read() -> None:
        url = f"{upstream.base_url}/chat/completions"
        body = {"model": MODEL, "messages": ASK, "stream": True}
        async with httpx.AsyncClient() as http, http.stream("POST", url, json=body) as response:
            async for line in response.aiter_lines():
                lines.extend([line] if line else [])

    with pytest.raises(httpx.HTTPError):
        await read()
    assert len(lines) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_abort_is_seen_at_once(upstream, client, stream) -> None:
    upstream.default = Reply(fault=Fault.HANG, after=1)

    async def ask() -> None:
        got = await client.chat.completions.create(model=MODEL, messages=ASK, stream=stream)
        if stream:
            [chunk async for chunk in got]

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(), 0.2)
    left = time.monotonic()
    await client.close()
    await upstream.settled()
    assert upstream.chats[0].aborted is not None
    assert upstream.chats[0].aborted - left < 0.5
    assert upstream.chats[0].finished is None


async def test_status_body_and_headers(upstream, client) -> None:
    upstream.enqueue(Reply.error(429, "slow down", headers={"Retry-After": "7"}))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=MODEL, messages=ASK)
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="other", messages=ASK)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=9000)


async def test_down_and_up_keep_the_port(upstream) -> None:
    url = f"{upstream.url}/health"
    upstream.down()
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)
        upstream.up()
        assert (await http.get(url)).status_code == 200
        upstream.healthy = False
        assert (await http.get(url)).status_code == 503
        models = (await http.get(f"{upstream.base_url}/models")).json()
        assert models["data"][0] | {"owned_by": "vllm", "max_model_len": 8192} == models["data"][0]
        counted = await http.post(f"{upstream.url}/tokenize", json={"prompt": "a b c"})
        assert counted.json()["count"] == 3


async def test_embedder_is_deterministic_and_switchable() -> None:
    embedder = HashEmbedder()
    rows = await embedder.embed(["add the numbers", "add these numbers", "blue whales", ""])
    assert rows.shape == (4, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]
    np.testing.assert_array_equal(rows, await HashEmbedder().embed(embedder.history[0]))
    embedder.failure = RuntimeError("no model")
    with pytest.raises(RuntimeError, match="no model"):
        await embedder.embed(["x"])


def test_other_hosts_are_out_of_reach() -> None:
    with pytest.raises(PermissionError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(PermissionError):
        socket.getaddrinfo("example.invalid", 80)
