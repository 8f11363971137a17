"""Rules and episode in streams: the `ttcl` object of a last chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.compat.helpers import MODEL, RULE, ask, check_stream_shape, for_client
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import Gateway, running_gateway

WANTED = {"include_ttcl": True}


def told(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame["ttcl"] for frame in frames if "ttcl" in frame]


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_the_last_chunk_says_what_a_whole_answer_says(gw, up, mode, usage) -> None:
    up.default = Reply("\\boxed{7}")
    options = {**WANTED, **({"include_usage": True} if usage else {})}
    stream = await gw.sse(ask(mode, stream_options=options))
    check_stream_shape(stream.frames, MODEL)
    last = stream.frames[-1]
    assert (last["choices"], stream.done, stream.after_done) == ([], 1, [])
    assert bool(last.get("usage")) is usage
    (said,) = told(stream.frames)
    assert said == last["ttcl"]
    assert said["episode"] == stream.response.headers["x-ttcl-episode"]
    assert [rule["polarity"] for rule in said["rules"]] == ["positive"]
    whole = (await gw.post(ask(mode))).json()["ttcl"]
    assert said.keys() == whole.keys()
    assert (said["exploration"] is None) == (mode == "steer")


@pytest.mark.parametrize("options", [WANTED, {"include_ttcl": False}, {"include_ttcl": None}])
async def test_it_is_not_sent_upstream(gw, up, mode, options) -> None:
    up.default = Reply("\\boxed{7}")
    both = {**options, "include_usage": True, "vendor": 1}
    await gw.sse(ask(mode, stream_options=options))
    await gw.sse(ask(mode, stream_options=both))
    assert up.chats
    assert not any("include_ttcl" in str(call.body.get("stream_options")) for call in up.chats)
    if mode != "explore":
        assert "stream_options" not in up.chats[0].body
        rest = {"include_usage": True, "vendor": 1}
        assert up.chats[1].body["stream_options"] == rest


async def test_off_says_nothing_of_its_own(gw, up) -> None:
    up.default = Reply("\\boxed{7}")
    stream = await gw.sse(ask("off", stream_options=WANTED))
    assert told(stream.frames) == []


async def test_json_in_place_of_a_stream_says_it_too(gw, up) -> None:
    message = {"role": "assistant", "content": "Seven."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    up.default = Reply(body={"id": "x", "created": 1, "model": MODEL, "choices": [choice]})
    stream = await gw.sse(ask("steer", stream_options=WANTED))
    assert stream.frames[-1]["ttcl"]["rules"]


async def test_the_official_client_reads_it(gw, up, mode) -> None:
    up.default = Reply("\\boxed{7}")
    text, seen = "", None
    async with gw.client() as client:
        asked = for_client(ask(mode, stream=True, stream_options={**WANTED, "include_usage": True}))
        async for chunk in await client.chat.completions.create(**asked):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            seen = (chunk.model_extra or {}).get("ttcl") or seen
            usage = chunk.usage
    assert "7" in text
    assert (seen is None) == (mode == "off")
    assert usage is not None  # of the last chunk, as OpenAI's documents read it


async def test_what_is_neither_true_nor_false_is_named(gw, mode) -> None:
    response = await gw.post(ask(mode, stream=True, stream_options={"include_ttcl": "yes"}))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "stream_options.include_ttcl"


@pytest.fixture(scope="module")
def talkative(shared_upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(shared_upstream, learn=False, stream_ttcl=True) as running:
        running.add_rule("ruled", RULE, "apples")
        yield running


async def test_a_setting_asks_for_it_always(talkative, up) -> None:
    assert len(told((await talkative.sse(ask("steer"))).frames)) == 1
    without = ask("steer", stream_options={"include_ttcl": False})
    assert told((await talkative.sse(without)).frames) == []
    assert told((await talkative.sse(ask("off"))).frames) == []
