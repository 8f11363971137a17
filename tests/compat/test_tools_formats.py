"""Cases 10-15: tools, formats, several choices, log-probabilities, content parts."""

from __future__ import annotations

import json

import pytest

from tests.compat.helpers import (
    QUESTION,
    RULE,
    ask,
    check_stream_shape,
    for_client,
    visible_call,
)
from tests.fakes import Reply, is_structured_step
from tests.gateway import MODEL

CALLS = (
    ("call_1", "subtract", '{"from": 12, "amount": 5}'),
    ("call_2", "subtract", '{"from": 7, "amount": 1, "note": "é"}'),
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "subtract",
            "parameters": {"type": "object", "properties": {"from": {"type": "integer"}}},
            "strict": False,
        },
    }
]
NAMED = {"type": "function", "function": {"name": "subtract"}}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="


async def test_10_streamed_calls_keep_index_id_and_arguments(gw, up, mode) -> None:
    up.default = Reply(tool_calls=CALLS)
    got = await gw.sse(ask(mode, tools=TOOLS))
    check_stream_shape(got.frames, MODEL)
    assert got.finishes() == ["tool_calls"]
    calls: dict[int, dict[str, str]] = {}
    for delta in (d for c in got.choices() for d in c["delta"].get("tool_calls") or []):
        call = calls.setdefault(delta["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] += delta.get("id") or ""
        call["name"] += delta["function"].get("name") or ""
        call["arguments"] += delta["function"].get("arguments") or ""
    assert [tuple(calls[i].values()) for i in sorted(calls)] == list(CALLS)
    assert len(up.chats) == 1


async def test_10_whole_calls_by_the_official_client(gw, up, mode) -> None:
    up.default = Reply(tool_calls=CALLS)
    async with gw.client() as client:
        answer = await client.chat.completions.create(**for_client(ask(mode, tools=TOOLS)))
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    got = [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls]
    assert got == list(CALLS)


@pytest.mark.parametrize("choice", ["auto", "none", "required", NAMED])
async def test_10_tool_choice_is_passed_on(gw, up, mode, choice) -> None:
    fields = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": True}
    assert (await gw.post(ask(mode, **fields))).status_code == 200
    sent = up.chats[0].body
    assert {name: sent[name] for name in fields} == fields


@pytest.mark.parametrize("stream", [False, True])
async def test_11_null_content_and_tool_message_are_forwarded(gw, up, mode, stream) -> None:
    messages = [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "subtract", "arguments": '{"from": 12, "amount": 5}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "7", "vendor": {"kept": True}},
    ]
    body = {**ask(mode, tools=TOOLS), "messages": messages}
    if stream:
        assert (await gw.sse(body)).finishes() == ["stop"]
    else:
        assert (await gw.post(body)).status_code == 200
    sent = up.chats[0].body["messages"]
    if mode == "off":
        assert sent == messages
    else:
        # The rules are where the turn's first step had them; what followed on it is as it was.
        assert sent[1:] == messages[1:]
        assert sent[0]["content"].startswith("Use the tools.")
        assert RULE in sent[0]["content"]


SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "left",
        "schema": {"type": "object", "properties": {"apples": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wanted", [{"type": "json_object"}, SCHEMA], ids=lambda w: w["type"])
async def test_12_json_still_parses(gw, up, mode, wanted, stream) -> None:
    up.when(lambda body: not is_structured_step(body), Reply.of_json({"apples": 7}))
    body = ask(mode, response_format=wanted)
    if stream:
        content = (await gw.sse(body)).text()
    else:
        content = (await gw.post(body)).json()["choices"][0]["message"]["content"]
    assert json.loads(content) == {"apples": 7}
    shown = [call for call in up.chats if call.body.get("response_format") == wanted]
    assert shown
    if mode != "off":
        assert RULE in shown[0].text
        assert "boxed" not in shown[0].text


async def test_13_three_choices(gw, up, mode) -> None:
    up.default = Reply("a b", alternatives=("c d", "e f"))
    answer = (await gw.post(ask(mode, n=3))).json()
    got = [(c["index"], c["message"]["content"]) for c in answer["choices"]]
    assert got == [(0, "a b"), (1, "c d"), (2, "e f")]
    assert answer["usage"]["completion_tokens"] == 6
    assert len(up.chats) == 1


async def test_13_three_choices_streamed(gw, up, mode) -> None:
    up.default = Reply("a b", alternatives=("c d", "e f"))
    got = await gw.sse(ask(mode, n=3, stream_options={"include_usage": True}))
    check_stream_shape(got.frames[:-1], MODEL, choices=3)
    assert [got.text(i) for i in range(3)] == ["a b", "c d", "e f"]
    assert [got.finishes(i) for i in range(3)] == [["stop"]] * 3
    assert got.frames[-1]["usage"]["completion_tokens"] == 6


def _tokens(choices: list[dict]) -> list[dict]:
    return [t for c in choices if c.get("logprobs") for t in c["logprobs"]["content"] or []]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("top", [None, 2])
async def test_14_logprobs_match_the_text(gw, up, mode, stream, top) -> None:
    up.default = Reply("one two three")
    fields = {"logprobs": True} | ({"top_logprobs": top} if top else {})
    if stream:
        got = await gw.sse(ask(mode, **fields))
        text, tokens = got.text(), _tokens(got.choices())
    else:
        choices = (await gw.post(ask(mode, **fields))).json()["choices"]
        text, tokens = choices[0]["message"]["content"], _tokens(choices)
    assert "".join(t["token"] for t in tokens) == text == "one two three"
    assert {len(t["top_logprobs"]) for t in tokens} == {top or 0}
    assert all(t["logprob"] == -0.1 for t in tokens)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"logprobs": False}], ids=["unset", "false"])
async def test_14_logprobs_absent_when_not_asked_for(gw, up, mode, stream, fields) -> None:
    if stream:
        choices = (await gw.sse(ask(mode, **fields))).choices()
    else:
        choices = (await gw.post(ask(mode, **fields))).json()["choices"]
    assert all(choice.get("logprobs") is None for choice in choices)
    if mode == "explore":
        assert any(call.body.get("logprobs") for call in up.chats)


@pytest.mark.parametrize("stream", [False, True])
async def test_14_logprobs_in_explore_are_the_chosen_answer_s(gw, up, stream) -> None:
    up.when(lambda body: body.get("temperature") == 0, Reply("odd \\boxed{9}", logprobs=-0.5))
    up.when(lambda body: body.get("temperature") == 0.7, Reply("most \\boxed{7}", logprobs=-0.2))
    body = ask("explore", logprobs=True)
    choices = (await gw.sse(body)).choices() if stream else (await gw.post(body)).json()["choices"]
    tokens = _tokens(choices)
    assert "".join(t["token"] for t in tokens) == "most \\boxed{7}"
    assert {t["logprob"] for t in tokens} == {-0.2}


@pytest.mark.parametrize("stream", [False, True])
async def test_15_parts_and_images_are_not_flattened(gw, up, mode, stream) -> None:
    parts = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    body = {**ask(mode), "messages": [{"role": "user", "content": parts}]}
    status = (await gw.sse(body)).status if stream else (await gw.post(body)).status_code
    assert status == 200
    assert len(up.chats) == 1
    assert up.chats[0].body["messages"][-1]["content"] == parts


async def test_15_text_parts_stay_parts(gw, up, mode) -> None:
    parts = [{"type": "text", "text": "Here is a question."}, {"type": "text", "text": QUESTION}]
    body = {**ask(mode), "messages": [{"role": "user", "content": parts}]}
    assert (await gw.post(body)).status_code == 200
    assert visible_call(up, mode).body["messages"][-1]["content"] == parts


async def test_15_developer_role_is_kept(gw, up, mode) -> None:
    first = {"role": "developer", "content": "Answer in one word."}
    body = ask(mode)
    body["messages"] = [first, *body["messages"]]
    assert (await gw.post(body)).status_code == 200
    sent = visible_call(up, mode).body["messages"]
    assert [m["role"] for m in sent] == ["developer", "user"]
    assert sent[0]["content"].startswith("Answer in one word.")
    assert sent[1] == body["messages"][1]
    assert (RULE in sent[0]["content"]) == (mode != "off")
