"""The whole loop on a real model server with real embeddings: answers, learns and steers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.loop.explore.explorer import TOO_FEW_WORDINGS
from tests.compat.helpers import check_stream_shape
from tests.e2e.service import service
from tests.gateway import Gateway

MODEL = "SmolLM2-135M-Instruct"
QUESTIONS = (
    "A shelf holds 6 boxes and each box holds 12 pencils. How many pencils are on the shelf?",
    "Tom had 40 marbles and gave 15 of them to his sister. How many marbles does Tom have left?",
    "A ticket costs 7 dollars. How many dollars do 5 tickets cost?",
    "A train travels 60 kilometres in one hour. How far does it travel in 3 hours?",
    "A baker made 48 rolls and packed them in bags of 6. How many bags did she fill?",
    "What is the capital of France?",
    "Which planet is known as the red planet?",
    "Mia reads 20 pages a day. How many pages does she read in a week?",
    "A shirt costs 30 dollars and is sold at half price. What does it cost now?",
    "There are 3 red, 4 blue and 5 green balls in a bag. How many balls are in the bag?",
    "What is the chemical symbol for water?",
    "A rope of 20 metres is cut into 4 equal pieces. How long is each piece?",
)
ENGINES = [
    pytest.param("embedded_engine", marks=pytest.mark.engine, id="llama"),
    pytest.param("vllm_server", marks=pytest.mark.vllm, id="vllm"),
]


@pytest.fixture(scope="module", params=ENGINES)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    url = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("service")
    # Not cut short, however busy the machine is.
    with service(folder, within=120, upstream_base_url=url, explore_wait="600") as (running, _):
        yield running


def body(question: str, mode: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 160,
        "ttcl": {"mode": mode, "namespace": "real"},
        **fields,
    }


async def test_it_learns_from_one_question_and_steers_the_next(gateway: Gateway) -> None:
    active: list[dict[str, Any]] = []
    for question in QUESTIONS:
        answer = await gateway.post(body(question, "explore"))
        assert answer.status_code == 200, answer.text
        told = answer.json()["ttcl"]
        assert told["degraded"] is None or set(told["degraded"]) <= {TOO_FEW_WORDINGS}
        episode = gateway.settled(told["episode"], within=180)
        assert episode["status"] in ("learned", "skipped"), episode["reason"]
        assert len(episode["trajectories"]) == 4
        active = [rule for rule in gateway.rules("real") if rule["state"] == "active"]
        if active:
            break
    assert active, "no question taught a rule"
    assert active[0]["source_episode"] == told["episode"]

    similar = question.replace("?", ", please?")
    answer = await gateway.post(body(similar, "steer", ttcl={"namespace": "real", "learn": False}))
    injected = answer.headers["x-ttcl-rules"].split(",")
    assert set(injected) & {rule["id"] for rule in active}
    trace = gateway.episode(answer.headers["x-ttcl-episode"])
    assert trace is not None
    sent = str(trace["messages_sent"])
    assert all(rule["text"] in sent for rule in trace["rules_injected"])


@pytest.mark.parametrize("mode", ["off", "steer", "explore"])
async def test_01_and_02_streams_of_a_real_server(gateway: Gateway, mode: str) -> None:
    ask = body("Name three colours of the rainbow.", mode, max_tokens=40)
    ask["ttcl"] |= {"learn": False, "namespace": "streams"}
    stream = await gateway.sse(ask)
    check_stream_shape(stream.frames, MODEL)
    assert stream.done == 1
    assert stream.errors() == []
    assert sum(bool(c["delta"].get("content")) for c in stream.choices()) > 1
    if mode == "explore":
        assert stream.comments


async def test_an_overlong_prompt_is_a_400_that_says_so(gateway: Gateway) -> None:
    answer = await gateway.post(body("word " * 20_000, "steer"))
    assert answer.status_code == 400, answer.text
    assert "context" in answer.json()["error"]["message"].lower()


@pytest.mark.engine
async def test_the_embedded_model_is_started_watched_and_stopped(tmp_path: Path) -> None:
    with service(tmp_path, within=120) as (gateway, process):
        answer = await gateway.post(body("What is two plus two?", "steer", max_tokens=20))
        assert answer.status_code == 200, answer.text
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        before = children.read_text().split()
        assert before
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
