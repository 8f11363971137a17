"""Cases 16-18: parameters reach the upstream, wrong ones are named, learning changes none."""

from __future__ import annotations

import json

import pytest

from tests.compat.helpers import QUESTION, RULE, RULED, ask, check_error, for_client, visible_call
from tests.fakes import Reply, is_structured_step, is_student
from tests.gateway import CLIENT_KEY, MODEL

FOREIGN = {
    "top_k": 20,
    "min_p": 0.05,
    "repetition_penalty": 1.05,
    "chat_template_kwargs": {"enable_thinking": False},
    "guided_regex": "[0-9]+",
    "guided_json": {"type": "object"},
    "structured_outputs": {"choice": ["7", "8"]},
    "metadata": {"ttcl": "inside is the client's"},
    "x_unknown": [None, {"deep": [1.5, "é", True]}],
    "seed": 2**53 + 1,
    "user": "somebody",
    "logit_bias": {"50256": -100},
}


async def test_16_foreign_fields_reach_the_upstream(gw, up, mode) -> None:
    response = await gw.post(ask(mode, **FOREIGN))
    assert response.status_code == 200, response.text
    sent = visible_call(up, mode).body
    expected = {k: v for k, v in FOREIGN.items() if not (mode == "explore" and k == "seed")}
    assert {name: sent.get(name) for name in expected} == expected


async def test_16_official_client_extra_body(gw, up, mode) -> None:
    arguments = for_client(ask(mode))
    arguments["extra_body"] |= {"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}
    async with gw.client() as client:
        await client.chat.completions.create(**arguments)
    sent = visible_call(up, mode).body
    assert sent["top_k"] == 20
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


async def test_16_students_get_them_too(gw, up) -> None:
    await gw.post(ask("explore", top_k=20, x_unknown={"kept": True}))
    students = [call.body for call in up.chats if is_student(call.body)]
    assert students
    assert all((s["top_k"], s["x_unknown"]) == (20, {"kept": True}) for s in students)


async def test_16_own_fields_do_not(gw, up, mode) -> None:
    body = ask(mode, model=f"{MODEL}+off")
    await gw.post(body, X_TTCL_Mode="steer", X_TTCL_Namespace=RULED)
    assert up.chats
    for call in up.chats:
        assert "ttcl" not in call.body
        assert call.body["model"] == MODEL
        assert not [name for name in call.headers if name.startswith("x-ttcl")]
        assert CLIENT_KEY not in str(call.headers)


async def test_16_off_by_header_sends_the_very_bytes(gw, up) -> None:
    raw = (
        '{ "model":"scripted-model", "top_p" : 1.0,"x":"\\u00e9 é", "messages": '
        '[{"role":"user","content":"Hi"}],"seed":18446744073709551615}'
    ).encode()
    response = await gw.post(raw, X_TTCL_Mode="off")
    assert response.status_code == 200, response.text
    assert up.chats[0].raw == raw


async def test_16_body_beats_header_beats_name(gw, up) -> None:
    async def mode_of(body: dict, **headers: str) -> str:
        return (await gw.post(body, **headers)).headers["x-ttcl-mode"]

    named = ask(None, model=f"{MODEL}+off")
    assert await mode_of(ask(None)) == "steer"
    assert await mode_of(named) == "off"
    assert await mode_of(named, X_TTCL_Mode="explore") == "explore"
    assert await mode_of({**named, "ttcl": {"mode": "steer"}}, X_TTCL_Mode="explore") == "steer"


async def test_16_nothing_is_read_out_of_prompt_text(gw, up) -> None:
    text = f"{QUESTION} X-TTCL-Mode: off\nttcl: {{'mode': 'off', 'namespace': 'other'}} +off"
    response = await gw.post(ask(None, question=text))
    assert response.headers["x-ttcl-mode"] == "steer"
    assert up.chats[0].body["messages"][-1]["content"].endswith(text)


UNSTEERABLE = [
    ("model", 5),
    ("messages", "hi"),
    ("messages", []),
    ("messages", ["hi"]),
]
ODD = [
    ("messages", [{"role": 1, "content": "hi"}]),
    ("messages", [{"role": "user", "content": 5}]),
    ("messages", [{"role": "user", "content": "hi"}, {"role": "user", "content": ["a", 5]}]),
    ("messages", [{"role": "system", "content": 5}, {"role": "user", "content": QUESTION}]),
    ("messages", [{"content": "hi"}]),
    ("temperature", "0.7"),
    ("max_tokens", 100.0),
    ("max_tokens", -1),
    ("max_tokens", "100"),
    ("max_completion_tokens", "many"),
    ("stream", 0),
    ("logprobs", 1),
    ("seed", 2**64 - 1),
    ("response_format", {"type": 5}),
    ("stream", "yes"),
    ("stream", 1),
    ("stream_options", "usage"),
    ("stream_options", {"include_usage": "yes"}),
    ("n", "three"),
    ("n", 0),
    ("n", True),
    ("temperature", True),
    ("temperature", "hot"),
    ("temperature", [0.5]),
    ("top_p", {}),
    ("seed", "x"),
    ("max_tokens", "many"),
    ("max_completion_tokens", 1.5),
    ("stop", 5),
    ("stop", [5]),
    ("logprobs", "true"),
    ("top_logprobs", "2"),
    ("presence_penalty", "x"),
    ("frequency_penalty", []),
    ("tools", "none"),
    ("tools", ["subtract"]),
    ("tool_choice", 5),
    ("response_format", "json"),
    ("user", 5),
]
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}}],
}
WRONG_OPTIONS = [
    "x",
    [],
    {"mode": "fast"},
    {"mode": 1},
    {"namespace": "two words"},
    {"namespace": 7},
    {"task": "riddle"},
    {"domain": 5},
    {"learn": "maybe"},
    {"max_positive": "many"},
    {"max_negative": -1},
    {"unheard_of": 1},
]


@pytest.mark.parametrize(("field", "value"), UNSTEERABLE, ids=lambda v: str(v)[:24])
@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_17_what_can_not_be_steered_names_its_field(gw, up, mode, field, value) -> None:
    response = await gw.post({**ask(mode), field: value})
    assert response.status_code == 400, response.text
    error = check_error(response.json())
    assert error["param"]
    assert error["param"].replace("[", ".").split(".")[0] == field
    assert error["type"] == "invalid_request_error"
    assert up.chats == []


@pytest.mark.parametrize(("field", "value"), ODD, ids=lambda v: str(v)[:24])
async def test_17_another_type_is_the_upstreams_business(gw, up, mode, field, value) -> None:
    """Neither refused nor changed: here it is accepted, elsewhere its error comes back."""
    up.default = Reply(body=COMPLETION)
    up.lax = True
    response = await gw.post({**ask(mode), field: value})
    assert response.status_code == 200, response.text
    # What the loop reads it puts together anew.
    if field not in ("messages", "stream", "stream_options", "n", "logprobs") or mode == "off":
        assert value in [call.body[field] for call in up.chats if field in call.body]


@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_17_what_the_loop_can_not_read_is_steered(gw, up, mode) -> None:
    up.default = Reply(body=COMPLETION)
    up.lax = True
    answer = (await gw.post(ask(mode, n="several", tools="none"))).json()
    assert len(up.chats) == 1
    assert RULE in up.chats[0].text
    assert (up.chats[0].body["n"], up.chats[0].body["tools"]) == ("several", "none")
    assert answer["ttcl"]["mode"] == "steer"


@pytest.mark.parametrize(("field", "value"), [*UNSTEERABLE, *ODD], ids=lambda v: str(v)[:24])
async def test_17_off_sends_any_type_as_its_bytes(gw, up, field, value) -> None:
    body = {k: v for k, v in {**ask(), field: value}.items() if k != "ttcl"}
    raw = json.dumps(body, indent=1).encode()
    up.default, up.lax = Reply(body=COMPLETION), True
    response = await gw.post(raw, X_TTCL_Mode="off")
    assert [call.raw for call in up.chats] == [raw]
    assert response.json() == COMPLETION


@pytest.mark.parametrize("value", WRONG_OPTIONS, ids=str)
async def test_17_wrong_option_names_its_field(gw, up, value) -> None:
    response = await gw.post({**ask(), "ttcl": value})
    assert response.status_code == 400, response.text
    param = check_error(response.json())["param"]
    expected = f"ttcl.{next(iter(value))}" if isinstance(value, dict) else "ttcl"
    assert param == expected
    assert up.chats == []


@pytest.mark.parametrize(
    ("header", "value"), [("X_TTCL_Mode", "fast"), ("X_TTCL_Namespace", "two words")]
)
async def test_17_wrong_header_is_named(gw, up, header, value) -> None:
    body = {key: field for key, field in ask().items() if key != "ttcl"}
    response = await gw.post(body, **{header: value})
    assert response.status_code == 400, response.text
    assert check_error(response.json())["param"].lower() == header.replace("_", "-").lower()


@pytest.mark.parametrize("field", ["model", "messages"])
@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_17_missing_field_is_named(gw, up, mode, field) -> None:
    body = ask(mode)
    del body[field]
    response = await gw.post(body)
    assert response.status_code == 400
    assert check_error(response.json())["param"] == field


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": None, "stop": None, "tools": None, "stream": None, "max_tokens": None},
        {"temperature": 1, "top_p": 1},
        {"messages": [{"role": "user", "content": QUESTION, "name": "ann"}]},
        {"messages": [{"role": "custom", "content": QUESTION}]},
        {"messages": [{"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "system", "content": "only this"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": "\U0001f600 \x00 é"}]},
        {"tools": [], "stop": []},
    ],
    ids=str,
)
async def test_17_what_is_allowed_is_let_through(gw, up, mode, fields) -> None:
    response = await gw.post({**ask(mode), **fields})
    assert response.status_code == 200, response.text


ODD_BODIES = {
    "deep": '"x":' + "[" * 600 + "]" * 600,
    "long number": '"x":' + "9" * 400,
    "big seed": '"seed":' + "9" * 30,
    "half a character": '"user":"\\ud83d"',
    "same key twice": '"n":1,"n":1',
    "huge float": '"temperature":1e999',
}


@pytest.mark.parametrize("odd", ODD_BODIES.values(), ids=list(ODD_BODIES))
async def test_17_odd_bodies_are_never_a_500(gw, up, mode, odd) -> None:
    question = f'"messages":[{{"role":"user","content":"{QUESTION}"}}]'
    options = f'"ttcl":{{"mode":"{mode}","namespace":"{RULED}"}}'
    raw = f'{{"model":"{MODEL}",{question},{options},{odd}}}'
    response = await gw.post(raw.encode())
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        check_error(response.json())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["off", "steer"])
async def test_18_learning_leaves_the_call_alone(learner, up, namespace, mode, stream) -> None:
    given = {"temperature": 0.33, "seed": 7, "top_p": 0.8, "frequency_penalty": 0.1}
    body = ask(mode, ttcl={"namespace": namespace}, **given)
    response = (await learner.sse(body)).response if stream else await learner.post(body)
    assert response.status_code == 200
    if mode == "steer":
        learner.settled(response.headers["x-ttcl-episode"])
        assert len(up.chats) > 1
    sent = {k: v for k, v in up.chats[0].body.items() if k != "stream_options"}
    expected = {**body, "stream": True} if stream else body
    assert sent == {k: v for k, v in expected.items() if k != "ttcl"}


async def test_18_off_is_not_learned_from(learner, up, namespace) -> None:
    await learner.post(ask("off", ttcl={"namespace": namespace}))
    await learner.post(ask("steer", ttcl={"namespace": namespace, "learn": False}))
    await up.settled()
    assert learner.rules(namespace) == []
    assert len(up.chats) == 2


async def test_18_steer_adds_the_rules_and_nothing_else(gw, up) -> None:
    body = ask("steer", temperature=0.33, seed=7)
    response = await gw.post(body)
    sent = up.chats[0].body
    assert RULE in sent["messages"][0]["content"]
    assert sent["messages"][1:] == body["messages"]
    assert {k: v for k, v in sent.items() if k != "messages"} == {
        k: v for k, v in body.items() if k not in ("messages", "ttcl")
    }
    rules = response.json()["ttcl"]["rules"]
    assert [r["polarity"] for r in rules] == ["positive"]
    assert response.headers["x-ttcl-rules"] == rules[0]["id"]
    assert rules[0]["similarity"] == pytest.approx(1.0, abs=1e-3)


async def test_18_the_same_request_explores_the_same_way_twice(gw, up) -> None:
    await gw.post(ask("explore", seed=7))
    await up.settled()
    first = sorted(c.body["seed"] for c in up.chats if not is_structured_step(c.body))
    up.history.clear()
    await gw.post(ask("explore", seed=7))
    await up.settled()
    assert sorted(c.body["seed"] for c in up.chats if not is_structured_step(c.body)) == first
