"""The official client for JavaScript against a gateway: js/scenarios.js says what it saw.

Skipped without Node.js or where npm can't install; with REQUIRE_NODE=1 that is a failure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compat.helpers import (
    QUESTION,
    RULE,
    RULED,
    ask,
    check_stream_shape,
    script_majority,
    visible_call,
)
from tests.fakes import Fault, Reply, is_distiller, is_structured_step
from tests.gateway import CLIENT_KEY, MODEL, Gateway
from tests.required import lacking

FOLDER = Path(__file__).with_name("js")
PAGE = Path(__file__).parents[2] / "docs" / "asking.md"
INSTALL_SECONDS, SCENARIO_SECONDS = 180, 60


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node.js, with the locked packages beside the script."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        lacking("REQUIRE_NODE", "there is no Node.js with npm on this machine")
    # Written last, and removed by the next `npm ci` with all else in that folder.
    recipe = zlib.crc32((FOLDER / "package-lock.json").read_bytes())
    stamp = FOLDER / "node_modules" / f".recipe-{recipe}"
    if not stamp.exists():
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts"],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        if done.returncode:
            lacking("REQUIRE_NODE", f"npm ci failed:\n{done.stderr[-2000:]}")
        stamp.touch()
    return node


@dataclass(frozen=True)
class JavaScript:
    """Runs scenarios with the client that a key of the gateway's would have."""

    node: str
    gateway: Gateway

    def command(self, scenario: str, client: dict[str, Any], **given: Any) -> list[str]:
        options = {"baseURL": self.gateway.base_url, "apiKey": CLIENT_KEY, **client}
        arguments = json.dumps({"client": options, **given})
        return [self.node, str(FOLDER / "scenarios.js"), scenario, arguments]

    def run(
        self, scenario: str, client: dict[str, Any] | None = None, **given: Any
    ) -> dict[str, Any]:
        """What the scenario saw; `client` are options of the client."""
        command = self.command(scenario, client or {}, **given)
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCENARIO_SECONDS)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    @contextmanager
    def running(self, scenario: str, **given: Any) -> Iterator[subprocess.Popen[str]]:
        """The scenario as a process that lives until the block ends."""
        command = self.command(scenario, {}, **given)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield process
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(SCENARIO_SECONDS) == 0
            finally:
                process.kill()


@pytest.fixture
def js(node: str, gw: Gateway) -> JavaScript:
    return JavaScript(node, gw)


def quiet(mode: str | None, **fields: Any) -> dict[str, Any]:
    """A request that gets the rule and teaches nothing."""
    return ask(mode, ttcl={"learn": False}, **fields)


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["delta"].get("content") or "" for part in chunks for c in part["choices"])


def test_an_answer_with_its_headers(js, up, mode) -> None:
    up.default = Reply("seven: the answer is 7")
    seen = js.run("answer", body=quiet(mode))
    answer, headers = seen["answer"], seen["headers"]
    assert answer["choices"][0]["message"]["content"] == "seven: the answer is 7"
    assert answer["model"] == MODEL
    assert seen["requestId"] == headers["x-request-id"]
    assert (RULE in visible_call(up, mode).text) == (mode != "off")
    assert headers["x-ttcl-mode"] == mode
    if mode == "off":
        assert "x-ttcl-episode" not in headers
        assert "ttcl" not in answer
    else:
        assert js.gateway.settled(headers["x-ttcl-episode"])["namespace"] == RULED
        assert [rule["id"] for rule in answer["ttcl"]["rules"]] == [headers["x-ttcl-rules"]]


def test_a_stream_with_usage(js, up, mode) -> None:
    up.default = Reply("The answer, naïve ☃, is the answer is 7", wire_split=7)
    seen = js.run("stream", body=quiet(mode, stream_options={"include_usage": True}))
    assert "error" not in seen
    *parts, last = seen["chunks"]
    check_stream_shape(parts, MODEL)
    assert text_of(parts) == "The answer, naïve ☃, is the answer is 7"
    assert last["choices"] == []
    usage = last["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 0
    assert ("x-ttcl-episode" in seen["headers"]) == (mode != "off")


def test_the_stream_helper(js, up, mode) -> None:
    script_majority(up, "Perhaps it is the answer is 6", "It is the answer is 7")
    body = quiet(mode, temperature=0, stream_options={"include_usage": True})
    seen = js.run("helper", body=body)
    wanted = "It is the answer is 7" if mode == "explore" else "Perhaps it is the answer is 6"
    choice = seen["answer"]["choices"][0]
    assert choice["message"]["content"] == "".join(seen["deltas"]) == wanted
    assert choice["finish_reason"] == "stop"
    assert len(seen["deltas"]) > 1
    assert seen["answer"]["usage"]["completion_tokens"] > 0


def test_an_answer_that_the_client_parses(js, up, mode) -> None:
    up.when(lambda body: not is_structured_step(body), Reply.of_json({"apples": 7}))
    schema = {"type": "object", "properties": {"apples": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "left", "schema": schema}}
    seen = js.run("parse", body=quiet(mode, response_format=wanted))
    assert seen == {"parsed": {"apples": 7}}


def test_functions_are_called_until_there_is_an_answer(js, up, mode) -> None:
    up.when(lambda body: body["messages"][-1]["role"] == "tool", Reply("Seven are left."))
    up.default = Reply(tool_calls=[("call_1", "subtract", '{"from": 12, "amount": 5}')])
    seen = js.run("tools", body=quiet(mode))
    assert seen == {"text": "Seven are left.", "calls": [[12, 5]]}
    first, second = up.chats
    assert second.body["messages"][-1]["content"] == "7"
    assert [RULE in call.text for call in (first, second)] == [mode != "off"] * 2


def test_models(js) -> None:
    seen = js.run("models", model=f"{MODEL}+explore")
    assert {MODEL, f"{MODEL}+off", f"{MODEL}+explore"} <= set(seen["listed"])
    assert seen["one"]["id"] == f"{MODEL}+explore"


@pytest.mark.parametrize("by", ["name", "header"])
def test_a_mode_without_a_field_of_ours(js, up, mode, by) -> None:
    up.default = Reply("the answer is 7")
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    headers = {"X-TTCL-Namespace": RULED}
    if by == "name":
        body["model"] = f"{MODEL}+{mode}"
    else:
        headers["X-TTCL-Mode"] = mode
    seen = js.run("answer", client={"defaultHeaders": headers}, body=body)
    assert seen["answer"]["model"] == body["model"]
    assert seen["headers"]["x-ttcl-mode"] == mode
    assert (RULE in visible_call(up, mode).text) == (mode != "off")


@pytest.mark.parametrize(
    ("scenario", "mode"), [("answer", "off"), ("answer", "steer"), ("stream", "explore")]
)
@pytest.mark.parametrize(
    ("client", "fields", "wanted"),
    [
        ({}, {"model": "other"}, ("NotFoundError", 404, "model_not_found", "model")),
        ({"apiKey": "wrong"}, {}, ("AuthenticationError", 401, "invalid_api_key", None)),
        ({}, {"messages": []}, ("BadRequestError", 400, "invalid_value", "messages")),
    ],
    ids=["model", "key", "type"],
)
def test_errors_have_the_client_s_own_classes(js, mode, scenario, client, fields, wanted) -> None:
    if mode == "off" and "messages" in fields:
        pytest.skip("off leaves types to the upstream")
    error = js.run(scenario, client=client, body=quiet(mode, **fields))["error"]
    got = (error["name"], error["status"], error.get("code"), error.get("param"))
    # Of a model that nobody has it is the upstream that speaks in mode off.
    assert got == ((*wanted[:2], 404, wanted[3]) if mode == "off" and "model" in fields else wanted)
    assert error["requestID"]


def test_an_upstream_that_fails_in_mid_stream(js, up) -> None:
    up.default = Reply("one two three", fault=Fault.ERROR_FRAME, after=2)
    seen = js.run("stream", body=quiet("steer"))
    assert text_of(seen["chunks"]) == "one "
    assert seen["error"]["name"] == "APIError"


@pytest.mark.parametrize("by", ["abort", "break"])
@pytest.mark.parametrize("mode", ["off", "steer"])
async def test_leaving_a_stream_ends_the_upstream_call(js, up, namespace, mode, by) -> None:
    up.default = Reply("one two three four", fault=Fault.HANG, after=2)
    body = ask(mode, ttcl={"namespace": namespace})
    with js.running("leave", body=body, after=2, by=by) as process:
        assert json.loads(process.stdout.readline()) == {"seen": 2}
        left = time.monotonic()
        await up.until(lambda: up.chats[0].aborted is not None, within=2.0)
        assert up.chats[0].aborted - left < 1.0
        assert process.poll() is None, "the process's end would close the connection as well"
    assert len(up.chats) == 1
    assert js.gateway.rules(namespace) == []


async def test_a_client_that_waits_no_longer(js, up, mode, namespace) -> None:
    up.when(lambda body: not is_structured_step(body), Reply(delay=30))
    body = ask(mode, ttcl={"namespace": namespace})
    error = js.run("answer", client={"timeout": 500}, body=body)["error"]
    assert error["name"] == "APIConnectionTimeoutError"
    await up.settled(2.0)
    assert any(call.aborted is not None for call in up.chats)
    assert not any(is_distiller(call.body) for call in up.chats)


@pytest.mark.parametrize("mode", ["steer", "explore"])
async def test_its_own_retry_teaches_once(js, up, mode, namespace) -> None:
    up.default = Reply("the answer is 7")
    seen = js.run("retry", body=ask(mode, ttcl={"namespace": namespace}))
    assert seen["answer"]["choices"][0]["message"]["content"] == "the answer is 7"
    assert [attempt["retry"] for attempt in seen["attempts"]] == ["0", "1"]
    for attempt in seen["attempts"]:
        js.gateway.settled(attempt["episode"])
    await up.settled()
    assert sum(is_distiller(call.body) for call in up.chats) == 1
    assert {rule["frequency"] for rule in js.gateway.rules(namespace)} == {1}


def test_feedback_on_an_episode(js, up) -> None:
    episode = js.run("answer", body=quiet("steer"))["headers"]["x-ttcl-episode"]
    seen = js.run("feedback", body={"episode_id": episode, "score": 1})
    assert "error" not in seen
    kept = js.gateway.episode(episode)["feedback"]
    assert [each["score"] for each in kept] == [1]


def test_the_lines_of_the_documents(js, up) -> None:
    up.default = Reply("\\boxed{84}")
    (lines,) = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    own = {
        "http://127.0.0.1:8080/v1": js.gateway.base_url,
        "unused without TTCL_API_KEYS": CLIENT_KEY,
        "SmolLM2-135M-Instruct": MODEL,
    }
    for shown, used in own.items():
        assert lines.count(shown) == 1, shown
        lines = lines.replace(shown, used)
    command = [js.node, "--input-type=module", "--eval", lines]
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=SCENARIO_SECONDS
    )
    assert done.returncode == 0, done.stderr
    text, episode = done.stdout.split()
    assert text == "84"
    asked = js.gateway.settled(episode)
    assert (asked["mode"], asked["namespace"]) == ("explore", "arithmetic")


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    locked = [package for name, package in packages.items() if name]
    assert locked
    assert all("resolved" not in each and each["integrity"] for each in locked)
