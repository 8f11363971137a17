"""The gated policy in a running gateway: rules that prove their worth before they steer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.trajectory import Observation, Role, Trajectory
from app.learning.evaluation.gatekeeper import worth_distilling
from app.loop.effort import Effort, effort
from app.loop.effort_planner import EffortPlanner
from rules_store.models.evidence import Neighbour
from rules_store.store import RuleStore
from tests.compat.helpers import QUESTION
from tests.fakes import (
    HashEmbedder,
    Reply,
    ScriptedUpstream,
    is_distiller,
    is_student,
    is_teacher,
    is_tutor,
)
from tests.gateway import MODEL, Gateway, running_gateway

RULE = "Check every subtraction by adding the parts back together."
COUNTS = "one two three four five six eight nine ten eleven twelve thirteen".split()  # noqa: SIM905


def question(number: int) -> str:
    return f"How many apples are left when {COUNTS[number]} of the apples in the basket are eaten?"


@pytest.fixture
def up() -> Iterator[ScriptedUpstream]:
    """Its Teacher is wrong without the rule, its Students never; one rule is distilled, once."""
    with ScriptedUpstream() as upstream:
        right, wrong = Reply("So \\boxed{7}."), Reply("So \\boxed{17}.")
        learned: list[int] = []

        def distil(body: dict[str, Any]) -> Reply:
            learned.append(1)
            text = RULE if len(learned) == 1 else ""
            return Reply.of_json({"positive": text, "negative": "", "trigger": "what is left"})

        upstream.when(is_tutor, Reply.of_json({"variants": []}))
        upstream.when(is_distiller, distil)
        upstream.when(is_student, right)
        upstream.when(lambda body: is_teacher(body) and RULE in str(body["messages"]), right)
        upstream.when(is_teacher, wrong)
        yield upstream


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
def gw(up: ScriptedUpstream, settings: dict[str, Any]) -> Iterator[Gateway]:
    given = {"policy": "gated", "similarity_floor": -1.0, "gate_calls_per_answer": 4, **settings}
    with running_gateway(up, **given) as gateway:
        yield gateway


async def ask(gw: Gateway, number: int, mode: str = "explore", **ttcl: Any) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question(number)}],
        "ttcl": {"mode": mode, "task": "closed", **ttcl},
    }
    response = await gw.post(body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def rule_of(gw: Gateway) -> dict[str, Any]:
    (rule,) = gw.rules("default")
    return rule


def until(condition: Any, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_rule_steers_when_it_has_proven_its_worth(
    gw: Gateway, up: ScriptedUpstream
) -> None:
    first = await ask(gw, 0)
    gw.settled(first["ttcl"]["episode"])
    rule = rule_of(gw)
    assert (rule["state"], rule["lift"]) == ("candidate", None)
    assert (await ask(gw, 1, "steer"))["ttcl"]["rules"] == []
    for number in range(2, 8):
        gw.settled((await ask(gw, number))["ttcl"]["episode"])
    until(lambda: rule_of(gw)["state"] == "active")

    found = gw.admin("GET", f"/rules/{rule['id']}/evidence").json()
    assert (found["proven"], found["verdict"]) == (True, "helpful")
    assert found["lift"]["low"] < found["lift"]["mean"] < found["lift"]["high"]
    assert found["lift"]["mean"] > 0
    taught = first["ttcl"]["episode"]
    assert [link["id"] for link in found["links"] if link["kind"] == "source"] == [taught]
    assert all(trial["episode_id"] != taught for trial in found["trials"])
    assert {(t["with_rule"], t["without_rule"]) for t in found["trials"]} == {(1.0, 0.0)}
    (event,) = [
        event
        for event in gw.admin("GET", f"/rules/{rule['id']}").json()["history"]
        if event["kind"] == "rule.promoted"
    ]
    assert event["actor"] == "gate"

    for params, total in (({"min_lift": 0.0}, 1), ({"max_lift": -0.01}, 0)):
        assert gw.admin("GET", "/rules", params=params).json()["total"] == total
    explained = gw.admin(
        "POST", "/rules:explain", json={"namespace": "default", "text": question(9)}
    ).json()
    (candidate,) = explained["candidates"]
    assert (candidate["verdict"], explained["hold_out"]) == ("injected", 0.1)
    assert candidate["lift"] == found["lift"]

    used = [await ask(gw, number, "steer") for number in range(9, 12)]
    assert any(answer["ttcl"]["rules"] for answer in used)


@pytest.mark.parametrize("settings", [{"hold_out_rate": 1.0}])
async def test_a_withheld_rule_is_recorded_and_gets_the_outcome(gw: Gateway) -> None:
    rule = gw.add_rule("default", RULE, "what is left")
    answer = {}
    for number in range(10):
        answer = await ask(gw, number, "steer", learn=False)
        episode = gw.episode(answer["ttcl"]["episode"]) or {}
        if "rule_withheld" in episode:
            break
    assert answer["ttcl"]["rules"] == []
    assert episode["rule_withheld"]["id"] == rule["id"]
    told = {"episode_id": episode["id"], "verified": False}
    assert (await _feedback(gw, told)) == 201
    found = gw.admin("GET", f"/rules/{rule['id']}/evidence").json()
    exposure = found["exposures"][0]
    assert (exposure["withheld"], exposure["position"]) == (True, None)
    assert exposure["outcome"] == {"source": "verifier", "value": 0.0, "weight": 1.0}
    assert found["without_rule"]["misses"] == pytest.approx(1.0)
    assert found["with_rule"]["misses"] == 0.0


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"label": "7"}, 1.0),
        ({"label": "8"}, 0.0),
        ({"score": 0.4}, 0.4),
        ({"verified": True}, 1.0),
    ],
)
async def test_feedback_becomes_evidence(gw: Gateway, said: dict[str, Any], value: float) -> None:
    rule = gw.add_rule("default", RULE, "what is left")
    for number in range(10):
        answer = await ask(gw, number, "explore", learn=False)
        if answer["ttcl"]["rules"]:
            break
    assert (await _feedback(gw, {"episode_id": answer["ttcl"]["episode"], **said})) == 201
    found = gw.admin("GET", f"/rules/{rule['id']}/evidence").json()
    assert found["exposures"][0]["outcome"]["value"] == value


async def _feedback(gw: Gateway, body: dict[str, Any]) -> int:
    import httpx

    from tests.gateway import NO_TLS

    async with httpx.AsyncClient(verify=NO_TLS) as http:
        sent = await http.post(f"{gw.base_url}/feedback", json=body, headers=gw.headers)
        return sent.status_code


async def test_a_namespace_has_its_own_policy(gw: Gateway) -> None:
    gw.settled((await ask(gw, 0, namespace="loose", learn=False))["ttcl"]["episode"])
    change = {"settings": {"policy": "paper"}, "actor": "kim", "reason": "a reproduction"}
    assert gw.admin("PATCH", "/namespaces/loose", json=change).status_code == 200
    gw.settled((await ask(gw, 1, namespace="loose"))["ttcl"]["episode"])
    (rule,) = gw.rules("loose")
    assert rule["state"] == "active"


async def test_what_agrees_is_explored_with_two_calls_and_then_with_one(
    gw: Gateway, up: ScriptedUpstream
) -> None:
    up.reset()
    up.default = Reply("So \\boxed{7}.")
    spent = []
    for number in range(12):
        answer = await ask(gw, number)
        gw.settled(answer["ttcl"]["episode"])
        spent.append(answer["ttcl"]["cost"]["calls"])
    assert spent[0] == 2
    assert set(spent) == {1, 2}


# -- the plan


def near(*agreements: float) -> list[Neighbour]:
    return [Neighbour(f"ep_{n}", 0.9, value) for n, value in enumerate(agreements)]


def plan(neighbours: list[Neighbour], overall: float | None = None, lot: float = 0.5) -> Effort:
    return effort(neighbours, overall, confidence=0.9, lot=lot)


def test_how_much_is_explored_follows_from_agreement_nearby() -> None:
    assert not plan(near(0.75, 0.8, 0.85, 0.75)).explore
    assert plan(near(0.75, 0.8, 0.85, 0.75), lot=0.05).explore, "now and then all the same"
    assert plan(near(0.75, 0.8, 0.85)).explore, "too few"
    assert plan(near(0.75, 0.8, 0.85, 0.5)).explore
    assert not plan([]).sure(2, 0), "two answers say little where nothing is known"
    assert plan(near(0.8, 0.8, 0.8)).sure(2, 0)
    assert not plan(near(0.4, 0.4, 0.4)).sure(2, 0)
    assert plan([], overall=0.8).sure(2, 0)
    assert not plan(near(0.8, 0.8, 0.8)).sure(1, 0)
    assert not plan(near(0.8, 0.8, 0.8)).sure(2, 2)
    assert Effort(True).sure(2, 0), "as it is set by default, two that agree will do"


@pytest.mark.parametrize(
    ("leading", "next_best", "answers", "outstanding", "idle"),
    [
        (1, 1, 2, 2, False),
        (2, 1, 3, 1, True),  # a tie at most
        (2, 1, 3, 2, False),  # the other one may still win
        (1, 1, 3, 1, True),  # three answers: none can get three of four votes
        (1, 1, 3, 2, False),
        (2, 2, 4, 1, False),
        (1, 0, 1, 2, False),
    ],
)
def test_a_patient_exploration_ends_when_more_votes_are_of_no_use(
    leading: int, next_best: int, answers: int, outstanding: int, idle: bool
) -> None:
    assert Effort(True, patient=True).idle(leading, next_best, answers, outstanding) is idle
    assert not Effort(True).idle(leading, next_best, answers, outstanding)


async def test_a_tutor_of_no_use_is_spared_but_not_forgotten(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    store = await RuleStore.open(
        f"sqlite:///{tmp_path / 'store.db'}", embedding_model=embedder.name
    )
    planner = EffortPlanner(store, embedder, enabled=True, confidence=0.85)
    answered = [Trajectory(Role.STUDENT, index, QUESTION, text="7") for index in (1, 2)]

    async def asked(problem: str | None) -> int:
        """How many of forty explorations ask the Tutor, after eight that ended so."""
        problems = () if problem is None else (problem,)
        for _ in range(8):
            planner.note("n", Effort(True), answered, problems)
        plans = [await planner.plan(observation(f"ep_{n}")) for n in range(40)]
        return sum(plan is not None and plan.tutor for plan in plans)

    planner.note("n", Effort(True), answered[:1], ("tutor_failed",))  # it was not asked
    assert await asked(None) == 40
    assert 0 < await asked("tutor_gave_too_few") < 15
    assert await asked(None) == 40
    await store.close()


def observation(episode: str) -> Observation:
    return Observation(episode_id=episode, namespace="n", model="m", messages=(), question=QUESTION)


def test_rules_are_written_down_as_fast_as_they_can_be_tried() -> None:
    def share(waiting: int) -> float:
        return sum(worth_distilling(waiting, seed=str(n)) for n in range(400)) / 400

    assert share(3) == 1.0
    assert share(6) == pytest.approx(0.5, abs=0.1)
    assert 0 < share(30) < 0.2
