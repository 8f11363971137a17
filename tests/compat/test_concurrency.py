"""Case 25, for one gateway process on SQLite: many clients learn at once, also over kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import httpx

from tests.compat.helpers import ask, script_majority
from tests.e2e.service import service
from tests.fakes import Reply, ScriptedUpstream, instance_of, is_distiller, is_tutor, schema_of
from tests.gateway import NO_TLS, Gateway, running_gateway

# Words without a number in them: a rule with the question's numbers is refused.
SUBJECTS = [
    f"{colour}{thing}"
    for colour in ("red", "green", "blue", "white", "black")
    for thing in ("apples", "bricks", "candles", "drums", "engines", "flutes", "gates", "hats")
]
SPACES = [f"load-{number}" for number in range(4)]
COMMON = "common"
COMMON_RULE = "Recheck the arithmetic before finishing."


def question_about(subject: str) -> str:
    return f"How many {subject} remain once some {subject} were lost?"


def script_learning(upstream: ScriptedUpstream) -> None:
    """Each question teaches one rule that names its subject; those about stones share one."""

    def distil(body: dict[str, Any]) -> Reply:
        text = str(body["messages"])
        subject = next((s for s in SUBJECTS if f"many {s} remain" in text), None)
        positive = f"Write {subject} beside every {subject} figure." if subject else COMMON_RULE
        names = (schema_of(body) or {})["properties"]
        values = {
            "positive": positive,
            "negative": f"Avoid mixing {subject} with strangers." if subject else "",
            "trigger": f"counting {subject}" if subject else "counting stones",
        }
        return Reply.of_json({name: values.get(name) for name in names})

    def tutor(body: dict[str, Any]) -> Reply:
        return Reply.of_json(instance_of(schema_of(body) or {}))

    upstream.when(is_tutor, tutor)
    upstream.when(is_distiller, distil)


def check_index_parity(gateway: Gateway, rules: int) -> None:
    """The index holds what SQL holds, and that is `rules` rules."""
    ready = httpx.get(f"{gateway.url}/readyz", timeout=10, verify=NO_TLS)
    assert ready.status_code == 200, ready.text
    index = ready.json()["checks"]["index"]
    assert (index["indexed"], index["stored"], index["events_behind"]) == (rules, rules, 0)
    assert gateway.admin("GET", "/rules", params={"limit": "1"}).json()["total"] == rules


def check_each_learned_its_own(gateway: Gateway) -> None:
    """Of forty subjects in four namespaces and one common rule: none lost, doubled or astray."""
    for number, namespace in enumerate(SPACES):
        subjects = SUBJECTS[number::4]
        expected = {f"Write {s} beside every {s} figure." for s in subjects}
        expected |= {f"Avoid mixing {s} with strangers." for s in subjects}
        rules = gateway.rules(namespace)
        assert Counter(r["text"] for r in rules) == Counter(expected)
        assert {r["frequency"] for r in rules} == {1}
    common = gateway.rules(COMMON)
    assert [(r["text"], r["frequency"]) for r in common] == [(COMMON_RULE, 10)]
    check_index_parity(gateway, 2 * len(SUBJECTS) + 1)


async def test_25_fifty_clients_lose_nothing_and_cross_nothing() -> None:
    with (
        ScriptedUpstream() as upstream,
        running_gateway(upstream, students=2, learn_concurrency=8) as gateway,
    ):
        script_learning(upstream)
        script_majority(upstream, teacher="\\boxed{9}", students="\\boxed{7}")
        plan = [(SPACES[i % 4], question_about(SUBJECTS[i])) for i in range(40)]
        plan += [(COMMON, question_about("stones"))] * 10

        async def client(number: int, namespace: str, question: str) -> str:
            mode = ("steer", "explore")[number % 2]
            body = ask(mode, question=question, ttcl={"namespace": namespace})
            response = await gateway.post(body)
            assert response.status_code == 200, response.text
            return response.headers["x-ttcl-episode"]

        episodes = await asyncio.gather(*(client(i, *what) for i, what in enumerate(plan)))
        assert len(set(episodes)) == 50
        for episode in episodes:
            settled = await asyncio.to_thread(gateway.settled, episode, 30)
            assert settled["status"] == "learned", settled["reason"]
        check_each_learned_its_own(gateway)


async def test_25_kill_9_while_learning_applies_each_job_once(tmp_path) -> None:
    with ScriptedUpstream() as upstream:
        where = {
            "upstream_base_url": upstream.base_url,
            "embedding_base_url": upstream.base_url,
            "embedding_model": "hash-384",
            "students": "2",
            "learn_concurrency": "4",
            "job_lease": "1",
        }
        script_learning(upstream)
        slow = Reply("\\boxed{7}", delay=0.05)
        upstream.when(lambda body: body.get("temperature") == 0.7, slow)
        upstream.default = Reply("\\boxed{9}")
        with service(tmp_path, **where) as (gateway, process):
            bodies = [
                ask("steer", question=question_about(s), ttcl={"namespace": "killed"})
                for s in SUBJECTS[:20]
            ]
            answers = await asyncio.gather(*(gateway.post(body) for body in bodies))
            assert {a.status_code for a in answers} == {200}
            # Some jobs are applied, some are in the midst of it, some have not begun.
            await upstream.until(lambda: sum(is_distiller(c.body) for c in upstream.chats) >= 3)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        with service(tmp_path, **where) as (gateway, _):
            for answer in answers:
                episode = answer.headers["x-ttcl-episode"]
                settled = await asyncio.to_thread(gateway.settled, episode, 30)
                assert settled["status"] == "learned", settled["reason"]
            rules = gateway.rules("killed")
            expected = {f"Write {s} beside every {s} figure." for s in SUBJECTS[:20]}
            expected |= {f"Avoid mixing {s} with strangers." for s in SUBJECTS[:20]}
            assert Counter(r["text"] for r in rules) == Counter(expected)
            assert {r["frequency"] for r in rules} == {1}
            check_index_parity(gateway, 40)
