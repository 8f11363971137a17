"""The Responses format: what a request says in chat's terms, where experience goes, what an answer
says and how one is written."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from app.chat.formats import Additions, ResponsesFormat
from app.domain.trajectory import Cost, RawAnswer, Role, Trajectory
from app.exceptions import InvalidRequest, TTCLError, UpstreamError
from app.upstream import sse

FORMAT = ResponsesFormat()
COST = Cost(1, 5, 7)
BLOCK = "<advice>Check it.</advice>"
USER = {"role": "user", "content": "Why?"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "7"}
TURNS = ({"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"})


def fields(**body: Any) -> dict[str, Any]:
    return FORMAT.read({"model": "m", **body}).fields


# -- read


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Why?", [USER]),
        ([USER], [USER]),
        ([{"type": "message", **USER}], [USER]),
        ([{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}], [USER]),
        (
            [
                {"role": "developer", "content": "Be brief."},
                USER,
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "So."}],
                },
                {"role": "user", "content": [{"type": "text", "text": "a"}] * 2},
            ],
            [
                {"role": "developer", "content": "Be brief."},
                USER,
                {"role": "assistant", "content": "So."},
                {"role": "user", "content": "a\na"},
            ],
        ),
        (
            [USER, {"type": "reasoning", "summary": []}, CALL, RESULT],
            [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a": 1}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "7"},
            ],
        ),
    ],
)
def test_an_input_is_a_conversation(given: Any, messages: list[Any]) -> None:
    assert fields(input=given)["messages"] == messages


def test_other_fields_are_chats_own() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    found = fields(
        input="Why?",
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stream=True,
        seed=1,
        user="u",
        reasoning={"effort": "low"},
        text={"format": schema, "verbosity": "low"},
        store=False,
        metadata={"a": "b"},
        include=[],
        truncation="auto",
    )
    assert found.pop("messages") == [{"role": "system", "content": "Be brief."}, USER]
    assert found == {
        "model": "m",
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stream": True,
        "seed": 1,
        "user": "u",
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
    }


@pytest.mark.parametrize(
    ("body", "obstacle", "bound"),
    [
        ({"input": "x"}, None, None),
        ({"input": "x", "store": True}, None, "stored_response"),
        ({"input": "x", "include": ["message.output_text.logprobs"]}, None, "needs_logprobs"),
        ({"input": "x", "include": {}}, None, None),
        ({"input": "x", "store": False, "previous_response_id": None}, None, None),
        ({"input": "x", "previous_response_id": "r"}, "stored_conversation", None),
        ({"input": [RESULT], "previous_response_id": "r"}, "stored_conversation", None),
        ({"input": "x", "conversation": {"id": "c"}}, "stored_conversation", None),
        ({"prompt": {"id": "p"}}, "stored_conversation", None),
        ({"input": [{"type": "item_reference", "id": "i"}, USER]}, "stored_conversation", None),
    ],
)
def test_what_the_server_has_stored_is_not_explored(body, obstacle, bound) -> None:
    reading = FORMAT.read({"model": "m", **body})
    assert (reading.obstacle, reading.bound) == (obstacle, bound)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": None},
        {"input": 5},
        {"input": {"role": "user"}},
        {"input": ["x"]},
        {"input": [USER, None]},
        {"input": [{"role": 5, "content": "x"}]},
        {"input": [{"content": "x"}]},
        {"input": [{"type": 5, **USER}]},
        {"input": [{"role": "user", "content": {"text": "x"}}]},
        {"input": "x", "instructions": ["x"]},
        {"input": 5, "previous_response_id": "r"},
    ],
)
def test_what_can_not_be_read(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        FORMAT.read({"model": "m", **body})


# -- add


@pytest.mark.parametrize(
    ("body", "given", "added"),
    [
        ({"input": "Why?"}, Additions(system=BLOCK), {"instructions": BLOCK}),
        (
            {"input": "Why?", "instructions": "Be brief."},
            Additions(system=BLOCK),
            {"instructions": f"Be brief.\n\n{BLOCK}"},
        ),
        (
            {"input": [{"role": "system", "content": "Be brief."}, USER]},
            Additions(system=BLOCK),
            {"input": [{"role": "system", "content": f"Be brief.\n\n{BLOCK}"}, USER]},
        ),
        (
            {"input": [{"role": "developer", "content": [{"type": "input_text", "text": "B"}]}]},
            Additions(system=BLOCK),
            {
                "input": [
                    {
                        "role": "developer",
                        "content": [
                            {"type": "input_text", "text": "B"},
                            {"type": "input_text", "text": BLOCK},
                        ],
                    }
                ]
            },
        ),
        ({"input": "Why?"}, Additions(question=BLOCK), {"input": f"{BLOCK}\n\nWhy?"}),
        (
            {"input": [USER, CALL, RESULT]},
            Additions(question=BLOCK),
            {"input": [{"role": "user", "content": f"{BLOCK}\n\nWhy?"}, CALL, RESULT]},
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "i"}]}]},
            Additions(question=BLOCK),
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": BLOCK},
                            {"type": "input_image", "image_url": "i"},
                        ],
                    }
                ]
            },
        ),
        ({"input": [RESULT]}, Additions(question=BLOCK), {"instructions": BLOCK}),
        (
            {"input": "Why?"},
            Additions(system=BLOCK, turns=TURNS),
            {
                "instructions": BLOCK,
                "input": [{"type": "message", **turn} for turn in TURNS] + [USER],
            },
        ),
    ],
)
def test_experience_has_its_place(body, given, added) -> None:
    before = copy.deepcopy(body)
    assert FORMAT.add({"model": "m", **body}, given) == {"model": "m", **body, **added}
    assert body == before


# -- answers

WHOLE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [],
         "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "It makes ", "annotations": []},
            {"type": "output_text", "text": "\\boxed{7}.", "annotations": []},
        ]},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"id": "msg_2", "type": "message", "role": "assistant", "status": "completed", "content": [
            {"type": "refusal", "refusal": "No more."},
        ]},
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    },
}  # fmt: skip


def test_an_answer_is_read() -> None:
    read = FORMAT.completion(WHOLE, COST)
    assert (read.text, read.reasoning) == ("It makes \\boxed{7}.", "Hm.")
    assert (read.finish_reason, read.cost) == ("stop", COST)
    cut = FORMAT.completion({**WHOLE, "status": "incomplete"}, COST)
    assert cut.finish_reason == "length"


@pytest.mark.parametrize(
    "body", [{}, {"output": 5}, {"output": [5, {"type": "message", "content": [{}, 5]}]}]
)
def test_an_odd_answer_says_nothing(body: dict[str, Any]) -> None:
    read = FORMAT.completion(body, COST)
    assert read.text == ""
    assert list(FORMAT.events(body))


def said_by(events: list[bytes]) -> list[dict[str, Any]]:
    found = []
    for event in events:
        name, data = event.decode().split("\n", 1)
        payload = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        found.append(payload)
    return found


def test_its_events_are_the_formats_and_say_the_same() -> None:
    said = list(FORMAT.events(WHOLE))
    known: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for number, payload in enumerate(said):
        known.validate_python(payload)
        assert payload["sequence_number"] == number
    reader = FORMAT.reader()
    for payload in said:
        assert not reader.ended
        reader.read_event(payload)
    assert reader.ended
    assert reader.complete
    assert reader.text == "It makes \\boxed{7}."
    done = [each["item"] for each in said if each["type"] == "response.output_item.done"]
    assert done == WHOLE["output"]
    assert said[-1]["response"] == WHOLE


def test_the_servers_own_answer_stays_but_for_its_text() -> None:
    own = Trajectory(Role.TEACHER, 0, "q", "It makes \\boxed{7}.", raw=RawAnswer(body=WHOLE))
    asked = {"model": "m", "body": {"model": "m"}, "teacher": WHOLE}
    assert FORMAT.whole(own, **asked) == WHOLE
    assert FORMAT.whole(own, **{**asked, "model": "m+explore"})["model"] == "m+explore"
    bare = Trajectory(Role.TEACHER, 0, "q", "It makes 7.", raw=RawAnswer(body=WHOLE))
    written = FORMAT.whole(bare, **asked)
    assert FORMAT.completion(written, COST).text == "It makes 7."
    assert [item["id"] for item in written["output"]] == ["rs_1", "msg_1", "fc_1", "msg_2"]


@pytest.mark.parametrize("teacher", [WHOLE, None])
def test_another_answer_is_a_response_of_its_own(teacher: dict[str, Any] | None) -> None:
    chosen = Trajectory(Role.STUDENT, 1, "q", "Eight.", finish_reason="length", cost=Cost(1, 3, 2))
    body = {"instructions": "Be brief.", "temperature": 0.5}
    written = FORMAT.whole(chosen, model="m+explore", body=body, teacher=teacher)
    response = Response.model_validate(written)
    assert response.output_text == "Eight."
    assert response.id != "resp_1"
    assert (response.model, response.status) == ("m+explore", "incomplete")
    assert response.usage is not None
    assert response.usage.total_tokens == 5
    if teacher is None:
        assert (response.instructions, response.temperature) == ("Be brief.", 0.5)


# -- streams


def test_a_failure_is_told_as_it_is() -> None:
    for last in ("response.failed", "error"):
        reader = FORMAT.reader()
        reader.read_event(
            {"type": "response.output_text.delta", "delta": "a", "sequence_number": 4}
        )
        reader.read_event({"type": last})
        assert (reader.ended, reader.complete, reader.text) == (True, False, "a")
        (failure,) = said_by([reader.failure(TTCLError("broken"))])
        assert (failure["message"], failure["sequence_number"]) == ("broken", 6)


def test_a_text_that_came_in_no_pieces_is_in_the_last_event() -> None:
    reader = FORMAT.reader()
    reader.read_event({"type": "response.completed", "response": WHOLE})
    assert reader.text == "It makes \\boxed{7}."


def test_numbers_that_a_server_leaves_out_are_told() -> None:
    said = list(FORMAT.events(WHOLE))
    reader, numbers = FORMAT.reader(), ("sequence_number", "output_index", "content_index")
    for whole in said:
        bare = {name: value for name, value in whole.items() if name not in numbers}
        assert {**bare, **reader.read_event(bare)} == whole
        assert FORMAT.reader().read_event(whole) == {}


def test_there_is_an_end_to_a_text() -> None:
    reader = FORMAT.reader()
    piece = {"type": "response.output_text.delta", "delta": "x" * (sse.MAX_CHARACTERS // 2)}
    reader.read_event(piece)
    reader.read_event(piece)
    with pytest.raises(UpstreamError, match="no end"):
        reader.read_event(piece)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["message", "user", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "input", "output", "delta", "response", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(ODD, ODD, ODD)
def test_nothing_else_than_a_refusal_comes_of_odd_values(one: Any, two: Any, three: Any) -> None:
    body = {"model": "m", "input": one, "text": two, "instructions": three, "tools": two}
    try:
        FORMAT.read(body)
    except InvalidRequest:
        pass
    else:
        FORMAT.add(body, Additions(BLOCK, BLOCK, TURNS))
    for said in (one, two, three):
        if isinstance(said, dict):
            FORMAT.reader().read_event({"type": "response.completed", **said})
            FORMAT.completion(said, COST)
            list(FORMAT.events({"output": [said], **said}))
