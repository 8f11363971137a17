"""The embedded engine for real: what the gateway relies on when it talks to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.engine.supervisor import EngineState, EngineSupervisor
from tests.app.engine.loop_schemas import LOOP_SCHEMAS, form
from tests.app.engine.test_supervisor import until
from tests.engine_fixture import MODEL

pytestmark = pytest.mark.engine


@pytest.fixture
def client(embedded_engine: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=embedded_engine, timeout=120) as client:
        yield client


def ask(text: str, **params: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **params}


def answer(client: httpx.Client, text: str, **params: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json=ask(text, **params))
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


def test_models_say_name_and_context(client: httpx.Client) -> None:
    [model] = client.get("/v1/models").json()["data"]
    assert model["id"] == MODEL
    assert model["owned_by"] == "llamacpp"
    assert model["meta"]["n_ctx"] >= 4096
    assert client.get("/props").json()["total_slots"] == 4


def test_logprobs_cover_the_text(client: httpx.Client) -> None:
    choice = answer(
        client, "Say hello.", max_tokens=12, temperature=0, logprobs=True, top_logprobs=1
    )
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(entry["logprob"] <= 0 for entry in entries)


def test_seed_repeats(client: httpx.Client) -> None:
    def story(seed: int) -> str:
        text: str = answer(client, "Tell a story.", max_tokens=24, temperature=1, seed=seed)[
            "message"
        ]["content"]
        return text

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_schema_with_pattern_constrains(client: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"},
            "short": {"type": "string", "maxLength": 12},
        },
        "required": ["code", "short"],
        "additionalProperties": False,
    }
    text = answer(
        client, "A code and a word.", max_tokens=80, temperature=0, response_format=form(schema)
    )
    parsed = json.loads(text["message"]["content"])
    head, _, tail = parsed["code"].partition("-")
    assert head.isupper()
    assert len(head) == 3
    assert tail.isdigit()
    assert len(parsed["short"]) <= 12


@pytest.mark.parametrize("schema", LOOP_SCHEMAS)
def test_what_the_loop_asks_for_is_taken(client: httpx.Client, schema: dict[str, Any]) -> None:
    answer(client, "Some advice.", max_tokens=2, temperature=0, response_format=form(schema))


@pytest.mark.parametrize("stream", [False, True])
def test_overlong_prompt_is_refused(client: httpx.Client, stream: bool) -> None:
    response = client.post("/v1/chat/completions", json=ask("word " * 9000, stream=stream))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "exceed_context_size_error"
    assert "context size" in error["message"]


def test_prompts_are_counted(client: httpx.Client) -> None:
    counted = client.post("/v1/chat/completions/input_tokens", json=ask("Hello")).json()
    used = client.post("/v1/chat/completions", json=ask("Hello", max_tokens=1)).json()["usage"]
    assert counted["input_tokens"] == used["prompt_tokens"]
    assert len(client.post("/tokenize", json={"content": "Hello world"}).json()["tokens"]) == 2


def test_a_prefix_is_used_again(client: httpx.Client) -> None:
    long = "The quick brown fox jumps over the lazy dog. " * 20
    for question in ("one", "two"):
        body = ask(question, max_tokens=1)
        body["messages"].insert(0, {"role": "system", "content": long})
        usage = client.post("/v1/chat/completions", json=body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 150


async def test_client_that_goes_away_ends_a_streamed_call(embedded_engine: str) -> None:
    async with httpx.AsyncClient(base_url=embedded_engine, timeout=60) as client:

        async def busy() -> int:
            slots = (await client.get("/slots")).json()
            return sum(slot["is_processing"] for slot in slots)

        body = ask("Tell a long story.", max_tokens=3000, stream=True, ignore_eos=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.aiter_lines()
            for _ in range(10):
                await anext(lines)
            assert await busy() == 1
        for _ in range(100):
            if not await busy():
                return
        pytest.fail("the call goes on")


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[EngineSupervisor]:
    engine = EngineSupervisor(backend="llama", model=None, data_dir=tmp_path)
    yield engine
    await engine.stop()


async def test_supervised_engine_survives_a_kill(supervisor: EngineSupervisor) -> None:
    await supervisor.start()
    await supervisor.wait_ready()
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.restarts == 1 and supervisor.state is EngineState.READY, 60)
    assert supervisor.pid != first
    async with httpx.AsyncClient(base_url=supervisor.base_url, timeout=60) as client:
        response = await client.post("/v1/chat/completions", json=ask("Hi", max_tokens=2))
    assert response.status_code == 200


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_ready_line_and_clean_stop(signum: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.engine", "serve", "--port", "0", "--alias", "mine"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready"
    assert ready["model"] == "mine"
    assert httpx.get(f"{ready['url']}/health").status_code == 200
    process.send_signal(signum)
    assert process.wait(timeout=10) == 0


def test_ends_when_its_input_closes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.engine", "serve", "--port", "0", "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdin.close()
    assert process.wait(timeout=10) == 0
