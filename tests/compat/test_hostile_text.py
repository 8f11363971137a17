"""What clients and models write, at its worst: taken, cut where it is kept, and never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from app.domain.bounds import LARGEST_LEARNED, LONGEST_LISTED, LONGEST_TEXT, bounded
from app.domain.json_text import dumps, loads
from app.domain.printable import json_printable, printable
from tests.app.api.inference_server import InferenceServer, Told, streamed
from tests.compat.helpers import RULED, ask
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import NO_TLS, Gateway, running_gateway

# -- how much is read


def test_of_a_long_text_beginning_and_end_are_kept() -> None:
    text = "begin " + "x" * 10 * LONGEST_TEXT + " end"
    cut = bounded(text)
    assert len(cut) == LONGEST_TEXT
    assert cut.startswith("begin ")
    assert cut.endswith(" end")
    assert str(len(text)) in cut
    assert bounded(cut) == cut
    assert bounded("short") == "short"


@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_a_question_goes_out_whole_and_is_kept_cut(
    gateway: Gateway, upstream: ScriptedUpstream, mode: str
) -> None:
    question = "q" * (LARGEST_LEARNED + 1)
    answer = await gateway.post(ask(mode, question))
    assert answer.status_code == 200
    assert upstream.chats[0].body["messages"][-1]["content"] == question
    if mode == "explore":
        assert answer.json()["ttcl"]["degraded"] == ["not_explored:too_long"]
    episode = gateway.episode(answer.headers["x-ttcl-episode"])
    assert episode is not None
    assert (episode["status"], episode["reason"]) == ("skipped", "too_long")
    assert len(episode["question"]) == LONGEST_TEXT
    assert episode["messages_sent"] is None
    listed = gateway.admin("GET", "/episodes").json()["data"][0]
    assert (len(listed["question"]), listed["cut"]) == (LONGEST_LISTED, ["question"])


async def test_an_answer_reaches_its_client_whole_and_is_kept_cut(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    text = "word " * LONGEST_TEXT
    upstream.default = Reply(text)
    answer = await gateway.post(ask("steer"))
    assert answer.json()["choices"][0]["message"]["content"] == text
    episode = gateway.episode(answer.headers["x-ttcl-episode"])
    assert episode is not None
    assert len(episode["answer"]) == LONGEST_TEXT


# -- half characters and NUL

HALF = b'{"a":"\\ud83d","b":["\\u0000",1]}'


def test_half_a_character_is_read_and_written_as_it_came() -> None:
    assert dumps(loads(HALF)).lower() == HALF
    for wrong in (b'{"a":"\\ud83d"', b'["\\ud83d", NaN]', b'["\\ud83d",' + b"[" * 5000):
        with pytest.raises(ValueError, match=r"JSON|nested|delimiter|end"):
            loads(wrong)


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
async def test_half_characters_pass_both_ways(odd: Gateway, mode: str) -> None:
    question = orjson.dumps({**ask(mode, "QUESTION"), "model": "half"})
    sent = question.replace(b"QUESTION", b"What is \\ud83d and \\u0000?")
    answer = await odd.post(sent)
    assert answer.status_code == 200, answer.text
    assert b"\\ud83d" in answer.content.lower()
    if mode != "off":
        episode = odd.settled(answer.headers["x-ttcl-episode"])
        assert episode["question"] == "What is \ufffd and \ufffd?"
        assert "\ufffd" in episode["answer"]
        assert episode["status"] != "failed", episode["reason"]


# -- answers of every kind

ODD: dict[str, Any] = {
    "list": [],
    "number": 7,
    "null": None,
    "no-choices": {"choices": None},
    "choice-text": {"choices": ["text"]},
    "message-list": {"choices": [{"message": []}]},
    "content-number": {"choices": [{"message": {"content": 5}}]},
    "finish-object": {"choices": [{"message": {"content": "x"}, "finish_reason": {"a": 1}}]},
    "reasoning-number": {"choices": [{"message": {"content": "x", "reasoning_content": 5}}]},
    "logprobs-list": {"choices": [{"message": {"content": "x"}, "logprobs": {"content": 5}}]},
    "logprobs-text": {"choices": [{"message": {"content": "x"}, "logprobs": {"content": ["a"]}}]},
    "usage-huge": {
        "choices": [{"message": {"content": "x"}}],
        "usage": {"prompt_tokens": 2**63, "completion_tokens": 2**63, "total_tokens": 2**64 - 1},
    },
    "usage-text": {"choices": [{"message": {"content": "x"}}], "usage": "many"},
    "deep": {"choices": [{"message": {"content": "x"}, "d": 0}]},
    "half": {"choices": [{"message": {"role": "assistant", "content": "half \ud83d, \x00 nul"}}]},
}


def told(body: dict[str, Any]) -> Told:
    content = json.dumps(ODD[body["model"]]).encode()
    if body["model"] == "deep":
        content = content.replace(b'"d": 0', b'"d": ' + b"[" * 900 + b"]" * 900)
    if not body.get("stream") or body["model"] == "half":
        return Told(body=content)
    return streamed(b"data: " + content + b"\n\n", b"data: [DONE]\n\n")


@pytest.fixture(scope="module")
def odd() -> Iterator[Gateway]:
    with InferenceServer() as server:
        server.answers["/v1/models"] = Told(body={"data": [{"id": name} for name in ODD]})
        server.answers["/v1/chat/completions"] = lambda asked: told(loads(asked.body))
        with running_gateway(server) as running:  # type: ignore[arg-type]
            yield running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
async def test_an_odd_answer_is_an_answer_or_a_bad_gateway(
    odd: Gateway, mode: str, stream: bool
) -> None:
    for name in ODD:
        body = {**ask(mode), "model": name, "stream": stream, "logprobs": True}
        answer = await odd.post(body)
        assert answer.status_code in (200, 502), (name, answer.text)


def test_a_usage_beyond_belief_ends_no_metering(odd: Gateway) -> None:
    made = odd.admin(
        "POST", "/keys", json={"name": "k", "namespaces": [RULED], "actor": "a", "reason": "r"}
    ).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    for _ in range(30):
        body = {**ask("off"), "model": "usage-huge"}
        answer = httpx.post(
            f"{odd.base_url}/chat/completions", json=body, headers=headers, verify=NO_TLS
        )
        assert answer.status_code == 200
    shown = odd.admin("GET", f"/keys/{made['id']}").json()
    assert shown["used_today"] == {"requests": 30, "tokens": 2**31 - 1}
    assert odd.admin("GET", "/keys").status_code == 200


# -- on a terminal

ORDERS = "a\x1b]0;title\x07\x1b[31mred\u202eback\u2066\u200bend\x9b1m\r"


def test_a_terminal_obeys_nothing_that_others_wrote() -> None:
    shown = printable(ORDERS)
    assert shown == ("a\\x1b]0;title\\x07\\x1b[31mred\\u202eback\\u2066\\u200bend\\x9b1m\\x0d")
    assert printable("two\nlines\tand tabs, é 日本") == "two\nlines\tand tabs, é 日本"
    line = orjson.dumps({"text": ORDERS})
    assert orjson.loads(json_printable(line)) == {"text": ORDERS}
    assert printable(json_printable(line).decode()) == json_printable(line).decode()


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with running_gateway(upstream) as running:
        yield running
