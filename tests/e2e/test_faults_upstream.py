"""A model server that misbehaves, beyond what tests/compat/test_errors.py holds: answers without
end, and every fault while something is being learned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.upstream import sse, transport
from tests.compat.helpers import ask, check_error, script_majority
from tests.compat.test_concurrency import (
    SUBJECTS,
    check_index_parity,
    question_about,
    script_learning,
)
from tests.fakes import Fault, Reply, ScriptedUpstream, is_distiller
from tests.gateway import Gateway, running_gateway

ENDLESS = Reply(fault=Fault.ENDLESS)
FAULTS = {
    "refuses": Reply(fault=Fault.REFUSE),
    "hangs": Reply(fault=Fault.HANG),
    "429": Reply.error(429, "slow down", headers={"Retry-After": "1"}),
    "500": Reply.error(500),
    "cuts": Reply("a few words of an answer", fault=Fault.CUT, after=3),
    "garbage": Reply(fault=Fault.GARBAGE),
    "wrong JSON": Reply(fault=Fault.WRONG_JSON),
    "endless": ENDLESS,
}


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    options = {
        "upstream_timeout": 0.5,
        "explore_timeout": 2.0,
        "students": 2,
        "learn_concurrency": 16,
        "learn_call_concurrency": 16,
        "job_attempts": 20,
        "embedding_timeout": 30.0,
    }
    with running_gateway(upstream, **options) as running:
        yield running


async def check_over(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """No call is left open, and the next request is none the worse."""
    await upstream.settled(2.0)
    assert gateway.app.state.ttcl.upstream.gate.foreground_calls == 0
    upstream.default = Reply("Fine.")
    answer = await gateway.post(ask("off"))
    assert answer.status_code == 200, answer.text


async def test_a_body_without_end_is_a_502(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_BODY", 2**20)
    upstream.default = ENDLESS
    for mode in ("off", "steer"):
        answer = await gateway.post(ask(mode))
        assert answer.status_code == 502
        assert "no end" in check_error(answer.json())["message"]
    await check_over(gateway, upstream)
    episode = only(gateway)
    assert (episode["status"], episode["reason"]) == ("skipped", "upstream_error:502")


def only(gateway: Gateway) -> dict[str, Any]:
    (episode,) = gateway.admin("GET", "/episodes").json()["data"]
    return dict(episode)


async def test_a_stream_without_end_ends_with_an_error(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_CHARACTERS", 20_000)
    upstream.default = ENDLESS
    for mode in ("off", "steer"):
        stream = await asyncio.wait_for(gateway.sse(ask(mode)), 20)
        (error,) = stream.errors()
        assert "no end" in check_error({"error": error})["message"]
        assert (stream.done, stream.after_done, stream.finishes()) == (1, [], [])
        assert len(stream.text()) > 19_000, "what was made until then is the client's"
    await check_over(gateway, upstream)
    assert only(gateway)["reason"] == "answer_incomplete"


async def test_an_exploration_of_answers_without_end(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """With a limit of the client's it is kept for the model server; without one the time ends."""
    upstream.default = ENDLESS
    limited = await asyncio.wait_for(gateway.post(ask("explore", max_tokens=50)), 20)
    assert limited.status_code == 200, limited.text
    assert limited.json()["choices"][0]["finish_reason"] == "length"
    unlimited = await asyncio.wait_for(gateway.post(ask("explore")), 20)
    assert unlimited.status_code in (200, 504)
    if unlimited.status_code == 504:
        check_error(unlimited.json())
    await check_over(gateway, upstream)
    listed = gateway.admin("GET", "/episodes").json()["data"]
    assert {each["status"] for each in listed} == {"skipped"}
    assert all(each["reason"] for each in listed)


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.WRONG_JSON], ids=str)
async def test_nonsense_in_place_of_a_stream(
    gateway: Gateway, upstream: ScriptedUpstream, fault: Fault
) -> None:
    upstream.default = Reply(fault=fault)
    for mode in ("off", "steer", "explore"):
        stream = await gateway.sse_or_error(ask(mode))
        check_error(stream.envelope)
        assert stream.status in (200, 502)
    await check_over(gateway, upstream)
    for episode in gateway.admin("GET", "/episodes").json()["data"]:
        assert (episode["status"], bool(episode["reason"])) == ("skipped", True)


def until_first_tries_are_over(gateway: Gateway) -> None:
    deadline = time.monotonic() + 20
    while True:
        jobs = gateway.admin("GET", "/jobs", params={"limit": "100"}).json()["data"]
        if all(job["last_error"] or job["state"] == "done" for job in jobs):
            return
        assert time.monotonic() < deadline, jobs
        time.sleep(0.05)


async def test_a_server_that_hangs_for_longer_than_an_exploration(
    upstream: ScriptedUpstream,
) -> None:
    broken = True
    hang = Reply(fault=Fault.HANG)
    upstream.when(lambda body: broken and "temperature" in body, hang)
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    with running_gateway(upstream, explore_timeout=0.5, students=2) as gateway:
        answer = await gateway.post(ask("steer", question_about(SUBJECTS[0])))
        await asyncio.to_thread(until_first_tries_are_over, gateway)
        broken = False
        episode = answer.headers["x-ttcl-episode"]
        settled = await asyncio.to_thread(gateway.settled, episode, 30)
        assert settled["status"] == "learned", settled["reason"]
        check_index_parity(gateway, 2)


async def test_whatever_happens_while_learning_each_job_ends_once(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Each fault strikes the exploration of one question and the distillation of another, until
    it is over; nobody looks after anything."""
    broken = True
    struck: set[str] = set()
    plan = {}
    for number, (name, reply) in enumerate(FAULTS.items()):
        for offset, step in enumerate(("explore", "distil")):
            plan[SUBJECTS[2 * number + offset]] = (name, step, reply)

    def strikes(subject: str, step: str) -> Any:
        def fits(body: dict[str, Any]) -> bool:
            # The client's own request says nothing of a temperature.
            mine = "temperature" in body and is_distiller(body) == (step == "distil")
            hit = broken and mine and subject in str(body["messages"])
            if hit:
                struck.add(subject)
            return hit

        return fits

    for subject, (_, step, reply) in plan.items():
        upstream.when(strikes(subject, step), reply)
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    requests = [
        gateway.post(ask("steer", question_about(subject), ttcl={"namespace": "faulty"}))
        for subject in plan
    ]
    answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {200}
    await upstream.until(lambda: struck == set(plan), 20)
    # An exploration that is half done when the server comes back would make do with that half.
    await asyncio.to_thread(until_first_tries_are_over, gateway)
    broken = False
    learned = []
    for subject, answer in zip(plan, answers, strict=True):
        name, step, _ = plan[subject]
        episode = answer.headers["x-ttcl-episode"]
        settled = await asyncio.to_thread(gateway.settled, episode, 30)
        if name == "endless":
            # Cut at their limits, such answers are worth nothing to learn from.
            expected = {"explore": "no_contrast:unusable", "distil": "distiller_wrote_nothing"}
            assert (settled["status"], settled["reason"]) == ("skipped", expected[step])
            continue
        assert settled["status"] == "learned", (name, step, settled["reason"])
        learned.append(subject)
    rules = gateway.rules("faulty")
    assert sorted((rule["text"], rule["frequency"]) for rule in rules) == sorted(
        (text, 1)
        for subject in learned
        for text in (
            f"Write {subject} beside every {subject} figure.",
            f"Avoid mixing {subject} with strangers.",
        )
    )
    check_index_parity(gateway, 2 * len(learned))
    await check_over(gateway, upstream)
