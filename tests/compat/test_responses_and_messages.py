"""`/v1/responses` and `/v1/messages` with the official clients: steered, explored and learned from
in their own formats."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import orjson
import pytest

from tests.compat.helpers import (
    QUESTION,
    RULE,
    RULED,
    check_error,
    script_majority,
)
from tests.fakes import Call, Fault, Reply, ScriptedUpstream, is_student
from tests.format_wires import MESSAGES, RESPONSES
from tests.gateway import MODEL, NO_TLS, PATIENCE, Gateway

TOOL = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}}


@dataclass(frozen=True)
class Spoken:
    """One format as its official client speaks it."""

    path: str
    body: Callable[..., dict[str, Any]]
    """A request with this question; further fields as they are."""

    async def post(self, gateway: Gateway, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(timeout=PATIENCE, verify=NO_TLS) as http:
            return await http.post(
                gateway.url + self.path, content=content, headers={**gateway.headers, **sent}
            )

    async def events(self, gateway: Gateway, body: dict[str, Any], **headers: str) -> Events:
        response = await self.post(gateway, {**body, "stream": True}, **headers)
        return Events(response)


@dataclass
class Events:
    response: httpx.Response
    said: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for event in self.response.content.split(b"\n\n"):
            data = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if data and data != [b"[DONE]"]:
                self.said.append(orjson.loads(b"\n".join(data)))

    @property
    def types(self) -> list[str]:
        """Without repetitions."""
        found: list[str] = []
        for each in self.said:
            if not found or found[-1] != each["type"]:
                found.append(each["type"])
        return found

    @property
    def text(self) -> str:
        deltas = [each.get("delta") for each in self.said]
        texts = [delta.get("text") if isinstance(delta, dict) else delta for delta in deltas]
        return "".join(text for text in texts if isinstance(text, str))


def responses_body(question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": question, **fields}


def messages_body(question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": question}]
    return {"model": MODEL, "messages": asked, "max_tokens": 200, **fields}


SPOKEN = {
    "responses": Spoken(RESPONSES, responses_body),
    "messages": Spoken(MESSAGES, messages_body),
}
WHOLE_STREAM = {
    RESPONSES: [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ],
    MESSAGES: [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ],
}


@pytest.fixture(params=SPOKEN)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    return SPOKEN[request.param]


def told(mode: str, namespace: str = RULED, **more: Any) -> dict[str, Any]:
    return {"ttcl": {"mode": mode, "namespace": namespace, **more}}


def text_of(path: str, body: dict[str, Any]) -> str:
    """What a whole answer says."""
    if path == MESSAGES:
        return "".join(block["text"] for block in body["content"] if block["type"] == "text")
    items = [item for item in body["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in items for part in item["content"])


def system_of(call: Call) -> Any:
    return call.body.get("instructions" if call.path == RESPONSES else "system")


# -- the official clients


async def test_openai_responses(gw: Gateway, up: ScriptedUpstream, mode: str) -> None:
    async with gw.client() as client:
        answer = await client.responses.create(**responses_body(), extra_body=told(mode))
    assert answer.output_text == "The answer is 4."
    assert (answer.status, answer.object, answer.model) == ("completed", "response", MODEL)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    call = up.formatted[0]
    assert "ttcl" not in call.body
    assert (RULE in (system_of(call) or "")) is (mode != "off")


async def test_openai_responses_streamed(gw: Gateway, up: ScriptedUpstream, mode: str) -> None:
    async with gw.client() as client:
        body = responses_body(instructions="Be brief.")
        async with client.responses.stream(**body, extra_body=told(mode)) as stream:
            deltas = [each.delta async for each in stream if each.type.endswith("text.delta")]
            final = await stream.get_final_response()
    assert "".join(deltas) == final.output_text == "The answer is 4."
    assert len(deltas) > 1
    if mode != "off":
        assert system_of(up.formatted[0]).startswith("Be brief.\n\n")


async def test_anthropic_messages(gw: Gateway, up: ScriptedUpstream, mode: str) -> None:
    async with gw.anthropic() as client:
        answer = await client.messages.create(**messages_body(), extra_body=told(mode))
    assert [block.text for block in answer.content] == ["The answer is 4."]
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    call = up.formatted[0]
    assert "ttcl" not in call.body
    assert (RULE in (system_of(call) or "")) is (mode != "off")
    assert call.headers["anthropic-version"]


async def test_anthropic_messages_streamed(gw: Gateway, up: ScriptedUpstream, mode: str) -> None:
    async with gw.anthropic() as client:
        body = messages_body(system="Be brief.")
        async with client.messages.stream(**body, extra_body=told(mode)) as stream:
            texts = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
    assert "".join(texts) == final.content[0].text == "The answer is 4."
    assert len(texts) > 1
    assert final.stop_reason == "end_turn"
    if mode != "off":
        assert system_of(up.formatted[0]).startswith("Be brief.\n\n")


async def test_anthropic_errors_are_its_own(gw: Gateway, up: ScriptedUpstream) -> None:
    async with gw.anthropic(api_key="wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client.messages.create(**messages_body())
    assert refused.value.body == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "Incorrect API key provided"},
    }
    async with gw.anthropic() as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**{**messages_body(), "model": "unknown"})


# -- off


async def test_off_passes_the_clients_bytes(gw, up, spoken: Spoken) -> None:
    raw = orjson.dumps(spoken.body(odd={"x": [1.50]}), option=orjson.OPT_INDENT_2)
    response = await spoken.post(gw, raw, X_TTCL_Mode="off")
    assert up.formatted[0].raw == raw
    assert response.headers["x-ttcl-mode"] == "off"
    assert "x-ttcl-episode" not in response.headers
    assert "ttcl" not in response.json()


async def test_off_by_name_is_told_the_models_own(gw, up, spoken: Spoken) -> None:
    body = {**spoken.body(), "model": f"{MODEL}+off", "ttcl": {"namespace": "x"}}
    assert (await spoken.post(gw, body)).status_code == 200
    assert up.formatted[0].body == spoken.body()


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (RESPONSES, responses_body(background=True), "background"),
        (RESPONSES, {"model": MODEL, "input": 5}, "unreadable_fields"),
        (RESPONSES, {"model": MODEL, "input": ["x"]}, "unreadable_fields"),
        (RESPONSES, {"model": MODEL, "input": [{"role": 5}]}, "unreadable_fields"),
        (
            RESPONSES,
            {"model": MODEL, "input": [{"role": "user", "content": 5}]},
            "unreadable_fields",
        ),
        (RESPONSES, {"model": MODEL, "input": [{"type": []}]}, "unreadable_fields"),
        (RESPONSES, {"model": MODEL, "input": "x", "instructions": [1]}, "unreadable_fields"),
        (RESPONSES, {"model": MODEL}, "unreadable_fields"),
        (RESPONSES, {"input": "x"}, "unreadable_fields"),
        (MESSAGES, {"model": MODEL, "messages": "x"}, "unreadable_fields"),
        (MESSAGES, {"model": MODEL, "messages": []}, "unreadable_fields"),
        (MESSAGES, {"model": MODEL, "messages": [[]]}, "unreadable_fields"),
        (MESSAGES, {"model": MODEL, "messages": [{"role": None}]}, "unreadable_fields"),
        (MESSAGES, messages_body(system=7), "unreadable_fields"),
        (MESSAGES, {"model": 7, "messages": []}, "unreadable_fields"),
    ],
)
async def test_what_can_not_be_read_is_passed_on(gw, up, path, body, why) -> None:
    up.lax, up.default = True, Reply(status=418, body={"own": "words"})
    response = await SPOKEN[path.rpartition("/")[2]].post(gw, body, X_TTCL_Mode="explore")
    assert (response.status_code, response.json()) == (418, {"own": "words"})
    (call,) = up.formatted
    assert call.body == body
    assert response.headers["x-ttcl-degraded"] == f"not_steered:{why}"
    assert response.headers["x-ttcl-mode"] == "off"


async def test_no_json_is_the_servers_to_refuse(gw, up, spoken: Spoken) -> None:
    response = await spoken.post(gw, b"{no json", X_TTCL_Mode="steer")
    assert (response.status_code, up.formatted[0].raw) == (404, b"{no json")


@pytest.mark.parametrize("field", [{"mode": "fly"}, {"namespace": "a b"}, {"learn": 1}, 7])
async def test_its_own_field_is_still_checked(gw, up, spoken: Spoken, field) -> None:
    response = await spoken.post(gw, spoken.body(ttcl=field))
    assert (response.status_code, up.history) == (400, [])
    if spoken.path == MESSAGES:
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert set(response.json()) == {"type", "error"}
    else:
        assert check_error(response.json())["param"].startswith("ttcl")


# -- steer


async def test_steer_keeps_the_answer_and_names_what_it_had(gw, up, spoken: Spoken) -> None:
    body = spoken.body(**told("steer"))
    response = await spoken.post(gw, body)
    answer = response.json()
    said = answer.pop("ttcl")
    assert said["rules"][0]["id"] == response.headers["x-ttcl-rules"]
    assert said["episode"] == response.headers["x-ttcl-episode"]
    assert answer["id"].endswith(f"scripted-{len(up.history)}")
    assert len(up.history) - len([c for c in up.history if c.path == "/v1/models"]) == 1


async def test_a_stream_is_the_servers_bytes(gw, up, spoken: Spoken) -> None:
    direct = await _direct(up, spoken)
    up.history.clear()
    steered = await spoken.events(gw, spoken.body(**told("steer", "plain")))
    assert steered.response.content.split(b"\n\n")[1:-3] == direct.split(b"\n\n")[1:-3]
    assert steered.types == WHOLE_STREAM[spoken.path]
    assert steered.response.headers["x-ttcl-episode"]


async def _direct(up: ScriptedUpstream, spoken: Spoken) -> bytes:
    async with httpx.AsyncClient(verify=NO_TLS) as http:
        body = spoken.body(stream=True)
        return (await http.post(up.url + spoken.path, json=body)).content


async def test_the_name_that_the_client_used_comes_back(gw, up, spoken: Spoken) -> None:
    name = f"{MODEL}+steer"
    whole = await spoken.post(gw, {**spoken.body(), "model": name})
    assert whole.json()["model"] == name
    streamed = await spoken.events(gw, {**spoken.body(), "model": name})
    holders = [each.get("response") or each.get("message") for each in streamed.said]
    assert {holder["model"] for holder in holders if holder} == {name}
    assert {call.body["model"] for call in up.formatted} == {MODEL}


async def test_a_refusal_is_the_servers_own(gw, up, spoken: Spoken) -> None:
    words = {"own": {"words": "é"}}
    up.when(lambda asked: True, Reply(status=429, body=words, headers={"retry-after": "7"}))
    response = await spoken.post(gw, spoken.body(**told("steer")))
    assert (response.status_code, response.json()) == (429, words)
    assert response.headers["retry-after"] == "7"
    episode = gw.episode(response.headers["x-ttcl-episode"])
    assert episode is not None
    assert (episode["status"], episode["reason"]) == ("skipped", "upstream_error:429")


async def test_a_server_without_the_path_says_so(gw, up, spoken: Spoken, mode: str) -> None:
    up.formats = False
    try:
        response = await spoken.post(gw, spoken.body(**told(mode)))
    finally:
        up.formats = True
    assert response.status_code == 404
    if mode != "explore":
        assert response.json() == {"detail": "Not Found"}


async def test_experience_gives_way_to_the_context(gw, up, spoken: Spoken) -> None:
    def limited(asked: dict[str, Any]) -> Reply:
        if RULE in str(asked):
            return Reply.error(400, "This model's maximum context length is 20 tokens")
        return Reply()

    up.when(lambda asked: True, limited)
    response = await spoken.post(gw, spoken.body(**told("steer")))
    assert response.status_code == 200
    assert response.headers["x-ttcl-degraded"] == "rules_dropped_for_context"
    assert response.headers["x-ttcl-rules"] == ""


async def test_what_is_refused_with_experience_is_asked_again_without(gw, up, spoken) -> None:
    def strict(asked: dict[str, Any]) -> Reply:
        return Reply.error(422, "What is this?") if RULE in str(asked) else Reply()

    up.when(lambda asked: True, strict)
    response = await spoken.post(gw, spoken.body(**told("steer")))
    assert response.status_code == 200
    assert response.headers["x-ttcl-degraded"] == "experience_refused"
    assert up.formatted[-1].body == spoken.body()


async def test_a_cut_stream_ends_with_the_formats_error(gw, up, spoken: Spoken) -> None:
    up.default = Reply(fault=Fault.CUT, after=4)
    got = await spoken.events(gw, spoken.body(**told("steer")))
    assert got.said[-1]["type"] == "error"
    assert "stream" in str(got.said[-1])
    episode = gw.episode(got.response.headers["x-ttcl-episode"])
    assert episode is not None
    assert episode["answer"] is None


async def test_what_is_no_answer_is_passed_on(gw, up, spoken: Spoken) -> None:
    up.default = Reply(fault=Fault.GARBAGE)
    response = await spoken.post(gw, spoken.body(**told("steer")))
    assert (response.status_code, response.content) == (200, b"\xff\xfe\x00<html>\x80")
    up.default = Reply(fault=Fault.WRONG_JSON)
    response = await spoken.post(gw, spoken.body(**told("steer")))
    assert response.json()["unexpected"] is True
    episode = gw.episode(response.headers["x-ttcl-episode"])
    assert episode is not None
    assert episode["answer"] is None


async def test_a_whole_answer_becomes_the_stream_that_was_asked_for(gw, up, spoken) -> None:
    whole = (await spoken.post(gw, spoken.body(**told("off")))).json()
    up.default = Reply(body=whole)
    got = await spoken.events(gw, spoken.body(**told("steer")))
    assert got.types == WHOLE_STREAM[spoken.path]
    assert got.text == "The answer is 4."


async def test_the_last_event_says_what_it_had_where_that_is_asked_for(gw, up, spoken) -> None:
    up.default = Reply("\\boxed{7}")
    for mode in ("steer", "explore"):
        wanted = {"stream_options": {"include_ttcl": True}, **told(mode)}
        got = await spoken.events(gw, spoken.body(**wanted))
        assert [each["type"] for each in got.said if "ttcl" in each] == [got.types[-1]]
        said = got.said[-1]["ttcl"]
        assert (said["mode"], len(said["rules"])) == (mode, 1)
        assert said["episode"] == got.response.headers["x-ttcl-episode"]
    assert not any("stream_options" in call.body for call in up.formatted)


async def test_a_chore_is_answered_and_that_is_all(gw, up, spoken: Spoken) -> None:
    response = await spoken.post(gw, spoken.body(**told("explore")), X_TTCL_Chore="true")
    assert response.headers["x-ttcl-degraded"].startswith("chore:")
    (call,) = up.formatted
    assert call.body == spoken.body()


# -- explore


async def test_explore_passes_the_teachers_answer_on(gw, up, spoken: Spoken) -> None:
    up.default = Reply("That makes \\boxed{7}.", reasoning="five from twelve")
    response = await spoken.post(gw, spoken.body(**told("explore", learn=False)))
    answer = response.json()
    said = answer.pop("ttcl")
    assert (said["mode"], said["degraded"]) == ("explore", None)
    assert said["exploration"]["chosen"] == "teacher"
    (teacher,) = up.formatted
    assert teacher.body["temperature"] == 0
    assert RULE in system_of(teacher)
    assert len([call for call in up.chats if is_student(call.body)]) == 3
    assert "scripted" in answer["id"]
    # A box that nobody asked for is taken out; else it is the answer as it came.
    assert text_of(spoken.path, answer) == "That makes 7."
    assert "five from twelve" in str(answer)


async def test_explore_writes_a_students_answer_in_the_format(gw, up, spoken: Spoken) -> None:
    script_majority(up, "I say \\boxed{8}.", "It makes \\boxed{7}.")
    body = spoken.body(**told("explore", learn=False))
    answer = (await spoken.post(gw, body)).json()
    assert text_of(spoken.path, answer) == "It makes 7."
    assert answer["ttcl"]["exploration"]["chosen"].startswith("student")
    assert "scripted" not in answer["id"]
    got = await spoken.events(gw, {**body, "stream_options": {"include_obfuscation": False}})
    assert got.types == WHOLE_STREAM[spoken.path]
    assert got.text == "It makes 7."
    assert got.response.headers["x-ttcl-mode"] == "explore"
    assert up.formatted[-1].body["stream"] is False
    assert "stream_options" not in up.formatted[-1].body


async def test_explore_in_the_official_clients_streams(gw, up) -> None:
    script_majority(up, "I say \\boxed{8}.", "It makes \\boxed{7}.")
    extra = told("explore", learn=False)
    async with (
        gw.client() as client,
        client.responses.stream(**responses_body(), extra_body=extra) as stream,
    ):
        assert (await stream.get_final_response()).output_text == "It makes 7."
    async with (
        gw.anthropic() as client,
        client.messages.stream(**messages_body(), extra_body=extra) as stream,
    ):
        assert (await stream.get_final_message()).content[0].text == "It makes 7."


@pytest.mark.parametrize(
    ("path", "fields", "why"),
    [
        (RESPONSES, {"tools": [{"type": "function", **TOOL}]}, "has_tools"),
        (RESPONSES, {"previous_response_id": "resp_1"}, "stored_conversation"),
        (RESPONSES, {"conversation": "conv_1"}, "stored_conversation"),
        (RESPONSES, {"store": True}, "stored_response"),
        (RESPONSES, {"temperature": "warm"}, "unreadable_fields"),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": {}}]}, "has_tools"),
        (MESSAGES, {"max_tokens": "many"}, "unreadable_fields"),
    ],
)
async def test_what_is_not_explored_is_steered_and_says_why(gw, up, path, fields, why) -> None:
    spoken = SPOKEN[path.rpartition("/")[2]]
    up.lax = True
    response = await spoken.post(gw, spoken.body(**told("explore"), **fields))
    assert response.headers["x-ttcl-mode"] == "steer", response.text
    assert response.headers["x-ttcl-degraded"] == f"not_explored:{why}"
    assert RULE in str(up.formatted[0].body)
    assert up.chats == []


async def test_an_exploration_that_fails_is_the_formats_error(gw, up, spoken: Spoken) -> None:
    up.when(lambda asked: True, Reply.error(400, "no such thing"))
    response = await spoken.post(gw, spoken.body(**told("explore")))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"] == "no such thing"
    assert set(response.json()) == ({"type", "error"} if spoken.path == MESSAGES else {"error"})


@pytest.mark.parametrize("own", [{}, {"vendor": 1}])
async def test_a_temperature_that_is_refused_is_left_out(gw, up, spoken: Spoken, own) -> None:
    def strict(asked: dict[str, Any]) -> Reply:
        if "temperature" in asked and own.keys() <= asked.keys():
            return Reply.error(400, "Unsupported value: 'temperature'", param="temperature")
        return Reply("\\boxed{7}")

    up.when(lambda asked: True, strict)
    try:
        again = [True, False] if own else [False]
        for seen in ([True, False], [True, False, *again]):
            response = await spoken.post(gw, spoken.body(**told("explore", learn=False), **own))
            assert response.status_code == 200, response.text
            # Remembered only where nothing that the client sent can have been the cause.
            assert ["temperature" in call.body for call in up.formatted] == seen
    finally:
        gw.app.state.ttcl.upstream.capabilities.clear()


# -- learning


async def test_a_steered_answer_is_learned_from(learner, up, namespace, spoken: Spoken) -> None:
    script_majority(up, "I say \\boxed{8}.", "It makes \\boxed{7}.")
    response = await spoken.post(learner, spoken.body(**told("steer", namespace)))
    episode = learner.settled(response.headers["x-ttcl-episode"])
    assert (episode["status"], episode["question"]) == ("learned", QUESTION), episode["reason"]
    assert episode["answer"] == "The answer is 4."
    assert {rule["namespace"] for rule in learner.rules(namespace)} == {namespace}


async def test_a_stream_and_an_exploration_are_too(learner, up, namespace, spoken) -> None:
    script_majority(up, "I say \\boxed{8}.", "It makes \\boxed{7}.")
    streamed = await spoken.events(learner, spoken.body(**told("steer", namespace)))
    first = learner.settled(streamed.response.headers["x-ttcl-episode"])
    assert first["answer"] == streamed.text
    assert first["status"] == "learned", first["reason"]
    question = f"{QUESTION} Say it."
    explored = await spoken.events(learner, spoken.body(question, **told("explore", namespace)))
    second = learner.settled(explored.response.headers["x-ttcl-episode"])
    assert second["status"] == "learned", second["reason"]
    assert len(second["trajectories"]) == 4


async def test_feedback_on_an_answer_teaches(learner, up, namespace, spoken: Spoken) -> None:
    up.default = Reply("It makes 7.")
    response = await spoken.post(learner, spoken.body(**told("steer", namespace)))
    given = {"episode_id": response.headers["x-ttcl-episode"], "label": "7"}
    async with httpx.AsyncClient(verify=NO_TLS) as http:
        taken = await http.post(f"{learner.base_url}/feedback", json=given, headers=learner.headers)
    assert taken.status_code == 201, taken.text
    effect = taken.json()["effect"]
    assert effect["right"] is True
    example = learner.admin("GET", f"/examples/{effect['example']}").json()
    assert (example["question"], example["label"]) == (QUESTION, "7")


# -- agents


def steps_of(path: str) -> list[list[dict[str, Any]]]:
    """What an agent sends at each of seven steps of one turn, the second of its conversation."""
    if path == RESPONSES:
        history: list[dict[str, Any]] = [
            {"role": "user", "content": "Hello."},
            {"type": "message", "role": "assistant", "content": "Hello!"},
            {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        ]
    else:
        mark = {"cache_control": {"type": "ephemeral"}}
        history = [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": [{"type": "text", "text": QUESTION, **mark}]},
        ]
    steps = [list(history)]
    for number in range(6):
        call = f"call_{number}"
        if path == RESPONSES:
            made = {"type": "function_call", "call_id": call, "name": "look_up", "arguments": "{}"}
            history += [
                {"type": "reasoning", "id": f"rs_{number}", "summary": []},
                made,
                {"type": "function_call_output", "call_id": call, "output": f"page {number}"},
            ]
        else:
            use = {"type": "tool_use", "id": call, "name": "look_up", "input": {}}
            result = {"type": "tool_result", "tool_use_id": call, "content": f"page {number}"}
            hint = {"type": "text", "text": "Mind the time."}
            history += [
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [result, hint]},
            ]
        steps.append(list(history))
    return steps


async def test_each_step_of_an_agent_begins_as_the_one_before(gw, up, namespace, spoken) -> None:
    gw.add_rule(namespace, RULE, QUESTION)
    name = "input" if spoken.path == RESPONSES else "messages"
    tool = {"type": "function", **TOOL} if spoken.path == RESPONSES else {"name": "look_up"}
    for number, history in enumerate(steps_of(spoken.path)):
        body = {"model": MODEL, "max_tokens": 99, name: history, "tools": [tool]}
        response = await spoken.post(gw, {**body, **told("steer", namespace)})
        assert response.status_code == 200, response.text
        # What is learned meanwhile changes nothing for the steps that follow.
        gw.add_rule(namespace, f"{RULE} Number {number}.", QUESTION)
    sent = [call.body for call in up.formatted]
    assert len(sent) == 7
    assert str(sent[0]).count(RULE) == 1
    for before, after in itertools.pairwise(sent):
        common = len(before[name])
        assert orjson.dumps(after[name][:common]) == orjson.dumps(before[name])
        assert {**after, name: 0} == {**before, name: 0}
    assert RULE in str(sent[0][name][2])


async def test_an_agent_that_goes_on_by_id_keeps_its_instructions(gw, up) -> None:
    spoken = SPOKEN["responses"]
    fixed = {"instructions": "Be brief.", "tools": [{"type": "function", **TOOL}]}
    begun = await spoken.post(gw, spoken.body(**told("steer"), **fixed))
    kept = gw.episode(begun.headers["x-ttcl-episode"])
    assert kept is not None
    assert [each["content"].count(RULE) for each in kept["messages_sent"]] == [0, 1]
    result = [{"type": "function_call_output", "call_id": "c", "output": "7"}]
    going_on = spoken.body(result, **told("steer"), **fixed, previous_response_id="resp_1")
    response = await spoken.post(gw, going_on)
    first, second = (call.body for call in up.formatted)
    assert first["input"].endswith(QUESTION)
    assert RULE in first["input"]
    assert first["instructions"] == second["instructions"] == "Be brief."
    assert second["input"] == result
    assert response.headers["x-ttcl-rules"] == ""


async def test_a_new_question_by_id_is_steered_by_itself(gw, up) -> None:
    spoken = SPOKEN["responses"]
    await spoken.post(gw, spoken.body(**told("steer"), previous_response_id="resp_1"))
    (call,) = up.formatted
    assert call.body["previous_response_id"] == "resp_1"
    assert "instructions" not in call.body
    assert RULE in call.body["input"]


# -- examples, and models without a system role


async def test_examples_are_earlier_turns(gw, up, namespace, spoken: Spoken) -> None:
    near = QUESTION.replace("twelve", "thirteen")
    body = {"namespace": namespace, "question": near, "answer": "8", "label": "8"}
    body |= {"trust": "label", "actor": "t", "reason": "t"}
    made = gw.admin("POST", "/examples", json=body)
    assert made.status_code == 201, made.text
    response = await spoken.post(gw, spoken.body(**told("steer", namespace)))
    assert response.headers["x-ttcl-examples"] == made.json()["id"]
    sent = up.formatted[0].body["input" if spoken.path == RESPONSES else "messages"]
    assert [(each["role"], each["content"]) for each in sent] == [
        ("user", near),
        ("assistant", "8"),
        ("user", QUESTION),
    ]


async def test_a_model_without_a_system_role_gets_it_in_the_question(gw, up, spoken, mode) -> None:
    def strict(asked: dict[str, Any]) -> Reply:
        if any(each.get("role") == "system" for each in asked["messages"]):
            return Reply.error(400, "System role not supported")
        return Reply("\\boxed{7}")

    up.when(lambda asked: True, strict)
    try:
        response = await spoken.post(gw, spoken.body(**told(mode, learn=False)))
        assert response.status_code == 200, response.text
        if mode != "off":
            last = up.formatted[-1]
            assert system_of(last) is None
            assert RULE in last.text
    finally:
        gw.app.state.ttcl.upstream.capabilities.clear()


# -- keys and ends


async def test_tokens_count_against_a_keys_budget(gw, up, spoken: Spoken, mode: str) -> None:
    up.default = Reply("\\boxed{7}", usage=(60, 50))
    limits = {"tokens_per_day": 100, "permissions": ["chat"], "namespaces": [RULED]}
    made = gw.admin("POST", "/keys", json={"name": "k", "actor": "t", "reason": "t", **limits})
    key, body = {"x-api-key": made.json()["secret"]}, spoken.body(**told(mode))
    async with httpx.AsyncClient(timeout=PATIENCE, verify=NO_TLS, headers=key) as http:
        first = await http.post(gw.url + spoken.path, json=body)
        assert first.status_code == 200, first.text
        refused = await http.post(gw.url + spoken.path, json=body)
    assert refused.status_code == 429
    assert "tokens of today" in refused.json()["error"]["message"]
    assert set(refused.json()) == ({"type", "error"} if spoken.path == MESSAGES else {"error"})


async def test_a_client_that_leaves_stops_the_server(gw, up, spoken: Spoken) -> None:
    up.default = Reply(fault=Fault.HANG, after=4)
    async with (
        httpx.AsyncClient(verify=NO_TLS) as http,
        http.stream(
            "POST",
            gw.url + spoken.path,
            json=spoken.body(stream=True, **told("steer")),
            headers=gw.headers,
        ) as response,
    ):
        async for _ in response.aiter_raw():
            break
    await up.until(lambda: up.formatted[0].aborted)
    episode = gw.settled(response.headers["x-ttcl-episode"])
    assert (episode["status"], episode["reason"]) == ("skipped", "client_gone")
