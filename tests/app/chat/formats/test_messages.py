"""The Messages format: what a request says in chat's terms, where experience goes, what an answer
says and how one is written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.chat.formats import Additions, MessagesFormat
from app.domain.trajectory import Cost, RawAnswer, Role, Trajectory
from app.exceptions import InvalidRequest, NotFound, Overloaded, TooManyRequests, TTCLError
from tests.app.chat.formats.test_responses import BLOCK, COST, TURNS, USER, said_by

FORMAT = MessagesFormat()
MARK = {"cache_control": {"type": "ephemeral"}}
USE = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
    ],
}
RESULT = {
    "role": "user",
    "content": [
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "7"}]},
        {"type": "text", "text": "Mind the time."},
    ],
}
TEXTS = [{"type": "text", "text": "Be brief.", **MARK}, {"type": "text", "text": "Be kind."}]


def fields(**body: Any) -> dict[str, Any]:
    return FORMAT.read({"model": "m", "max_tokens": 9, **body}).fields


# -- read


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"messages": [USER]}, [USER]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?", **MARK}]}]},
            [USER],
        ),
        (
            {"messages": [USER], "system": "Be brief."},
            [{"role": "system", "content": "Be brief."}, USER],
        ),
        (
            {"messages": [USER], "system": TEXTS},
            [{"role": "system", "content": "Be brief.\nBe kind."}, USER],
        ),
        (
            {"messages": [USER, USE, RESULT]},
            [
                USER,
                {
                    "role": "assistant",
                    "content": "I look.",
                    "tool_calls": [
                        {
                            "id": "t1",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":1}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "t1", "content": "7"},
                {"role": "tool", "content": "Mind the time."},
            ],
        ),
    ],
)
def test_messages_are_a_conversation(body: dict[str, Any], messages: list[Any]) -> None:
    assert fields(**body)["messages"] == messages


def test_other_fields_are_chats_own() -> None:
    found = fields(
        messages=[USER],
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop_sequences=["END"],
        thinking={"type": "disabled"},
        metadata={"user_id": "u"},
        service_tier="auto",
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    )
    assert found.pop("messages") == [USER]
    assert found == {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": ["END"],
        "thinking": {"type": "disabled"},
        "user": "u",
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {}, "strict": True},
        },
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": "x"},
        {"messages": [5]},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "assistant", "content": {}}]},
        {"messages": [USER], "system": 5},
        {"messages": [USER], "system": {"text": "x"}},
    ],
)
def test_what_can_not_be_read(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        FORMAT.read({"model": "m", **body})


# -- add


@pytest.mark.parametrize(
    ("body", "given", "added"),
    [
        ({"messages": [USER]}, Additions(system=BLOCK), {"system": BLOCK}),
        (
            {"messages": [USER], "system": "Be brief."},
            Additions(system=BLOCK),
            {"system": f"Be brief.\n\n{BLOCK}"},
        ),
        (
            {"messages": [USER], "system": TEXTS},
            Additions(system=BLOCK),
            {"system": [*TEXTS, {"type": "text", "text": f"\n\n{BLOCK}"}]},
        ),
        (
            {"messages": [USER, USE, RESULT], "system": TEXTS},
            Additions(question=BLOCK),
            {"messages": [{"role": "user", "content": f"{BLOCK}\n\nWhy?"}, USE, RESULT]},
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", **MARK}]}]},
            Additions(question=BLOCK),
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": BLOCK},
                            {"type": "text", "text": "a", **MARK},
                        ],
                    }
                ]
            },
        ),
        ({"messages": [USE, RESULT]}, Additions(question=BLOCK), {"system": BLOCK}),
        (
            {"messages": [USER]},
            Additions(system=BLOCK, turns=TURNS),
            {"system": BLOCK, "messages": [*TURNS, USER]},
        ),
    ],
)
def test_experience_has_its_place(body, given, added) -> None:
    before = copy.deepcopy(body)
    assert FORMAT.add({"model": "m", **body}, given) == {"model": "m", **body, **added}
    assert body == before


# -- answers

WHOLE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Hm. So.", "signature": "s"},
        {"type": "text", "text": "It makes "},
        {"type": "text", "text": "\\boxed{7}."},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 7},
}


def test_an_answer_is_read() -> None:
    read = FORMAT.completion(WHOLE, COST)
    assert (read.text, read.reasoning) == ("It makes \\boxed{7}.", "Hm. So.")
    for reason, chats in (("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "refusal")):
        assert FORMAT.completion({**WHOLE, "stop_reason": reason}, COST).finish_reason == chats


@pytest.mark.parametrize("body", [{}, {"content": 5}, {"content": [5, {}, {"type": "text"}]}])
def test_an_odd_answer_says_nothing(body: dict[str, Any]) -> None:
    read = FORMAT.completion(body, COST)
    assert read.text == ""
    assert list(FORMAT.events(body))


def test_its_events_are_the_formats_and_say_the_same() -> None:
    said = list(FORMAT.events(WHOLE))
    known: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    reader = FORMAT.reader()
    for payload in said:
        known.validate_python(payload)
        assert not reader.ended
        reader.read_event(payload)
    assert (reader.ended, reader.complete) == (True, True)
    assert reader.text == "It makes \\boxed{7}."
    deltas = [each["delta"] for each in said if each["type"] == "content_block_delta"]
    assert "".join(each.get("thinking", "") for each in deltas) == "Hm. So."
    assert [each["signature"] for each in deltas if "signature" in each] == ["s"]
    assert [each["partial_json"] for each in deltas if "partial_json" in each] == ['{"a":1}']
    (end,) = [each for each in said if each["type"] == "message_delta"]
    assert (end["delta"]["stop_reason"], end["usage"]) == ("tool_use", {"output_tokens": 7})


def test_the_servers_own_answer_stays_but_for_its_text() -> None:
    own = Trajectory(Role.TEACHER, 0, "q", "It makes \\boxed{7}.", raw=RawAnswer(body=WHOLE))
    asked = {"model": "m", "body": {"model": "m"}, "teacher": WHOLE}
    assert FORMAT.whole(own, **asked) == WHOLE
    assert FORMAT.whole(own, **{**asked, "model": "m+explore"})["model"] == "m+explore"
    bare = Trajectory(Role.TEACHER, 0, "q", "It makes 7.", raw=RawAnswer(body=WHOLE))
    written = FORMAT.whole(bare, **asked)
    assert [block.get("text") for block in written["content"]] == [None, "It makes 7.", None]


def test_another_answer_is_a_message_of_its_own() -> None:
    chosen = Trajectory(Role.STUDENT, 1, "q", "Eight.", finish_reason="length", cost=Cost(1, 3, 2))
    written = FORMAT.whole(chosen, model="m+explore", body={}, teacher=WHOLE)
    message = Message.model_validate(written)
    assert [block.type for block in message.content] == ["text"]
    assert (message.model, message.stop_reason) == ("m+explore", "max_tokens")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (NotFound("x"), "not_found_error"),
        (TooManyRequests("x"), "rate_limit_error"),
        (Overloaded("x"), "overloaded_error"),
        (TTCLError("x"), "api_error"),
    ],
)
def test_errors(error: TTCLError, kind: str) -> None:
    envelope = {"type": "error", "error": {"type": kind, "message": "x"}}
    assert FORMAT.error(error) == envelope
    assert said_by([FORMAT.reader().failure(error)]) == [envelope]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["text", "user", "tool_use"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "input", "delta", "thinking"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(ODD, ODD, ODD)
def test_nothing_else_than_a_refusal_comes_of_odd_values(one: Any, two: Any, three: Any) -> None:
    asked = [{"role": "user", "content": two}, {"role": "assistant", "content": three}]
    for messages in (one, asked, [one]):
        body = {"model": "m", "messages": messages, "system": two, "output_config": three}
        try:
            FORMAT.read(body)
        except InvalidRequest:
            pass
        else:
            FORMAT.add(body, Additions(BLOCK, BLOCK, TURNS))
    for said in (one, two, three):
        if isinstance(said, dict):
            for kind in ("content_block_delta", "content_block_start"):
                FORMAT.reader().read_event({**said, "type": kind, "content_block": said})
            FORMAT.completion(said, COST)
            list(FORMAT.events({"content": [said], **said}))
