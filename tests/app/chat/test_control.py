"""The control group in the path of a request: drawn, marked, given nothing, and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.chat.call import ChatCall
from app.chat.control import STEERING_SUSPENDED, conversation_key
from rules_store.models.events import Change
from rules_store.models.evidence import Signal
from rules_store.policy.control import Arm
from rules_store.policy.effect import EffectVerdict
from tests.app.chat.test_experience import QUESTION, Service, running
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import ADMIN_KEY, MODEL

WHY = Change("tests", "arranged")
RULE = "Say the number of the ticket."


@pytest.fixture
async def service(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(upstream, tmp_path, control_rate=0.5) as found:
        await found.rule(RULE)
        yield found


def of_arm(service: Service, arm: Arm, kind: str = "conversation") -> str:
    """A name that is drawn so."""
    names = (f"name {number}" for number in range(1000))
    return next(
        n for n in names if service.store.effect.assign("default", f"{kind}:{n}").arm is arm
    )


async def test_control_is_given_nothing_and_says_so(service: Service) -> None:
    name = of_arm(service, Arm.CONTROL)
    answer = await service.ask(metadata={"conversation_id": name})
    told = answer.json()["ttcl"]
    assert answer.headers["x-ttcl-arm"] == told["arm"] == "control"
    assert (told["rules"], told["given"], answer.headers["x-ttcl-rules"]) == ([], "none", "")
    assert told["degraded"] is None
    assert service.sent == [{"role": "user", "content": QUESTION}]
    episode = await service.store.episodes.get(told["episode"])
    assert episode.trace["arm"] == {"name": "control", "control": 0.5}
    report = await service.store.effect.report("default")
    use = report.by_arm[Arm.CONTROL]
    # There was something to give: its outcome is one to compare.
    assert (use.requests, use.offered) == (1, 1)


async def test_steered_requests_are_marked_too(service: Service) -> None:
    answer = await service.ask(metadata={"conversation_id": of_arm(service, Arm.STEERED)})
    assert answer.headers["x-ttcl-arm"] == "steered"
    assert len(answer.json()["ttcl"]["rules"]) == 1
    report = await service.store.effect.report("default")
    assert report.by_arm[Arm.STEERED].prompt_tokens
    (day,) = await service.store.effect.spend("default")
    assert day.steered_requests == 1
    assert day.experience_tokens > 10


async def test_all_turns_of_a_conversation_share_an_arm(service: Service) -> None:
    for kind, named in (
        ("conversation", lambda name: {"metadata": {"conversation_id": name}, "user": "one"}),
        ("user", lambda name: {"user": name}),
        ("opening", lambda name: {"messages": [{"role": "user", "content": name}]}),
    ):
        for arm in Arm:
            fields: dict[str, Any] = named(of_arm(service, arm, kind))
            turns = [
                *fields.pop("messages", [{"role": "user", "content": QUESTION}]),
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "and what then?"},
            ]
            first = await service.ask(turns[:1], **fields)
            later = await service.ask(turns, **fields)
            assert first.headers["x-ttcl-arm"] == later.headers["x-ttcl-arm"] == arm.value


@pytest.mark.parametrize(
    "given", [{"metadata": 3}, {"metadata": {"conversation_id": []}}, {"user": {}}]
)
async def test_names_that_are_none_are_passed_over(service: Service, given: dict[str, Any]) -> None:
    plain = await service.ask()
    assert (await service.ask(**given)).headers["x-ttcl-arm"] == plain.headers["x-ttcl-arm"]


async def test_what_comes_of_control_is_credited_to_nothing(service: Service) -> None:
    name = of_arm(service, Arm.CONTROL)
    answer = await service.ask(metadata={"conversation_id": name}, ttcl={"learn": True})
    told = {"episode_id": answer.headers["x-ttcl-episode"], "verified": True}
    assert (await service.http.post("/v1/feedback", json=told)).status_code == 201
    (rule,) = (await service.store.rules.list()).items
    found = await service.store.evidence.of_rule(rule.id)
    assert found.exposures == []
    assert found.standing is None or not found.standing.measured
    await service.store.context.caches.catch_up()
    vector = (await service.embedder.embed([QUESTION]))[0]
    assert service.store.evidence.beliefs_near("default", vector).size == 0
    (verified,) = (await service.store.effect.report("default")).signals
    assert verified.signal is Signal.VERIFIER
    assert verified.state.control.total == 1.0
    # It teaches, as the outcome of any request does.
    assert (await service.store.examples.list()).total == 1


async def test_off_is_not_drawn_for(service: Service) -> None:
    answer = await service.ask(ttcl={"mode": "off"})
    assert "x-ttcl-arm" not in answer.headers


async def test_a_suspended_namespace_is_not_steered(service: Service) -> None:
    for number in range(100):
        answer = await service.ask(user=f"user {number}")
        if service.store.effect.suspended():
            break
        right = answer.headers["x-ttcl-arm"] == "control"
        told = {"episode_id": answer.headers["x-ttcl-episode"], "verified": right}
        await service.http.post("/v1/feedback", json=told)
    answer = await service.ask(user=of_arm(service, Arm.STEERED, "user"))
    assert answer.json()["ttcl"]["degraded"] == [STEERING_SUSPENDED]
    assert answer.headers["x-ttcl-degraded"] == STEERING_SUSPENDED
    assert answer.json()["ttcl"]["arm"] is None
    assert answer.json()["ttcl"]["rules"] == []
    report = await service.store.effect.report("default")
    assert report.verdict is EffectVerdict.HARMS
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    metrics = await service.http.get("/metrics", headers=admin)
    assert 'ttcl_steering_suspended{namespace="default"} 1.0' in metrics.text
    await service.store.effect.resume("default", change=WHY)
    answer = await service.ask(user=of_arm(service, Arm.STEERED, "user"))
    assert len(answer.json()["ttcl"]["rules"]) == 1


async def test_an_exploration_in_control_has_no_rules(
    service: Service, upstream: ScriptedUpstream
) -> None:
    upstream.when(lambda body: True, Reply("The answer is 84."))
    name = of_arm(service, Arm.CONTROL)
    answer = await service.ask(metadata={"conversation_id": name}, ttcl={"mode": "explore"})
    assert answer.headers["x-ttcl-arm"] == "control"
    assert all(RULE not in call.text for call in upstream.chats)


ODD = (r'"\ud800"', r'[{"type": "text", "text": "\ud800 and"}]', "[1e400]")


@pytest.mark.parametrize("content", ODD)
async def test_no_content_is_too_odd_to_be_drawn_for(service: Service, content: str) -> None:
    raw = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": {content}}}]}}'
    answer = await service.http.post("/v1/chat/completions", content=raw.encode())
    assert answer.status_code < 500, answer.text


def key_of(content: Any, **body: Any) -> str:
    messages = [{"role": "user", "content": content}]
    return conversation_key(
        cast(ChatCall, SimpleNamespace(body=body, fields=body, messages=messages))
    )


def image(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def test_conversations_differ_by_their_images() -> None:
    text = {"type": "text", "text": "What is this?"}
    shown = [key_of([text, image("A" * 50_000 + end)]) for end in ("xyz", "abc")]
    assert shown[0] != shown[1]
    assert key_of([text, image("A" * 50_000 + "xyz")]) == shown[0]


@pytest.mark.parametrize(
    "content",
    [
        "\n" * 1_000_000,
        [{"type": "text", "text": "x" * 500}] * 30_000,
        [{str(number): number for number in range(100_000)}],
        [image("\ud800" * 1_000_000)],
    ],
)
def test_what_a_conversation_goes_by_is_short(content: Any) -> None:
    assert len(key_of(content)) < 1_000_000
    named = key_of("short", metadata={"conversation_id": "x" * 1_000_000})
    assert len(named) < 10_000
    assert len(key_of("short", user="x" * 1_000_000)) < 10_000
