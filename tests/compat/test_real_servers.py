"""The starred cases 1 and 2 before real model servers: the embedded llama.cpp and vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.compat.helpers import RULE, RULED, check_stream_shape, for_client
from tests.gateway import NO_TLS, Gateway, running_gateway

SAY = "Count from one to ten in words, then say: naïve café ☃."


@dataclass(frozen=True)
class Served:
    gateway: Gateway
    model: str

    def ask(self, mode: str, **fields: object) -> dict:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": SAY}],
            "ttcl": {"mode": mode, "namespace": RULED},
            "max_tokens": 16,
            "seed": 1,
            **fields,
        }


@dataclass(frozen=True)
class _Address:
    base_url: str


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("embedded_engine", marks=pytest.mark.engine),
        pytest.param("vllm_server", marks=pytest.mark.vllm),
    ],
)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    url = request.getfixturevalue(request.param)
    listed = httpx.get(f"{url}/v1/models", timeout=10, verify=NO_TLS).json()
    with running_gateway(_Address(f"{url}/v1"), learn=False, students=1) as gateway:
        gateway.add_rule(RULED, RULE, SAY)
        yield Served(gateway, listed["data"][0]["id"])


async def test_01_chunks_agree_and_end_once(served, mode) -> None:
    stream = await served.gateway.sse(served.ask(mode))
    assert stream.status == 200, stream.raw
    check_stream_shape(stream.frames, served.model)
    assert stream.text().strip()
    assert stream.finishes()[0] in ("stop", "length")
    assert (stream.done, stream.after_done, stream.errors()) == (1, [], [])


async def test_01_official_client(served, mode) -> None:
    body = served.ask(mode, stream_options={"include_usage": True})
    async with served.gateway.client() as client:
        stream = await client.chat.completions.create(**for_client(body), stream=True)
        chunks = [chunk async for chunk in stream]
    *parts, last = chunks
    check_stream_shape([part.model_dump() for part in parts], served.model)
    assert last.choices == []
    usage = last.usage
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    assert 0 < usage.completion_tokens <= 16


async def test_02_several_chunks_that_join_to_the_whole_answer(served, mode) -> None:
    stream = await served.gateway.sse(served.ask(mode, temperature=0, seed=1))
    parts = [c["delta"]["content"] for c in stream.choices() if c["delta"].get("content")]
    assert len(parts) > 1
    assert "\ufffd" not in stream.text()
    if mode == "off":
        whole = await served.gateway.post(served.ask(mode, temperature=0, seed=1))
        assert stream.text() == whole.json()["choices"][0]["message"]["content"]
        return
    # Not a second answer: beside the calls of an exploration a greedy one comes out another way.
    episode = served.gateway.settled(stream.response.headers["x-ttcl-episode"], within=60)
    assert stream.text() == episode["answer"]


@pytest.mark.parametrize("mode", ["off", "steer"])
async def test_02_deltas_arrive_while_the_model_writes(served, mode) -> None:
    stream = await served.gateway.sse(served.ask(mode, max_tokens=24))
    assert len(stream.times) > 3
    # Each at a time of its own: what was gathered first would come all at once.
    assert len({round(moment, 3) for moment in stream.times}) > 3


async def test_02_explore_pings_first(served, monkeypatch: pytest.MonkeyPatch) -> None:
    # However fast the model is: what is explored within the wait needs no ping.
    monkeypatch.setattr("app.chat.inline_exploration.FIRST_PING", 0)
    async with served.gateway.open_stream(served.ask("explore")) as stream:
        assert await anext(stream.events()) == "comment"
        await stream.read()
    assert stream.text().strip()


@pytest.mark.parametrize("mode", ["off", "steer"])
async def test_14_logprobs_only_when_asked_for(served, mode) -> None:
    plain = (await served.gateway.post(served.ask(mode))).json()["choices"][0]
    assert plain.get("logprobs") is None
    asked = (await served.gateway.post(served.ask(mode, logprobs=True))).json()["choices"][0]
    tokens = "".join(entry["token"] for entry in asked["logprobs"]["content"])
    assert asked["message"]["content"].strip() in tokens


# -- the other formats


async def test_responses_of_a_real_server(served, mode) -> None:
    options = {"ttcl": {"mode": mode, "namespace": RULED}}
    async with served.gateway.client() as client:
        asked = {"model": served.model, "input": SAY, "max_output_tokens": 16}
        whole = await client.responses.create(**asked, extra_body=options)
        if mode == "off":
            # The client's own way to put a stream together needs numbers that llama.cpp leaves out.
            events = await client.responses.create(**asked, stream=True, extra_body=options)
            said = [event async for event in events]
            types, final = [event.type for event in said], said[-1].response
        else:
            async with client.responses.stream(**asked, extra_body=options) as stream:
                types = [event.type async for event in stream]
                final = await stream.get_final_response()
    for answer in (whole, final):
        assert answer.output_text.strip()
        assert 0 < answer.usage.output_tokens <= 16
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert types.count("response.output_text.delta") > 1


async def test_messages_of_a_real_server(served, mode) -> None:
    options = {"ttcl": {"mode": mode, "namespace": RULED}}
    async with served.gateway.anthropic() as client:
        said = [{"role": "user", "content": SAY}]
        asked = {"model": served.model, "messages": said, "max_tokens": 16}
        whole = await client.messages.create(**asked, extra_body=options)
        async with client.messages.stream(**asked, extra_body=options) as stream:
            types = [event.type async for event in stream]
            final = await stream.get_final_message()
        counted = await client.messages.count_tokens(model=served.model, messages=said)
    for answer in (whole, final):
        assert answer.content[-1].text.strip()
        assert answer.stop_reason in ("end_turn", "max_tokens")
        assert 0 < answer.usage.output_tokens <= 16
    assert (types[0], types[-1]) == ("message_start", "message_stop")
    assert types.count("content_block_delta") > 1
    assert counted.input_tokens > 10
