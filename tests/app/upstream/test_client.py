"""The upstream client against a scripted server on a real port, and its parsers alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from app.domain.trajectory import Cost
from app.exceptions import (
    ModelNotFound,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.upstream.call_limiter import CallLimiter
from app.upstream.capabilities import ModelInfo, is_context_overflow, without_patterns
from app.upstream.client import BACKGROUND_PRIORITY, Upstream
from app.upstream.sse import StreamedAnswer, data_of, heard, split_events
from app.upstream.transport import forwarded_headers, proxy_of
from app.upstream.wire import (
    error_from,
    parse_completion,
    parse_object,
    parse_usage,
    token_logprobs,
)
from tests.fakes import Fault, Reply, ScriptedUpstream, schema_of

MODEL = "scripted-model"
ASK = [{"role": "user", "content": "Why?"}]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture
def up(upstream: ScriptedUpstream) -> ScriptedUpstream:
    return upstream


@pytest.fixture
async def client(up: ScriptedUpstream) -> AsyncIterator[Upstream]:
    made = Upstream(up.base_url, timeout=5.0, connect_timeout=2.0)
    yield made
    await made.close()


async def complete(client: Upstream, **more: Any) -> Any:
    params = more.pop("params", {"temperature": 0})
    return await client.complete(MODEL, ASK, params, **more)


async def relayed(client: Upstream) -> tuple[int, bytes]:
    body = json.dumps({"model": MODEL, "messages": ASK}).encode()
    async with client.open_chat(body) as response:
        return response.status, await response.read()


# -- retries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_server_that_is_briefly_away_is_asked_once_more(
    up: ScriptedUpstream, client: Upstream, status: int
) -> None:
    up.enqueue(Reply.error(status), Reply("Back."))
    assert (await complete(client)).text == "Back."
    assert len(up.chats) == 2
    assert up.chats[0].raw == up.chats[1].raw


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_it_is_asked_once_more_and_no_more(
    up: ScriptedUpstream, client: Upstream, status: int
) -> None:
    up.default = Reply.error(status, "away")
    with pytest.raises(UpstreamError, match="away") as caught:
        await complete(client)
    assert caught.value.status == status
    assert len(up.chats) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 408, 422, 429, 500, 501])
async def test_what_another_try_would_not_mend_is_not_tried_again(
    up: ScriptedUpstream, client: Upstream, status: int
) -> None:
    up.default = Reply.error(status, "no")
    with pytest.raises(UpstreamError, match="no") as caught:
        await complete(client)
    assert len(up.chats) == 1
    assert isinstance(caught.value, UpstreamRejected) is (status < 500)
    assert caught.value.status == (502 if status == 501 else status)


async def test_a_server_that_says_when_to_come_back_is_not_pressed(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.default = Reply.error(503, "busy", headers={"Retry-After": "7"})
    with pytest.raises(UpstreamError) as caught:
        await complete(client)
    assert caught.value.retry_after == 7
    assert len(up.chats) == 1


async def test_a_connection_that_is_dropped_before_an_answer_is_tried_again(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.enqueue(Reply(fault=Fault.REFUSE), Reply("Back."))
    assert (await complete(client)).text == "Back."
    up.default = Reply(fault=Fault.REFUSE)
    before = len(up.chats)
    with pytest.raises(UpstreamUnavailable) as caught:
        await complete(client)
    assert caught.value.status == 502
    assert len(up.chats) - before == 2


async def test_a_kept_alive_connection_that_the_server_closed_costs_no_pause(
    up: ScriptedUpstream, client: Upstream
) -> None:
    await complete(client)
    up.down()
    up.up()
    started = time.monotonic()
    assert (await complete(client)).text
    assert time.monotonic() - started < 2


async def test_a_server_that_is_not_there_is_a_502(up: ScriptedUpstream, client: Upstream) -> None:
    up.down()
    with pytest.raises(UpstreamUnavailable, match="can't be reached") as caught:
        await complete(client)
    assert caught.value.status == 502


async def test_a_server_that_is_known_to_be_down_is_not_asked(up: ScriptedUpstream) -> None:
    client = Upstream(up.base_url, availability=lambda: "the model is still being loaded")
    with pytest.raises(UpstreamUnavailable, match="still being loaded") as caught:
        await complete(client)
    assert (caught.value.status, caught.value.retry_after) == (503, 2)
    assert up.history == []
    await client.close()


async def test_the_relay_keeps_to_the_same_rules(up: ScriptedUpstream, client: Upstream) -> None:
    up.enqueue(Reply.error(503), Reply.error(429, "slow down"))
    status, body = await relayed(client)
    assert status == 429
    assert b"slow down" in body
    assert len(up.chats) == 2


# -- time ---------------------------------------------------------------------------------------


async def test_silence_is_a_504_and_not_tried_again(up: ScriptedUpstream) -> None:
    client = Upstream(up.base_url, timeout=0.2)
    up.default = Reply(delay=3)
    with pytest.raises(UpstreamTimeout, match="in time") as caught:
        await complete(client)
    assert caught.value.status == 504
    assert len(up.chats) == 1
    await client.close()


async def test_silence_in_the_midst_of_an_answer_is_a_504(up: ScriptedUpstream) -> None:
    client = Upstream(up.base_url, timeout=0.2)
    up.default = Reply(fault=Fault.HANG, after=2)
    with pytest.raises(UpstreamTimeout, match="middle of its answer"):
        await complete(client)
    await client.close()


async def test_a_slow_answer_that_keeps_coming_is_no_timeout(up: ScriptedUpstream) -> None:
    client = Upstream(up.base_url, timeout=0.4)
    up.default = Reply("a b c d e f g h", chunk_delay=0.1)
    assert (await complete(client)).text == "a b c d e f g h"
    await client.close()


async def test_a_cancelled_call_closes_its_connection(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.default = Reply(fault=Fault.HANG, after=1)
    task = asyncio.create_task(complete(client))
    await up.until(lambda: up.chats)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await up.until(lambda: up.chats[0].aborted is not None, within=1.0)
    assert client.gate.foreground_calls == 0


# -- assembling a stream ------------------------------------------------------------------------


async def test_a_stream_is_put_together(up: ScriptedUpstream, client: Upstream) -> None:
    up.default = Reply(
        "Blue säure 🙂 waves.",
        reasoning="Think first.",
        logprobs=-0.5,
        usage=(11, 22),
        wire_split=3,
    )
    answer = await complete(client, logprobs=True)
    assert answer.text == "Blue säure 🙂 waves."
    assert answer.reasoning == "Think first."
    assert answer.finish_reason == "stop"
    assert answer.logprobs == (-0.5,) * 4
    assert len(answer.raw_logprobs["content"]) == 4
    assert answer.cost == Cost(1, 11, 22)
    assert up.chats[0].body["stream"] is True
    assert up.chats[0].body["stream_options"] == {"include_usage": True}


async def test_the_other_name_for_reasoning(up: ScriptedUpstream, client: Upstream) -> None:
    up.default = Reply("4", reasoning="Two and two.", reasoning_field="reasoning")
    assert (await complete(client)).reasoning == "Two and two."


async def test_a_server_that_does_not_stream_is_read_all_the_same(
    up: ScriptedUpstream, client: Upstream
) -> None:
    choice = {"message": {"content": "Whole.", "reasoning_content": "r"}, "finish_reason": "stop"}
    up.default = Reply(body={"choices": [choice], "usage": {"prompt_tokens": 3}})
    answer = await complete(client)
    assert (answer.text, answer.reasoning, answer.cost) == ("Whole.", "r", Cost(1, 3, 0))


async def test_a_limit_is_a_finish_reason(up: ScriptedUpstream, client: Upstream) -> None:
    answer = await complete(client, params={"max_tokens": 2})
    assert (answer.text, answer.finish_reason) == ("The answer ", "length")


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (Reply(fault=Fault.CUT, after=3), UpstreamUnavailable, "cut"),
        (Reply(fault=Fault.ERROR_FRAME, after=3), UpstreamError, "scripted failure"),
        (Reply(fault=Fault.GARBAGE), UpstreamError, "cut|read"),
        (Reply(fault=Fault.WRONG_JSON), UpstreamUnavailable, "cut"),
        (Reply(fault=Fault.EMPTY_CHOICES), UpstreamUnavailable, "cut"),
        (Reply(body=b"<html>"), UpstreamError, "can't be read"),
        (Reply(body=b"[]"), UpstreamError, "can't be read"),
        (Reply(body={"choices": []}), UpstreamError, "can't be read"),
        (Reply(body={"choices": [{"message": {"content": 5}}]}), UpstreamError, "can't be read"),
    ],
)
async def test_a_broken_answer_is_an_upstream_error(
    up: ScriptedUpstream, client: Upstream, reply: Reply, error: type[Exception], message: str
) -> None:
    up.default = reply
    with pytest.raises(error, match=message):
        await complete(client)
    assert len(up.chats) == 1
    assert client.gate.foreground_calls == 0
    # The client itself is none the worse for it.
    up.default = Reply("Fine.")
    assert (await complete(client)).text == "Fine."


def frames(*choices: dict[str, Any], **more: Any) -> list[bytes]:
    return [json.dumps({"choices": [choice], **more}).encode() for choice in choices]


def test_only_the_first_choice_is_read() -> None:
    answer = StreamedAnswer()
    for data in frames({"index": 1, "delta": {"content": "b"}}, {"delta": {"content": "a"}}):
        answer.read_event(data)
    assert answer.text == "a"


def test_all_that_was_made_is_counted() -> None:
    answer = StreamedAnswer()
    call = {"index": 0, "function": {"name": "ab", "arguments": "cde"}}
    pieces: list[Any] = [
        {"index": 1, "delta": {"content": "four"}},
        {"index": 2, "delta": {"reasoning": "three"}},
        {"delta": {"reasoning_content": "two", "reasoning": "two"}},
        {"delta": {"tool_calls": [call, call, 5, {"function": None}]}},
        {"delta": {"function_call": call["function"], "content": None}},
        {"delta": {"content": [1], "tool_calls": "odd", "refusal": "no"}},
    ]
    for data in frames(*pieces):
        answer.read_event(data)
    assert answer.characters == 4 + 5 + 3 + 10 + 5 + 2


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"5", b'{"choices":[5]}', b'{"choices":5}', b"\xff"]
)
def test_an_event_that_is_no_chunk(data: bytes) -> None:
    with pytest.raises(UpstreamError, match="can't be read"):
        StreamedAnswer().read_event(data)


@pytest.mark.parametrize(
    ("error", "said"),
    [({"message": "out of memory"}, "out of memory"), ("text", "text"), ({"code": 5}, "failed")],
)
def test_an_error_within_a_stream(error: Any, said: str) -> None:
    answer = StreamedAnswer()
    answer.read_event(json.dumps({"error": error}).encode())
    assert said in str(answer.error)
    assert not answer.complete


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@given(
    texts=st.lists(st.text("ab é🙂{}", max_size=6), max_size=5),
    end=st.sampled_from([b"\n\n", b"\r\n\r\n"]),
    size=st.integers(1, 9),
)
def test_events_are_cut_the_same_whatever_the_pieces(
    texts: list[str], end: bytes, size: int
) -> None:
    data = [json.dumps({"t": text}, ensure_ascii=False).encode() for text in texts]
    wire = b"".join(b"data: " + item + end for item in data) + b"data: cut off"

    async def read() -> list[bytes]:
        return [event async for event in split_events(_pieces(wire, size))]

    events = asyncio.run(read())
    assert b"".join(events) + b"data: cut off" == wire
    assert [data_of(event) for event in events] == data


@pytest.mark.parametrize("comment", [b": ping\n\n", b": ping\n", b":\r\n", b"\n", b":", b"pi"])
async def test_a_stream_of_comments_alone_has_an_end(comment: bytes) -> None:
    ticks = iter(range(0, 1000, 4))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n:"
        while True:
            yield comment

    chunks = heard(pieces(), 10, lambda: next(ticks))
    assert [await anext(chunks) for _ in range(3)] == [b"data: 1\n\n:", comment, comment]
    with pytest.raises(UpstreamTimeout, match="nothing but comments"):
        await anext(chunks)


async def test_a_slow_reader_is_no_silent_stream() -> None:
    read = []

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b": ping\n"

    async for piece in heard(pieces(), 10, lambda: 60.0 * len(read)):
        read.append(piece)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b": ping\n\n", None),
        (b"event: a\ndata: x\n\n", b"x"),
        (b"data: x\ndata: y\n\n", b"x\ny"),
        (b"data: x\r\n\r\n", b"x"),
        (b"\n\n", None),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


# -- log-probabilities --------------------------------------------------------------------------


async def test_log_probabilities_are_asked_for_only_where_wanted(
    up: ScriptedUpstream, client: Upstream
) -> None:
    assert (await complete(client)).logprobs is None
    assert "logprobs" not in up.chats[0].body
    assert client.capabilities_of(MODEL).logprobs is None
    assert (await complete(client, logprobs=True)).logprobs is not None
    assert up.chats[1].body["logprobs"] is True
    assert up.chats[1].body["top_logprobs"] == 1
    assert client.capabilities_of(MODEL).logprobs is True


async def test_the_clients_number_of_alternatives_stays(
    up: ScriptedUpstream, client: Upstream
) -> None:
    await complete(client, params={"top_logprobs": 5, "logprobs": True}, logprobs=True)
    assert up.chats[0].body["top_logprobs"] == 5


async def test_refused_log_probabilities_are_dropped_and_not_asked_for_again(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.when(lambda body: "logprobs" in body, Reply.error(400, "logprobs are not supported"))
    assert (await complete(client, logprobs=True)).logprobs is None
    await complete(client, logprobs=True)
    asked = ["logprobs" in call.body or "top_logprobs" in call.body for call in up.chats]
    assert asked == [True, False, False]
    assert client.capabilities_of(MODEL).logprobs is False


async def test_a_server_that_ignores_the_wish_is_remembered(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.default = Reply(logprobs=None)
    assert (await complete(client, logprobs=True)).logprobs is None
    assert client.capabilities_of(MODEL).logprobs is False


async def test_refused_stream_options_are_dropped_and_remembered(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.when(lambda body: "stream_options" in body, Reply.error(422, "unknown: stream_options"))
    await complete(client)
    await complete(client)
    assert ["stream_options" in call.body for call in up.chats] == [True, False, False]


async def test_another_refusal_is_the_callers(up: ScriptedUpstream, client: Upstream) -> None:
    up.default = Reply.error(400, "temperature must be positive", param="temperature")
    with pytest.raises(UpstreamRejected) as caught:
        await complete(client, logprobs=True)
    assert caught.value.param == "temperature"
    assert len(up.chats) == 1
    assert client.capabilities_of(MODEL).logprobs is None


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (None, None),
        ({}, None),
        ({"content": None}, None),
        ({"content": []}, None),
        ({"content": [{"logprob": -1}, {"logprob": None}, {}, 5]}, (-1.0,)),
        ({"content": [{"logprob": float("-inf")}, {"logprob": -2.0}]}, (-2.0,)),
        ({"content": [{"logprob": float("nan")}]}, None),
    ],
)
def test_only_finite_log_probabilities_are_kept(raw: Any, values: Any) -> None:
    assert token_logprobs(raw) == values


# -- priority -----------------------------------------------------------------------------------


async def test_only_background_calls_to_a_vllm_step_back(
    up: ScriptedUpstream, client: Upstream
) -> None:
    await complete(client)
    await complete(client, background=True)
    assert [call.body.get("priority") for call in up.chats] == [None, BACKGROUND_PRIORITY]


async def test_other_servers_are_sent_no_priority(up: ScriptedUpstream, client: Upstream) -> None:
    up.owned_by = "llamacpp"
    await complete(client, background=True)
    assert "priority" not in up.chats[0].body


async def test_a_refused_priority_is_dropped_and_remembered(
    up: ScriptedUpstream, client: Upstream
) -> None:
    refusal = Reply.error(400, "Got priority 10 but priority scheduling is not enabled")
    up.when(lambda body: "priority" in body, refusal)
    await complete(client, background=True)
    await complete(client, background=True)
    assert ["priority" in call.body for call in up.chats] == [True, False, False]
    assert client.capabilities_of(MODEL).as_dict()["priority"] is False


# -- structured output --------------------------------------------------------------------------


async def structured(client: Upstream) -> tuple[dict[str, Any] | None, Any]:
    return await client.structured(MODEL, ASK, SCHEMA, {"temperature": 0})


def has_pattern(body: dict[str, Any]) -> bool:
    return "pattern" in json.dumps(schema_of(body) or {})


async def test_the_schema_is_sent_in_full(up: ScriptedUpstream, client: Upstream) -> None:
    up.default = Reply.of_json({"answer": "blue"})
    up.when(lambda body: schema_of(body) == SCHEMA, Reply.of_json({"answer": "blue"}))
    answer, completion = await structured(client)
    assert answer == {"answer": "blue"}
    assert json.loads(completion.text) == answer
    assert up.chats[0].body["response_format"]["json_schema"]["strict"] is True
    assert client.capabilities_of(MODEL).as_dict()["json_schema"] == "full"


@pytest.mark.parametrize(
    ("refuses", "levels", "said"),
    [
        (has_pattern, ["full", "plain", "plain"], "without patterns"),
        (lambda body: "response_format" in body, ["full", "plain", "none", "none"], "none"),
    ],
)
async def test_what_the_server_refuses_is_left_out_and_remembered(
    up: ScriptedUpstream, client: Upstream, refuses: Any, levels: list[str], said: str
) -> None:
    up.when(refuses, Reply.error(400, "unsupported grammar"))
    up.when(lambda body: True, Reply('Sure: {"answer": "blue"} I hope.'))
    assert (await structured(client))[0] == {"answer": "blue"}
    assert (await structured(client))[0] == {"answer": "blue"}

    def level(body: dict[str, Any]) -> str:
        return "full" if has_pattern(body) else "plain" if schema_of(body) else "none"

    assert [level(call.body) for call in up.chats] == levels
    assert client.capabilities_of(MODEL).as_dict()["json_schema"] == said


async def test_a_context_that_overflows_is_no_fault_of_the_schema(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.default = Reply.error(400, "This model's maximum context length is 10 tokens.")
    up.when(lambda body: True, up.default)
    with pytest.raises(UpstreamRejected):
        await structured(client)
    assert client.capabilities_of(MODEL).schema_level == 2


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_no_other_failure_lowers_the_level(
    up: ScriptedUpstream, client: Upstream, status: int
) -> None:
    up.when(lambda body: True, Reply.error(status))
    with pytest.raises(UpstreamError):
        await structured(client)
    assert client.capabilities_of(MODEL).schema_level == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"answer": "blue"}', {"answer": "blue"}),
        ('```json\n{"answer": "blue"}\n```', {"answer": "blue"}),
        ('Here: {"answer": "blue"}', {"answer": "blue"}),
        ("{'answer': 'blue',}", {"answer": "blue"}),
        ('{"answer": "blue"', {"answer": "blue"}),
        (
            '{"answer": "BLUE 9 and far beyond the limit"}',
            {"answer": "BLUE 9 and far beyond the limit"},
        ),
        ('{"answer": 5}', None),
        ('{"other": "blue"}', None),
        ('{"answer": "blue", "more": 1}', None),
        ("blue", None),
        ("", None),
        ("{", None),
        ("{" * 5000, None),
    ],
)
def test_objects_in_a_models_text(text: str, found: Any) -> None:
    assert parse_object(text, SCHEMA) == found


def test_patterns_and_lengths_are_taken_out_at_every_depth() -> None:
    nested = {"type": "array", "items": {"anyOf": [{"type": "string", "minLength": 2}]}}
    assert without_patterns(nested) == {"type": "array", "items": {"anyOf": [{"type": "string"}]}}
    assert nested["items"]["anyOf"][0]["minLength"] == 2  # type: ignore[index]


# -- tokens -------------------------------------------------------------------------------------


async def test_tokens_are_counted_by_the_server(up: ScriptedUpstream, client: Upstream) -> None:
    assert await client.count_tokens(MODEL, "one two three") == 3
    call = up.history[-1]
    # vLLM reads the one, llama.cpp the other.
    assert call.body["prompt"] == call.body["content"] == "one two three"
    assert call.body["model"] == MODEL
    assert client.capabilities_of(MODEL).tokenizer is True
    assert await client.count_tokens(MODEL, "") == 0


async def test_a_server_without_a_tokenizer_is_asked_once(
    up: ScriptedUpstream, client: Upstream
) -> None:
    up.tokenizes = False
    assert await client.count_tokens(MODEL, "one") is None
    assert await client.count_tokens(MODEL, "two") is None
    assert len(up.history) == 1
    assert client.capabilities_of(MODEL).tokenizer is False


async def test_a_server_that_is_away_counts_nothing(up: ScriptedUpstream, client: Upstream) -> None:
    up.down()
    assert await client.count_tokens(MODEL, "one") is None
    # It may be back by the next time.
    up.up()
    assert await client.count_tokens(MODEL, "one") == 1


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ({"count": 4, "tokens": [1, 2, 3, 4], "max_model_len": 9}, 4),
        ({"tokens": [1, 2, 3]}, 3),
        ({"tokens": []}, None),
        ({"count": "many"}, None),
        ({}, None),
        ([], None),
        (5, None),
    ],
)
async def test_the_shapes_of_a_count(
    up: ScriptedUpstream, client: Upstream, answer: Any, count: int | None
) -> None:
    up.token_answers.append(answer)
    assert await client.count_tokens(MODEL, "some text") == count


@pytest.mark.parametrize("login", ["", "user:password@"])
async def test_the_key_goes_before_logins_of_url_and_netrc(
    up: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    client = Upstream(up.base_url.replace("http://", f"http://{login}"), api_key="secret")
    up.api_key = "secret"
    assert (await complete(client)).text
    await client.close()


@pytest.mark.parametrize(
    ("url", "named", "expected"),
    [
        ("http://127.0.0.1:1/v1", {"http_proxy": "http://p:3"}, None),
        ("http://far.example/v1", {"http_proxy": "http://p:3"}, "http://p:3"),
        ("http://far.example/v1", {"http_proxy": "http://p:3", "no_proxy": ".example"}, None),
        ("http://far.example/v1", {"http_proxy": "http://u:w@p:3"}, "http://u:w@p:3"),
        ("https://far.example/v1", {"http_proxy": "http://p:3"}, None),
        ("https://far.example/v1", {"all_proxy": "p:3"}, "http://p:3"),
    ],
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, named: dict[str, str], expected: Any
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(URL(url)) == (None if expected is None else URL(expected))


# -- models -------------------------------------------------------------------------------------


async def test_models_are_asked_for_once_in_a_while(up: ScriptedUpstream, client: Upstream) -> None:
    assert set(await client.models()) == {MODEL}
    info = await client.resolve_model(MODEL)
    assert (info.context_length, info.owned_by) == (8192, "vllm")
    assert len(up.history) == 1


async def test_an_unknown_model_is_a_404(up: ScriptedUpstream, client: Upstream) -> None:
    with pytest.raises(ModelNotFound, match="'other'") as caught:
        await client.resolve_model("other")
    assert (caught.value.status, caught.value.param) == (404, "model")


async def test_a_known_model_outlives_the_list(up: ScriptedUpstream, client: Upstream) -> None:
    await client.models()
    client._models_at = float("-inf")
    up.down()
    assert (await client.resolve_model(MODEL)).id == MODEL
    with pytest.raises(UpstreamUnavailable):
        await client.resolve_model("other")


async def test_one_model_can_be_chosen(up: ScriptedUpstream) -> None:
    up.models = ["a", "b"]
    client = Upstream(up.base_url, model="b")
    assert set(await client.models()) == {"b"}
    with pytest.raises(ModelNotFound):
        await client.resolve_model("a")
    await client.close()


async def test_the_key_and_the_requests_headers_are_sent(up: ScriptedUpstream) -> None:
    up.api_key = "secret"
    client = Upstream(up.base_url, api_key="secret")
    token = forwarded_headers.set({"X-Request-ID": "req_1", "traceparent": "t"})
    try:
        await complete(client)
    finally:
        forwarded_headers.reset(token)
    headers = up.chats[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert (headers["x-request-id"], headers["traceparent"]) == ("req_1", "t")
    await client.close()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{}]}', b"<html>"]
)
def test_a_list_of_models_that_is_none(content: bytes) -> None:
    with pytest.raises(UpstreamError, match="list of models"):
        ModelInfo.parse_list(content, None)


def test_what_servers_say_about_a_models_context() -> None:
    rows = [
        {"id": "vllm", "max_model_len": 4096, "owned_by": "vllm", "created": 5},
        {"id": "llama", "meta": {"n_ctx": 2048}},
        {"id": "silent", "meta": None},
    ]
    found = ModelInfo.parse_list(json.dumps({"data": rows}).encode(), None)
    assert {name: info.context_length for name, info in found.items()} == {
        "vllm": 4096,
        "llama": 2048,
        "silent": None,
    }


# -- errors of the server -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "content", "message", "kind"),
    [
        (400, b'{"error": {"message": "bad", "param": "stop", "code": 400}}', "bad", "rejected"),
        (400, b'{"error": "bad"}', "bad", "rejected"),
        (422, b'{"detail": "bad"}', "bad", "rejected"),
        (422, b'{"detail": [{"msg": "bad"}]}', "bad", "rejected"),
        (404, b"<html>", "answered 404", "rejected"),
        (400, b"\xff", "answered 400", "rejected"),
        (400, b"[]", "answered 400", "rejected"),
        (500, b'{"error": {"message": "bad"}}', "bad", "failed"),
        (418, b"", "answered 418", "rejected"),
        (302, b"", "answered 302", "failed"),
    ],
)
def test_errors_in_every_shape(status: int, content: bytes, message: str, kind: str) -> None:
    error = error_from(status, content, None)
    assert message in error.message
    assert isinstance(error, UpstreamRejected) is (kind == "rejected")
    envelope = error.envelope()["error"]
    assert set(envelope) == {"message", "type", "param", "code"}
    assert envelope["message"]
    assert error.status == (502 if status == 302 else status)


@pytest.mark.parametrize(
    ("message", "overflow"),
    [
        ("This model's maximum context length is 2048 tokens. However, you requested", True),
        ("the request exceeds the available context size. try increasing it", True),
        ("prompt is longer than max_model_len", True),
        ("temperature must be non-negative", False),
        ("the context of this field is wrong", False),
    ],
)
def test_an_overflow_is_told_from_other_refusals(message: str, overflow: bool) -> None:
    assert is_context_overflow(UpstreamError(message)) is overflow


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (None, Cost(1)),
        ({}, Cost(1)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, Cost(1, 3, 4)),
        ({"prompt_tokens": None, "completion_tokens": -1}, Cost(1)),
        ({"prompt_tokens": "3"}, Cost(1)),
        ([], Cost(1)),
    ],
)
def test_usage(usage: Any, cost: Cost) -> None:
    assert parse_usage(usage) == cost


@given(st.binary(max_size=40))
def test_no_bytes_break_the_parsers(content: bytes) -> None:
    with pytest.raises(UpstreamError):
        parse_completion(content)
    error_from(400, content, None)


# -- the gate -----------------------------------------------------------------------------------


class Spy:
    """Calls through a gate, each open until told."""

    def __init__(self, gate: CallLimiter) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._call(name))

    async def _call(self, name: str) -> None:
        side = self.gate.background() if name.startswith("back") else self.gate.foreground()
        async with side:
            self.inside.append(name)
            await self.ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await self.tasks[name]

    async def settle(self) -> Sequence[str]:
        for _ in range(20):
            await asyncio.sleep(0)
        return [name for name in self.inside if not self.tasks[name].done()]


async def test_background_waits_for_quiet() -> None:
    spy = Spy(CallLimiter(2, patience=60))
    spy.start("front-1", "front-2")
    await spy.settle()
    spy.start("back-1")
    assert await spy.settle() == ["front-1", "front-2"]
    await spy.end("front-1")
    assert await spy.settle() == ["front-2"]
    await spy.end("front-2")
    assert await spy.settle() == ["back-1"]
    # An answer does not wait for learning that is under way.
    spy.start("front-3")
    assert await spy.settle() == ["back-1", "front-3"]
    await spy.end("front-3", "back-1")
    assert (spy.gate.foreground_calls, spy.gate.background_calls) == (0, 0)


async def test_background_goes_on_after_its_patience() -> None:
    spy = Spy(CallLimiter(1, patience=0.05))
    spy.start("front-1")
    await spy.settle()
    spy.start("back-1")
    assert await spy.settle() == ["front-1"]
    await asyncio.sleep(0.1)
    assert await spy.settle() == ["front-1", "back-1"]
    await spy.end("front-1", "back-1")


async def test_background_keeps_to_its_limit() -> None:
    spy = Spy(CallLimiter(2, patience=60))
    spy.start("back-1", "back-2", "back-3")
    assert await spy.settle() == ["back-1", "back-2"]
    assert spy.gate.background_calls == 2
    await spy.end("back-1")
    assert await spy.settle() == ["back-2", "back-3"]
    await spy.end("back-2", "back-3")


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    spy = Spy(CallLimiter(1, patience=60))
    spy.start("front-1")
    await spy.settle()
    spy.start("back-1", "back-2")
    await spy.settle()
    spy.tasks["back-1"].cancel()
    await spy.end("front-1")
    assert await spy.settle() == ["back-2"]
    await spy.end("back-2")
    assert spy.gate.background_calls == 0


async def test_a_background_call_of_the_client_waits_for_an_open_relay(
    up: ScriptedUpstream,
) -> None:
    client = Upstream(up.base_url, gate=CallLimiter(1, patience=60))
    await client.models()
    body = json.dumps({"model": MODEL, "messages": ASK}).encode()
    async with client.open_chat(body) as response:
        learning = asyncio.create_task(complete(client, background=True))
        await response.read()
        await asyncio.sleep(0.05)
        assert len(up.chats) == 1
    assert (await learning).text
    assert len(up.chats) == 2
    await client.close()


async def test_a_fault_of_the_grammar_costs_one_try_without_patterns(
    upstream: ScriptedUpstream,
) -> None:
    schema = {
        "type": "object",
        "properties": {"rule": {"type": "string", "pattern": "^[a-z]+$"}},
        "required": ["rule"],
    }
    upstream.enqueue(Reply.error(500, "Internal server error"), Reply.of_json({"rule": "add"}))
    client = Upstream(upstream.base_url)
    try:
        found, completion = await client.structured("scripted-model", [MESSAGE], schema, {})
        assert found == {"rule": "add"}
        assert completion.cost.calls == 2
        sent = [str(call.body["response_format"]) for call in upstream.chats]
        assert ["pattern" in each for each in sent] == [True, False]
        # Not remembered: another schema may be fine.
        assert client.capabilities_of(MODEL).schema_level == 2
        upstream.enqueue(Reply.error(500, "broken"), Reply.error(500, "still broken"))
        with pytest.raises(UpstreamError, match=r"^broken$"):
            await client.structured("scripted-model", [MESSAGE], schema, {})
    finally:
        await client.close()


MESSAGE = {"role": "user", "content": "Say it as JSON."}
