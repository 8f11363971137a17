"""Every row of the cases of clients and upstreams, in mode off, steer and explore; and mode off
byte by byte over two hundred bodies of any type.

What single modes do besides is tested where the subject is: `test_any_upstream`, `test_chores`,
`test_formats`, `test_long_silences`, and for other paths `tests/app/api/test_passthrough.py`.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from tests.app.api.inference_server import Asked, InferenceServer, Told, streamed
from tests.compat.helpers import QUESTION, RULE
from tests.compat.test_any_upstream import (
    AUDIO,
    CUT,
    MODELS,
    REFUSAL,
    VENDOR,
    Body,
    delta_of,
    loop_answer,
)
from tests.gateway import CLIENT_KEY, NO_TLS, Gateway, running_gateway

LIMITS = [("x-ratelimit-remaining-requests", "9"), ("x-vendor", "v")]


def _chat(asked: Asked) -> Told:
    body = orjson.loads(asked.body)
    told = MODELS.get(body["model"], loop_answer)(body)
    return Told(told.status, told.body, [*told.headers, *LIMITS])


@pytest.fixture(scope="module")
def _running() -> Iterator[tuple[Gateway, InferenceServer, httpx.Client]]:
    with InferenceServer() as server:
        server.answers["/v1/models"] = Told(body={"data": [{"id": name} for name in MODELS]})
        server.answers["/v1/chat/completions"] = _chat
        with (
            running_gateway(server, policy="paper", learn=False) as gateway,  # type: ignore[arg-type]
            httpx.Client(verify=NO_TLS, timeout=60, headers=gateway.headers) as http,
        ):
            gateway.add_rule("ruled", RULE, QUESTION)
            yield gateway, server, http


@pytest.fixture
def gateway(_running: Any) -> Gateway:
    return _running[0]


@pytest.fixture
def server(_running: Any) -> InferenceServer:
    _running[1].history.clear()
    return _running[1]


@pytest.fixture
def http(_running: Any) -> httpx.Client:
    return _running[2]


@dataclass(frozen=True)
class Row:
    """A case whose answer is that of the model in every mode."""

    number: int
    model: str = "good"
    fields: Body = field(default_factory=dict)
    message: Body = field(default_factory=dict)
    """What the message has, where it has no text."""
    finish: str = "stop"
    body: Body = field(default_factory=dict)
    """What the body has beside."""
    text: str = "7"
    """Of an answer with text: what is in it."""
    namespace: str = "plain"


JSON_ONLY = {"role": "system", "content": 'Reply ONLY with a JSON object {"answer": <integer>}'}
REACT = "Use this format:\nThought: ...\nFinal Answer: ...\n\n" + QUESTION
ROWS = [
    Row(1, "refusing", message=REFUSAL),
    Row(1, "cut", message=CUT, finish="length"),
    Row(2, "picky"),
    Row(3, "strict"),
    Row(4, "no-system", namespace="ruled"),
    Row(5, "silent"),
    Row(6, "thinker"),
    Row(7, "pieces", {"max_tokens": -1}, text="count all the apples " * 12),
    Row(8, "pieces", {"max_tokens": 100}, text="count all the apples " * 12),
    Row(9, "obedient", {"messages": [JSON_ONLY, {"role": "user", "content": QUESTION}]},
        text='{"answer": 7}'),
    Row(10, "obedient", {"messages": [{"role": "user", "content": REACT}]},
        text="Thought: count\nFinal Answer: 7"),
    Row(11, "vendor", body=VENDOR),
    Row(12, "good", {"store": True, "metadata": {"a": "b"}, "prediction": {"type": "content"}}),
    Row(13, "audio", {"modalities": ["text", "audio"], "audio": {"voice": "a"}}, message=AUDIO),
    Row(14, "endless"),
    Row(14, "unstreamed"),
    Row(16, "good", {"temperature": "0.7", "max_tokens": 100.0, "stream": 0, "logprobs": 1}),
    Row(16, "good", {"seed": 2**64, "logit_bias": "none", "stop": [[1]]}),
    Row(22, "good", {"n": 2}),
    Row(22, "good", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
]  # fmt: skip


def post(http: httpx.Client, gateway: Gateway, mode: str, row: Row, **more: Any) -> httpx.Response:
    body: Body = {"model": row.model, "messages": [{"role": "user", "content": QUESTION}]}
    body |= {"ttcl": {"mode": mode, "namespace": row.namespace}, **row.fields, **more}
    return http.post(f"{gateway.base_url}/chat/completions", json=body)


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize(
    ("row", "stream"),
    [(row, stream) for row in ROWS for stream in (False, True) if "stream" not in row.fields]
    + [(row, False) for row in ROWS if "stream" in row.fields],
    ids=lambda value: f"{value.number}-{value.model}" if isinstance(value, Row) else str(value),
)
def test_a_row_is_answered_as_the_model_answers(gateway, server, http, row, stream, mode) -> None:
    response = post(http, gateway, mode, row, **({"stream": True} if stream else {}))
    assert response.status_code == 200, response.text
    as_stream = stream and not (row.model == "unstreamed" and mode == "off")
    if as_stream:
        message = delta_of(response)
        text = "".join(_deltas(response))
    else:
        choice = response.json()["choices"][0]
        message, text = choice["message"], choice["message"]["content"]
        assert choice["finish_reason"] in (row.finish, None)
        assert row.body.items() <= response.json().items()
    if row.message:
        assert row.message.items() <= message.items()
        assert not text
    else:
        assert text == row.text if row.number in (7, 8, 9, 10) else row.text in text
    sent = [orjson.loads(asked.body) for asked in server.history if asked.method == "POST"]
    effects = {"store", "metadata", "prediction", "audio"} & row.fields.keys()
    assert all(sum(name in body for body in sent) == 1 for name in effects)


def _deltas(response: httpx.Response) -> list[str]:
    found = []
    for line in response.text.splitlines():
        if line.startswith("data: {"):
            for choice in orjson.loads(line[6:])["choices"]:
                if choice.get("index", 0) == 0:
                    found.append(choice["delta"].get("content") or "")
    return found


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
def test_05_one_models_refusal_is_no_other_models(gateway, server, http, mode) -> None:
    post(http, gateway, mode, Row(5, "silent"))
    usage = post(http, gateway, mode, Row(5, "good")).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 7)


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("status", [404, 200], ids=["none", "strange"])
def test_15_a_server_without_a_list(mode, status) -> None:
    with InferenceServer() as bare:
        bare.default = Told(status, b"nothing here", [("content-type", "text/plain")])
        bare.answers["/v1/chat/completions"] = _chat
        named = {"upstream_model": "good", "learn": False}
        with running_gateway(bare, **named) as alone:  # type: ignore[arg-type]
            body = {"model": "good", "messages": [{"role": "user", "content": QUESTION}]}
            response = httpx.post(
                f"{alone.base_url}/chat/completions",
                headers={**alone.headers, "X-TTCL-Mode": mode},
                json=body,
                verify=NO_TLS,
            )
    assert "7" in response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
def test_17_headers_and_query_go_both_ways(gateway, server, http, mode) -> None:
    body = {"model": "good", "messages": [{"role": "user", "content": QUESTION}]}
    response = http.post(
        f"{gateway.base_url}/chat/completions?api-version=1&x=%20",
        json=body,
        headers={"X-TTCL-Mode": mode, "OpenAI-Organization": "org"},
    )
    assert response.status_code == 200
    posts = [asked for asked in server.history if asked.method == "POST"]
    assert all(asked.target.endswith("?api-version=1&x=%20") for asked in posts)
    assert all(asked.header("openai-organization") == "org" for asked in posts)
    if mode != "explore":  # of many answers no single one's headers are told
        assert {name: response.headers[name] for name, _ in LIMITS} == dict(LIMITS)


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("how", ["gzip", "mark"])
def test_21_a_body_is_read_however_it_is_written(gateway, server, http, mode, how) -> None:
    body = {"model": "good", "messages": [{"role": "user", "content": QUESTION}]}
    raw = orjson.dumps({**body, "ttcl": {"mode": mode}})
    sent = gzip.compress(raw, mtime=0) if how == "gzip" else b"\xef\xbb\xbf" + raw
    headers = {"Content-Encoding": "gzip"} if how == "gzip" else {}
    response = http.post(f"{gateway.base_url}/chat/completions", content=sent, headers=headers)
    assert "7" in response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("gzip", gzip.compress(b" " * 20_000_001, mtime=0), 413),
        ("br", b"{}", 415),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b"{}" * 9, mtime=0)[:-4], 400),
    ],
    ids=["bomb", "unknown", "broken", "cut"],
)
def test_bad_bodies_are_refused(gateway, server, http, mode, encoding, content, status) -> None:
    headers = {"Content-Encoding": encoding, "X-TTCL-Mode": mode}
    response = http.post(f"{gateway.base_url}/chat/completions", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]
    assert server.history == []


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
def test_24_other_clients_keys(gateway, server, mode, header) -> None:
    body = {"model": "good", "messages": [{"role": "user", "content": QUESTION}]}
    url = f"{gateway.base_url}/chat/completions"
    for key, status in ((CLIENT_KEY, 200), ("wrong", 401)):
        headers = {header: key, "X-TTCL-Mode": mode}
        answer = httpx.post(url, json=body, headers=headers, verify=NO_TLS, timeout=60)
        assert answer.status_code == status


# -- an upstream that answers nonsense ------------------------------------------------------------

CHUNK = {
    "id": "x",
    "created": 1,
    "model": "odd",
    "choices": [{"index": 0, "delta": {"content": "7"}}],
}


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


STRANGE: dict[str, tuple[Told, str]] = {
    # (what comes, what a 502 says of it; or nothing where it can be read)
    "html": (Told(body=b"<html>gone</html>", headers=[("content-type", "text/html")]), "text/html"),
    "empty": (Told(body=b""), "nothing"),
    "list": (Told(body=[b"[1, 2]"]), "application/json"),
    "no choices": (Told(body={"id": "x"}), "choices"),
    "choices null": (Told(body={"id": "x", "choices": None}), "choices"),
    "choices of text": (Told(body={"id": "x", "choices": ["7"]}), "choices"),
    "html as a stream": (streamed(b"<html>gone</html>"), "model server"),
    "a stream of nothing": (streamed(b"data: [DONE]\n\n"), ""),
    "a stream cut": (streamed(_event(CHUNK)), "cut"),
    "a stream of nonsense": (streamed(b"data: {nonsense\n\n", b"data: [DONE]\n\n"), "read"),
    "no end but done": (streamed(_event(CHUNK), b"data: [DONE]\n\n"), ""),
    "gzip in name only": (
        Told(body=b"plain", headers=[("content-type", "application/json"),
                                     ("content-encoding", "gzip")]), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_answer_is_read_or_said(gateway, server, http, mode, stream, kind) -> None:
    """One answer, one 502 that says what came, or in a stream that had begun one error; never a 500
    and never two."""
    told, says = STRANGE[kind]
    server.answers["/v1/chat/completions"] = told
    try:
        response = post(http, gateway, mode, Row(14, "good"), stream=stream)
    finally:
        server.answers["/v1/chat/completions"] = _chat
    assert response.status_code in (200, 502), response.text
    if response.status_code == 502:
        error = response.json()["error"]
        assert error["message"]
        assert says in error["message"] or kind == "gzip in name only"
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.count('"error"') <= 1
        assert response.text.endswith("data: [DONE]\n\n") or mode == "off"


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_halves_of_characters_and_numbers_that_are_none(
    gateway, server, http, mode, stream
) -> None:
    """Off passes their bytes on; where answers are read, a half stays what it was."""
    text = rb'"content":"It is \\boxed{7} \ud800"'
    head = b'{"id":"x","created":1,"model":"good","odd":NaN,"choices":[{"index":0,'

    def chat(asked: Asked) -> Told:
        if not orjson.loads(asked.body).get("stream"):
            rest = b'"message":{"role":"assistant",' + text + b'},"finish_reason":"stop"}]}'
            return Told(body=head + rest)
        rest = b'"delta":{"role":"assistant",' + text + b'},"finish_reason":"stop"}]}'
        return streamed(b"data: " + head + rest + b"\n\n", b"data: [DONE]\n\n")

    server.answers["/v1/chat/completions"] = chat
    try:
        response = post(http, gateway, mode, Row(14, "good"), stream=stream)
    finally:
        server.answers["/v1/chat/completions"] = _chat
    assert response.status_code == 200, response.text
    assert "7" in response.text
    if mode == "off":
        assert text in response.content
    elif not stream:
        assert response.json()["choices"][0]["message"]["content"].endswith("\ud800")


# -- mode off, byte by byte -----------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.7, 100.0, 1e400, 2**63, -(2**70), "", "0.7", "é", "\ud83d\ude00",
    [], [1, "a", None], {}, {"a": {"b": [1]}}, [[[]]], "x" * 5_000,
]  # fmt: skip
FIELDS = [
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "stop", "seed", "logprobs",
    "top_logprobs", "stream", "stream_options", "tools", "tool_choice", "response_format", "user",
    "metadata", "messages", "functions", "presence_penalty", "logit_bias", "x_vendor", "store",
]  # fmt: skip
RAW = [
    b'{"model": "good" , "messages":[ ] }',
    b'{"model":"good","model":"twice"}',
    b'{"model":"good","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"model":"good","a":"\\u0000"}',
    b'{"model":"good","a":NaN}',
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"7",
    b"no json",
    b"",
    b"\xff\xfe",
    b'{"messages":[{"role":"user","content":"hi"}]}',
    b'{"model":7}',
    b'{"model":null}',
    b'{"model":["good"]}',
    b'{"model":"good:latest"}',
    b'{"model":"not/listed","messages":"hi"}',
    b'{"model":"good","a":' + b"[" * 150 + b"]" * 150 + b"}",
]


def bodies() -> list[bytes]:
    """Two hundred, the same each time."""
    draw = random.Random(15)
    made = list(RAW)
    while len(made) < 200:
        body: Body = {"model": draw.choice(["good", "unlisted", "org/name:7b"])}
        body["messages"] = [{"role": "user", "content": draw.choice([QUESTION, "", "é\n\t", None])}]
        for name in draw.sample(FIELDS, draw.randint(1, 5)):
            body[name] = draw.choice(VALUES)
        made.append(_written(body, draw))
    return made


def _written(body: Body, draw: random.Random) -> bytes:
    """JSON as some client writes it: with spaces or without, escaped or not."""
    import json

    how: Body = draw.choice(
        [{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}]
    )
    return json.dumps(body, **how).encode("utf-8", "surrogatepass")


ANSWERS = [
    Told(body=b'{ "id":"x","choices" : [] , "n":1.50, "\\u00e9":"\\ud800" }'),
    Told(body=b'{"choices":[{"message":{"content":null}}],"usage":{"prompt_tokens":1e2}}\n'),
    Told(400, b'{"error":{"message":"no", "type":"t","param":null,"code":"c"} }'),
    Told(429, b'{"error":{"message":"slow","type":"t","param":null,"code":7}}',
         [("content-type", "application/json"), ("retry-after", "3"), ("x-ratelimit-reset", "1")]),
    Told(500, b'{"error":{"message":"own","type":"own_type","param":null,"code":"own_code"}}'),
    streamed(b'data: {"id":"x","created":1,"choices":[{"index":0,"delta":{"role":"assistant",',
             b'"content":"\\u00e9"} } ]}\n\n: note\n\ndata: [DONE]\n\n'),
]  # fmt: skip


def test_off_is_the_direct_call_byte_by_byte(gateway, server, http) -> None:
    """What goes to the model server, and what comes back."""
    url = f"{gateway.base_url}/chat/completions?v=1"
    direct = f"{server.base_url}/chat/completions?v=1"
    headers = {"X-TTCL-Mode": "off", "Content-Type": "application/json"}
    wrong = []
    for number, raw in enumerate(bodies()):
        server.answers["/v1/chat/completions"] = ANSWERS[number % len(ANSWERS)]
        try:
            through = http.post(url, content=raw, headers=headers)
            own = http.post(direct, content=raw)
        finally:
            server.answers["/v1/chat/completions"] = _chat
        arrived = server.history[-2:]
        same = [each.body for each in arrived] == [raw, raw]
        same = same and arrived[0].target == arrived[1].target
        if not (same and _of(through) == _of(own)):
            wrong.append((number, raw[:80], _of(through), _of(own)))
    assert not wrong, "\n".join(map(str, wrong))


def _of(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    kept = ("content-type", "retry-after", "x-ratelimit-reset")
    told = {name: response.headers[name] for name in kept if name in response.headers}
    if told.get("content-type", "").startswith("text/event-stream"):
        told["content-type"] = "text/event-stream"
    return response.status_code, response.content, told
