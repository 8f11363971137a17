"""Two gateways and their workers on one PostgreSQL: each learns what the other knows."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from rules_store.store import RuleStore
from tests import postgres
from tests.compat.helpers import ask, script_majority
from tests.compat.test_concurrency import (
    COMMON,
    SPACES,
    SUBJECTS,
    check_each_learned_its_own,
    check_index_parity,
    question_about,
    script_learning,
)
from tests.e2e.service import learning_process, service
from tests.fakes import Reply, ScriptedUpstream, is_distiller
from tests.gateway import Gateway

WHO = {"actor": "tests", "reason": "arranged by a test"}


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    with postgres.database(postgres_server) as url:
        yield url


@pytest.fixture
def where(upstream: ScriptedUpstream, database: str) -> dict[str, str]:
    """Settings of a gateway or a worker."""
    return {
        "upstream_base_url": upstream.base_url,
        "embedding_base_url": upstream.base_url,
        "embedding_model": "hash-384",
        "database_url": database,
        "students": "2",
        "job_lease": "2",
        "policy": "paper",
    }


@pytest.fixture
def pair(tmp_path: Path, where: dict[str, str]) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Two gateways, started at once on one empty database: (gateway, process) of each."""
    with ExitStack() as stack:

        def start(**settings: str) -> tuple[Any, Any]:
            made = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                made.append(service(tmp_path / name, **where, **settings))
            # Entered side by side, so that both find a database without tables.
            both = asyncio.run(_enter_all(made))
            for each in made:
                stack.push(each)
            return both[0], both[1]

        yield start


async def _enter_all(contexts: list[Any]) -> list[Any]:
    return await asyncio.gather(*(asyncio.to_thread(each.__enter__) for each in contexts))


def within(seconds: float, condition: Callable[[], bool]) -> float:
    """Seconds until the condition held. Fails when it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def test_a_rule_of_one_steers_the_other_within_a_second(
    pair: Callable[..., tuple[Any, Any]],
) -> None:
    (one, _), (two, _) = pair(learn="false")
    question = question_about("redapples")

    def injected(gateway: Gateway) -> list[str]:
        body = ask("steer", question, ttcl={"namespace": "shared"})
        answer = httpx.post(
            f"{gateway.base_url}/chat/completions", json=body, headers=gateway.headers
        )
        return [name for name in answer.headers["x-ttcl-rules"].split(",") if name]

    assert injected(one) == injected(two) == []
    rule = one.add_rule("shared", "Write down what is left.", question)
    within(1, lambda: injected(two) == [rule["id"]])
    two.admin("POST", f"/rules/{rule['id']}/retire", json=WHO).raise_for_status()
    within(1, lambda: injected(one) == [])


TAUGHT = ("retired", "outdated", "expiring", "forgotten")
"""What becomes of each of the examples of a test."""


def test_an_example_that_has_ended_is_in_no_prompt_of_the_other_a_second_later(
    pair: Callable[..., tuple[Any, Any]], upstream: ScriptedUpstream, database: str
) -> None:
    (one, _), (two, _) = pair(learn_sample_rate="0")
    upstream.default = Reply("\\boxed{7}")
    subjects = dict(zip(TAUGHT, SUBJECTS, strict=False))

    def post(gateway: Gateway, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = httpx.post(f"{gateway.base_url}{path}", json=body, headers=gateway.headers)
        assert answer.status_code in (200, 201), answer.text
        return answer

    def chat(gateway: Gateway, subject: str) -> str:
        body = ask("steer", question_about(subject), ttcl={"namespace": "shared"})
        return post(gateway, "/chat/completions", body).headers["x-ttcl-episode"]

    def taught(subject: str) -> tuple[str, str]:
        """The episode, and the example that feedback has made of it."""
        episode = chat(one, subject)
        label = f"seven {subject}"
        given = {"episode_id": episode, "label": label, "verified": True}
        return episode, post(one, "/feedback", given).json()["effect"]["example"]

    def in_prompt(gateway: Gateway, subject: str) -> bool:
        begun = len(upstream.chats)
        chat(gateway, subject)
        (sent,) = (call.body for call in upstream.chats[begun:])
        # The client asks the question itself.
        return str(sent["messages"]).count(question_about(subject)) > 1

    made = {name: taught(subject) for name, subject in subjects.items()}
    for subject in subjects.values():
        within(1, lambda subject=subject: in_prompt(two, subject))

    def ended(name: str) -> None:
        within(1, lambda: not in_prompt(two, subjects[name]))
        assert not in_prompt(one, subjects[name])

    example = made["retired"][1]
    one.admin("POST", f"/examples/{example}/retire", json=WHO).raise_for_status()
    ended("retired")
    post(one, "/feedback", {"episode_id": made["outdated"][0], "outdated": True})
    ended("outdated")
    path = f"/examples/{made['expiring'][1]}"
    version = one.admin("GET", path).json()["version"]
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    patch = {"expires_at": soon.isoformat(), "expected_version": version, **WHO}
    one.admin("PATCH", path, json=patch).raise_for_status()
    assert in_prompt(two, subjects["expiring"])
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()))
    ended("expiring")
    assert in_prompt(two, subjects["forgotten"])
    example = made["forgotten"][1]
    keep = {"settings": {"retention_days": 30}, **WHO}
    one.admin("PATCH", "/namespaces/shared", json=keep).raise_for_status()
    old = f"UPDATE examples SET verified_at = '2020-01-01' WHERE id = '{example}'"
    postgres.query(database, old)
    assert asyncio.run(_delete_old(database)) == 1
    ended("forgotten")
    assert two.admin("GET", f"/examples/{example}").status_code == 404


async def _delete_old(database: str) -> int:
    """As the sweep of a third gateway does it, once a minute."""
    store = await RuleStore.open(database, embedding_model="hash-384")
    try:
        return await store.examples.delete_old()
    finally:
        await store.close()


async def test_25_fifty_clients_of_two_gateways_of_which_one_is_killed(
    pair: Callable[..., tuple[Any, Any]], upstream: ScriptedUpstream
) -> None:
    (one, _), (two, doomed) = await asyncio.to_thread(pair, learn_concurrency="4")
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    plan = [(SPACES[i % 4], question_about(SUBJECTS[i])) for i in range(40)]
    plan += [(COMMON, question_about("stones"))] * 10

    async def client(number: int, namespace: str, question: str) -> str:
        body = ask(("steer", "explore")[number // 2 % 2], question, ttcl={"namespace": namespace})
        response = await (one, two)[number % 2].post(body)
        assert response.status_code == 200, response.text
        return response.headers["x-ttcl-episode"]

    episodes = await asyncio.gather(*(client(i, *what) for i, what in enumerate(plan)))
    assert len(set(episodes)) == 50
    os.kill(doomed.pid, signal.SIGKILL)
    for episode in episodes:
        settled = await asyncio.to_thread(one.settled, episode, 60)
        assert settled["status"] == "learned", settled["reason"]
    check_each_learned_its_own(one)


async def test_workers_take_over_from_each_other(
    tmp_path: Path, where: dict[str, str], upstream: ScriptedUpstream
) -> None:
    slow = Reply.of_json({"positive": "", "negative": "", "trigger": ""}, delay=30)
    hanging = True
    upstream.when(lambda body: hanging and is_distiller(body), slow)
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    folder = tmp_path / "gateway"
    folder.mkdir()
    with service(folder, **where, learn_concurrency="0") as (gateway, _):
        bodies = [ask("steer", question_about(s), ttcl={"namespace": "n"}) for s in SUBJECTS[:12]]
        answers = await asyncio.gather(*(gateway.post(body) for body in bodies))
        episodes = [answer.headers["x-ttcl-episode"] for answer in answers]
        assert gateway.rules("n") == []
        with learning_process(tmp_path / "doomed", **where, learn_concurrency="4") as doomed:
            await upstream.until(lambda: sum(is_distiller(c.body) for c in upstream.chats) >= 2, 30)
            os.kill(doomed.pid, signal.SIGKILL)
        hanging = False
        with learning_process(tmp_path / "next", **where, learn_concurrency="4"):
            for episode in episodes:
                settled = await asyncio.to_thread(gateway.settled, episode, 60)
                assert settled["status"] == "learned", settled["reason"]
        assert len(gateway.rules("n")) == 24
        assert {r["frequency"] for r in gateway.rules("n")} == {1}


async def test_what_fails_for_good_is_shown_and_can_be_tried_again(
    tmp_path: Path, where: dict[str, str], upstream: ScriptedUpstream
) -> None:
    broken = True
    upstream.when(lambda body: broken and is_distiller(body), Reply.error(503))
    script_learning(upstream)
    script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
    (tmp_path / "gateway").mkdir()
    with (
        service(tmp_path / "gateway", **where, learn_concurrency="0") as (gateway, _),
        learning_process(tmp_path / "worker", **where, job_attempts="2"),
    ):
        body = ask("steer", question_about(SUBJECTS[0]), ttcl={"namespace": "n"})
        episode = (await gateway.post(body)).headers["x-ttcl-episode"]
        settled = await asyncio.to_thread(gateway.settled, episode, 30)
        assert settled["status"] == "failed", settled["reason"]
        (job,) = gateway.admin("GET", "/jobs", params={"state": "failed"}).json()["data"]
        assert job["episode"] == episode
        assert job["last_error"]
        broken = False
        gateway.admin("POST", f"/jobs/{job['id']}/retry", json=WHO).raise_for_status()

        def learned() -> bool:
            return (gateway.episode(episode) or {}).get("status") == "learned"

        await asyncio.to_thread(within, 20, learned)
        # A pause holds in the worker, and what waited goes on after it.
        gateway.admin("POST", "/jobs:pause", json=WHO).raise_for_status()
        body = ask("steer", question_about(SUBJECTS[1]), ttcl={"namespace": "n"})
        waiting = (await gateway.post(body)).headers["x-ttcl-episode"]
        await asyncio.sleep(1.5)
        assert (gateway.episode(waiting) or {})["status"] == "learning"
        gateway.admin("POST", "/jobs:resume", json=WHO).raise_for_status()
        assert (await asyncio.to_thread(gateway.settled, waiting, 30))["status"] == "learned"


async def test_random_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, where: dict[str, str], upstream: ScriptedUpstream
) -> None:
    """Either gateway is killed at any moment, over and over; `TEST_KILLS=200` takes its time."""

    def distil(body: dict[str, Any]) -> Reply:
        (subject,) = set(re.findall(r"many (\w+) remain", str(body["messages"])))
        return Reply.of_json(
            {
                "positive": f"Write {subject} beside every {subject} figure.",
                "negative": f"Avoid mixing {subject} with strangers.",
                "trigger": f"counting {subject}",
            }
        )

    upstream.when(is_distiller, distil)
    script_learning(upstream)
    upstream.when(lambda body: body.get("temperature") == 0.7, Reply("\\boxed{7}", delay=0.03))
    upstream.default = Reply("\\boxed{9}")
    kills = int(os.environ.get("TEST_KILLS", "6"))
    chance = random.Random(11)
    settings = {**where, "job_lease": "1", "job_attempts": "50", "learn_concurrency": "3"}
    asked: dict[str, str] = {}
    names = [f"{first}{second}" for first in SUBJECTS for second in ("", *SUBJECTS)]
    with ExitStack() as stack:
        gateways: dict[int, Gateway] = {}
        processes: dict[int, Any] = {}

        def begin(number: int) -> None:
            folder = tmp_path / str(number)
            folder.mkdir(exist_ok=True)
            gateways[number], processes[number] = stack.enter_context(service(folder, **settings))

        await asyncio.gather(*(asyncio.to_thread(begin, number) for number in (0, 1)))
        for _ in range(kills):
            for number in (0, 1, 0, 1):
                subject = names[len(asked)]
                body = ask("steer", question_about(subject), ttcl={"namespace": "killed"})
                answer = await gateways[number].post(body)
                assert answer.status_code == 200, answer.text
                asked[answer.headers["x-ttcl-episode"]] = subject
            await asyncio.sleep(chance.uniform(0.0, 0.4))
            victim = chance.choice((0, 1))
            processes[victim].kill()
            await asyncio.to_thread(processes[victim].wait, 10)
            await asyncio.to_thread(begin, victim)
        learned = 0
        for episode in asked:
            settled = await asyncio.to_thread(gateways[0].settled, episode, 60)
            assert settled["status"] == "learned" or settled["reason"]
            learned += settled["status"] == "learned"
        rules = gateways[0].rules("killed")
        assert len({rule["text"] for rule in rules}) == len(rules)
        assert {rule["frequency"] for rule in rules} == {1}
        assert len(rules) == 2 * learned
        assert learned >= kills, "most of the jobs must have been learned from"
        for gateway in gateways.values():
            check_index_parity(gateway, len(rules))
