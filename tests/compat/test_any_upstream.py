"""Upstreams that refuse, think first, say little, or answer in a form of their own.

Each model of the server behaves in its own way, and what one refuses changes nothing for another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.app.api.inference_server import Asked, InferenceServer, Told, streamed
from tests.compat.helpers import NEGATIVE, POSITIVE, QUESTION, RULE, WORDINGS
from tests.fakes import instance_of, is_distiller, is_tutor, schema_of
from tests.gateway import NO_TLS, Gateway, running_gateway

Body = dict[str, Any]


def said(body: Body, text: str | None, **more: Any) -> Told:
    """An answer in the form that was asked for, its usage told where it may be."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    finish = more.pop("finish", "stop")
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        **more.pop("used", {}),
    }
    head = {"id": "x", "created": 1, "model": body["model"], **more}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return Told(body={**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    pieces: list[Body] = [{"index": 0, "delta": message, "finish_reason": None}]
    pieces.append({"index": 0, "delta": {}, "finish_reason": finish})
    frames = [{**head, "choices": [piece]} for piece in pieces]
    if "stream_options" in body:
        frames.append({**head, "choices": [], "usage": usage})
    return streamed(
        *(b"data: " + orjson.dumps(each) + b"\n\n" for each in frames), b"data: [DONE]\n\n"
    )


def refused(status: int, message: Any, param: str | None = None) -> Told:
    if isinstance(message, list):
        return Told(status, {"detail": message})
    return Told(status, {"error": {"message": message, "type": "x", "param": param, "code": None}})


def loop_answer(body: Body) -> Told:
    """As a good model answers: wordings, rules, or a boxed number."""
    if is_tutor(body) or "variants" in str(body["messages"]):
        return said(body, orjson.dumps({"variants": list(WORDINGS)}).decode())
    if is_distiller(body):
        rules = {"positive": POSITIVE, "negative": NEGATIVE, "trigger": "counting"}
        names = (schema_of(body) or {})["properties"]
        return said(body, orjson.dumps({name: rules.get(name) for name in names}).decode())
    if schema_of(body):
        return said(body, orjson.dumps(instance_of(schema_of(body) or {})).decode())
    return said(body, "It is \\boxed{7}")


def picky(body: Body) -> Told:
    if body.get("temperature", 1) != 1:
        return refused(400, "Unsupported value: 'temperature' does not support 0.", "temperature")
    if "max_tokens" in body:
        message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return refused(400, message)
    if body.get("logprobs"):
        return refused(403, "You are not allowed to request logprobs from this model")
    if "seed" in body:
        return refused(422, [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra"}])
    return loop_answer(body)


def strict(body: Body) -> Told:
    known = {"model", "messages", "stream", "stream_options", "response_format"}
    return loop_answer(body) if body.keys() <= known else refused(422, "Extra inputs")


def no_system(body: Body) -> Told:
    if any(message["role"] == "system" for message in body["messages"]):
        return refused(400, "System role not supported")
    return loop_answer(body)


def silent(body: Body) -> Told:
    if "stream_options" in body:
        return refused(400, "stream_options is not supported", "stream_options")
    return loop_answer(body)


def thinker(body: Body) -> Told:
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 10**9
    off = (body.get("chat_template_kwargs") or {}).get("enable_thinking") is False
    thought = {"reasoning_content": "Let me think. " * 9}
    if not off and limit < 900:
        return said(body, None, message=thought, finish="length")
    told = loop_answer(body)
    if not off and isinstance(told.body, list):
        piece = {"index": 0, "delta": thought, "finish_reason": None}
        told.body.insert(0, b"data: " + orjson.dumps({"choices": [piece]}) + b"\n\n")
    return told


def talked_into(body: Body) -> Told:
    """Thinks where the question says so."""
    return thinker(body) if "Think aloud" in str(body["messages"]) else loop_answer(body)


REFUSAL = {"refusal": "I can't help with that."}
CUT = {"reasoning": "Hmm. Let me"}
AUDIO = {"audio": {"id": "a1", "data": "UklGRg==", "transcript": "seven", "expires_at": 5}}
CALLED = {
    "tool_calls": [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
}
VENDOR = {"service_tier": "scale", "system_fingerprint": "fp_1", "x_vendor": {"region": "eu"}}
DETAILS = {"completion_tokens_details": {"reasoning_tokens": 3}}


def pieces(body: Body) -> Told:
    """Smaller than a token each."""
    text = "count all the apples " * 12
    if not body.get("stream"):
        return said(body, text)
    chunk = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]}
    frames = []
    for letter in text:
        chunk["choices"][0]["delta"]["content"] = letter
        frames.append(b"data: " + orjson.dumps(chunk) + b"\n\n")
    chunk["choices"][0] |= {"delta": {}, "finish_reason": "stop"}
    frames.append(b"data: " + orjson.dumps(chunk) + b"\n\n")
    return streamed(*frames, b"data: [DONE]\n\n")


def unstreamed(body: Body) -> Told:
    return loop_answer({**body, "stream": False})


def endless_word(body: Body) -> Told:
    """Ends without a word of why."""
    delta = {"role": "assistant", "content": "It is \\boxed{7}"}
    chunk = {"id": "x", "model": body["model"], "choices": [{"index": 0, "delta": delta}]}
    if not body.get("stream"):
        return said(body, delta["content"], finish=None)
    return streamed(b"data: " + orjson.dumps(chunk) + b"\n\n", b"data: [DONE]\n\n")


MODELS: dict[str, Callable[[Body], Told]] = {
    "good": loop_answer,
    "picky": picky,
    "strict": strict,
    "no-system": no_system,
    "silent": silent,
    "thinker": thinker,
    "thinker-2": thinker,
    "talked-into": talked_into,
    "refusing": lambda body: said(body, None, message=REFUSAL),
    "cut": lambda body: said(body, None, message=CUT, finish="length"),
    "audio": lambda body: said(body, None, message=AUDIO),
    "calling": lambda body: said(body, None, message=CALLED, finish="tool_calls"),
    "vendor": lambda body: said(
        body, "It is \\boxed{7}", message={"reasoning": "Counted."}, used=DETAILS, **VENDOR
    ),
    "pieces": pieces,
    "unstreamed": unstreamed,
    "endless": endless_word,
    "empty": lambda body: Told(body={"id": "x", "choices": []}),
    "page": lambda body: Told(body=b"<html>", headers=[("content-type", "text/html")]),
}


def _chat(asked: Asked) -> Told:
    body = orjson.loads(asked.body)
    return MODELS[body["model"]](body)


@pytest.fixture(scope="module")
def _running() -> Iterator[tuple[Gateway, InferenceServer]]:
    with InferenceServer() as server:
        names = [*MODELS, "obedient"]
        server.answers["/v1/models"] = Told(body={"data": [{"id": name} for name in names]})
        server.answers["/v1/chat/completions"] = _chat
        with running_gateway(server, policy="paper") as gateway:  # type: ignore[arg-type]
            gateway.add_rule("ruled", RULE, QUESTION)
            yield gateway, server


@pytest.fixture
def gateway(_running: tuple[Gateway, InferenceServer]) -> Gateway:
    return _running[0]


@pytest.fixture
def server(_running: tuple[Gateway, InferenceServer]) -> InferenceServer:
    _running[1].history.clear()
    return _running[1]


def asked(server: InferenceServer) -> list[Body]:
    return [
        orjson.loads(each.body) for each in server.history if each.target.endswith("completions")
    ]


def ask(gateway: Gateway, model: str, mode: str, **fields: Any) -> httpx.Response:
    options = {"mode": mode, "namespace": fields.pop("namespace", "plain"), "learn": False}
    options |= fields.pop("ttcl", {})
    message = {"role": "user", "content": fields.pop("question", QUESTION)}
    body = {"model": model, "messages": [message], "ttcl": options, **fields}
    return httpx.post(
        f"{gateway.base_url}/chat/completions",
        headers=gateway.headers,
        json=body,
        verify=NO_TLS,
        timeout=60,
    )


def message_of(response: httpx.Response) -> Body:
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0]["message"])


def delta_of(response: httpx.Response) -> Body:
    """The fields of all pieces of a stream, the last of each."""
    assert response.status_code == 200, response.text
    found: Body = {}
    for line in response.text.splitlines():
        if line.startswith("data: {"):
            chunk = orjson.loads(line[6:])
            assert "error" not in chunk, chunk
            for choice in chunk["choices"]:
                found |= {k: v for k, v in choice["delta"].items() if v}
    assert response.text.endswith("data: [DONE]\n\n")
    return found


@pytest.mark.parametrize(
    ("model", "field", "value", "finish"),
    [
        ("refusing", "refusal", REFUSAL["refusal"], "stop"),
        ("cut", "reasoning", CUT["reasoning"], "length"),
        ("audio", "audio", AUDIO["audio"], "stop"),
    ],
)
def test_01_what_is_no_text_comes_as_it_came(gateway, server, model, field, value, finish) -> None:
    response = ask(gateway, model, "explore")
    message = message_of(response)
    assert (message[field], message["content"]) == (value, None)
    assert response.json()["choices"][0]["finish_reason"] == finish
    assert delta_of(ask(gateway, model, "explore", stream=True))[field] == value


def test_01_a_call_comes_as_it_came(gateway, server) -> None:
    (call,) = message_of(ask(gateway, "calling", "explore"))["tool_calls"]
    assert call == {k: v for k, v in CALLED["tool_calls"][0].items() if k != "index"}
    assert delta_of(ask(gateway, "calling", "explore", stream=True)) == {
        "role": "assistant", **CALLED,
    }  # fmt: skip


@pytest.mark.parametrize("model", ["picky", "strict", "silent", "no-system"])
def test_02_what_the_loop_added_is_left_out_and_remembered(gateway, server, model) -> None:
    assert "7" in message_of(ask(gateway, model, "explore"))["content"]
    first = len(server.history)
    server.history.clear()
    assert message_of(ask(gateway, model, "explore"))["content"]
    assert len(server.history) < first
    assert gateway.app.state.ttcl.upstream.capabilities[model].as_dict()["refused"]
    server.history.clear()
    ask(gateway, "good", "explore")
    assert all("seed" in body for body in asked(server) if not schema_of(body))


def test_02_what_the_client_sent_is_the_clients_error(gateway, server) -> None:
    response = ask(gateway, "picky", "explore", temperature=0.5)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "temperature"


@pytest.mark.parametrize("model", ["picky", "strict", "no-system"])
def test_02_such_models_are_learned_from(gateway, server, model) -> None:
    space = f"learned-{model}"
    response = ask(gateway, model, "steer", namespace=space, ttcl={"learn": True})
    episode = gateway.settled(response.headers["x-ttcl-episode"])
    assert (episode["status"], episode["reason"]) == ("learned", None)
    assert gateway.rules(space)


@pytest.mark.parametrize("mode", ["steer", "explore"])
def test_04_without_a_system_role_the_block_is_in_the_users_turn(gateway, server, mode) -> None:
    for _ in range(2):
        server.history.clear()
        message_of(ask(gateway, "no-system", mode, namespace="ruled"))
    bodies = [body for body in asked(server) if RULE in str(body["messages"])]
    assert bodies
    for body in bodies:
        (message,) = body["messages"]
        assert message["role"] == "user"


def test_04_a_clients_own_system_message_is_its_own(gateway, server) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    response = ask(gateway, "no-system", "steer", namespace="ruled", messages=messages)
    assert response.status_code == 400


def test_05_usage_is_estimated_where_none_is_told(gateway, server) -> None:
    ask(gateway, "silent", "explore")
    assert ask(gateway, "silent", "explore").json()["ttcl"]["cost"]["total_tokens"] > 50
    usage = ask(gateway, "good", "explore").json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 7)


@pytest.mark.parametrize("switched", [False, True])
def test_06_a_model_that_thinks_first_is_learned_from(gateway, server, switched) -> None:
    model = "thinker-2" if switched else "thinker"
    more = {"chat_template_kwargs": {"enable_thinking": False}} if switched else {}
    space = f"thought-{switched}"
    response = ask(gateway, model, "steer", namespace=space, ttcl={"learn": True}, **more)
    episode = gateway.settled(response.headers["x-ttcl-episode"])
    assert (episode["status"], episode["reason"]) == ("learned", None)
    assert gateway.app.state.ttcl.upstream.capabilities_of(model).thinks is not switched


def test_06_a_model_that_a_prompt_made_think_is_soon_found_not_to(gateway, server) -> None:
    capabilities = gateway.app.state.ttcl.upstream.capabilities_of("talked-into")
    for asked_to, seen in ((f"Think aloud. {QUESTION}", True), (QUESTION, False)):
        response = ask(
            gateway,
            "talked-into",
            "steer",
            question=asked_to,
            namespace=f"talked-into-{seen}",
            ttcl={"learn": True},
        )
        gateway.settled(response.headers["x-ttcl-episode"])
        assert capabilities.thinks is seen


def test_06_a_spent_budget_is_named(gateway, server) -> None:
    response = ask(gateway, "cut", "explore")
    assert "thinking_budget_spent" in response.json()["ttcl"]["degraded"]


def test_07_minus_one_is_no_limit(gateway, server) -> None:
    answer = message_of(ask(gateway, "pieces", "explore", max_tokens=-1))
    assert len(answer["content"]) == 252


def test_08_pieces_smaller_than_a_token_are_not_cut(gateway, server) -> None:
    answer = message_of(ask(gateway, "pieces", "explore", max_tokens=100))
    assert len(answer["content"]) == 252


@pytest.mark.parametrize("stream", [False, True])
def test_11_vendors_fields_are_kept(gateway, server, stream) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    response = ask(gateway, "vendor", "explore", **options)
    assert response.status_code == 200
    frames = [orjson.loads(data) for data in re.findall(r"^data: (\{.*)$", response.text, re.M)]
    bodies = frames if stream else [response.json()]
    for body in bodies:
        assert {name: body[name] for name in VENDOR} == VENDOR
    assert bodies[-1]["usage"] == {
        "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, **DETAILS,
    }  # fmt: skip
    said = delta_of(response) if stream else message_of(response)
    assert (said["reasoning"], "reasoning_content" in said) == ("Counted.", False)


def test_12_what_has_effects_goes_out_once(gateway, server) -> None:
    fields = {"store": True, "metadata": {"a": "b"}, "prediction": {"type": "content"}}
    message_of(ask(gateway, "good", "explore", **fields))
    for name, value in fields.items():
        assert [body[name] for body in asked(server) if name in body] == [value]
    server.history.clear()
    response = ask(gateway, "good", "steer", namespace="once", ttcl={"learn": True}, **fields)
    gateway.settled(response.headers["x-ttcl-episode"])
    assert len(asked(server)) > 3
    assert sum("store" in body for body in asked(server)) == 1


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("stream", [False, True])
def test_14_a_strange_end_is_read_as_what_it_is(gateway, server, mode, stream) -> None:
    response = ask(gateway, "endless", mode, stream=stream)
    content = delta_of(response) if stream else message_of(response)
    assert "7" in content["content"]


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
def test_14_json_where_a_stream_was_asked_for(gateway, server, mode) -> None:
    response = ask(gateway, "unstreamed", mode, stream=True)
    if mode == "off":
        assert "7" in message_of(response)["content"]
    elif mode == "steer":
        assert delta_of(response)["content"] == "It is \\boxed{7}"
    else:
        assert response.text.count("data: ") > 3


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "what"), [("empty", "choices"), ("page", "text/html")])
def test_14_nonsense_is_one_502_that_says_what_came(
    gateway, server, mode, stream, model, what
) -> None:
    response = ask(gateway, model, mode, stream=stream)
    if (mode, model) == ("off", "empty"):
        assert response.json() == {"id": "x", "choices": []}
        return
    if response.status_code == 200:  # a stream that had begun to ping
        assert '"error"' in response.text
    else:
        assert response.status_code == 502
    assert what in response.text


@pytest.mark.parametrize("fields", [{"n": 2}, {"tools": [{"type": "function"}]}])
def test_22_what_is_not_explored_is_said(gateway, server, fields) -> None:
    told = ask(gateway, "good", "explore", **fields).json()["ttcl"]
    reason = "several_choices" if "n" in fields else "has_tools"
    assert (told["mode"], told["degraded"]) == ("steer", [f"not_explored:{reason}"])


def test_25_feedback_needs_no_content_type(gateway, server) -> None:
    episode = ask(gateway, "good", "steer").headers["x-ttcl-episode"]
    body = orjson.dumps({"episode_id": episode, "score": 1.0})
    url = f"{gateway.base_url}/feedback"
    assert httpx.post(url, headers=gateway.headers, content=body, verify=NO_TLS).status_code == 201


def test_readiness_names_what_each_model_refuses(gateway, server) -> None:
    ask(gateway, "picky", "explore")
    found = httpx.get(f"{gateway.url}/readyz", verify=NO_TLS).json()["checks"]["upstream"]
    assert {"logprobs", "seed", "temperature"} <= set(found["capabilities"]["picky"]["refused"])


# -- the client's form


def obedient(body: Body) -> Told:
    """Follows what it is told about the form, the loop's word too."""
    text = "\n".join(str(message["content"]) for message in body["messages"])
    if schema_of(body):
        return loop_answer(body)
    boxed = "And now: \\boxed{7}" if "boxed" in text else ""
    if "JSON object" in text:
        return said(body, f'{{"answer": 7}}{boxed}')
    if "Final Answer:" in text:
        return said(body, f"Thought: count\nFinal Answer: 7{boxed}")
    return said(body, f"Seven are left. {boxed}")


MODELS["obedient"] = obedient
JSON_ONLY = 'Reply ONLY with a JSON object {"answer": <integer>}'
REACT = "Use this format:\nThought: ...\nFinal Answer: ..."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("system", "user", "answer"),
    [
        (JSON_ONLY, QUESTION, '{"answer": 7}'),
        ("Be good.", f"{QUESTION} {JSON_ONLY}", '{"answer": 7}'),
        ("Be good.", f"{REACT}\n\n{QUESTION}", "Thought: count\nFinal Answer: 7"),
        ("Be good.", QUESTION, "Seven are left. And now: 7"),
    ],
)
def test_09_the_clients_form_wins(gateway, server, stream, system, user, answer) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    response = ask(gateway, "obedient", "explore", messages=messages, stream=stream)
    if not stream:
        assert message_of(response)["content"] == answer
        assert response.json()["ttcl"]["exploration"]["agreement"] == 1.0
        return
    lines = re.findall(r"^data: (\{.*)$", response.text, re.M)
    deltas = [each["delta"] for line in lines for each in orjson.loads(line)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == answer


def test_a_refusal_that_is_about_something_else_is_not_remembered(gateway, server) -> None:
    for status, message in ((400, "temperature is not the trouble"), (422, "no")):
        MODELS["obedient"], kept = lambda body: refused(status, message), MODELS["obedient"]  # noqa: B023
        try:
            assert ask(gateway, "obedient", "explore").status_code == status
        finally:
            MODELS["obedient"] = kept
    assert gateway.app.state.ttcl.upstream.capabilities_of("obedient").refused() <= {"logprobs"}
