"""Arms over the network: any service by its URL, our own gateway included; and open tasks."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.exceptions import TTCLError
from app.settings import Settings
from benchmarks.feedback import FeedbackLevel
from benchmarks.journal import read_rows
from benchmarks.rundir import load_results
from benchmarks.session import RunOptions, run
from rules_store.models.episodes import EVERY_EPISODE
from tests.benchmarks.scripted import ScriptedBackend
from tests.benchmarks.test_runner import Silent, go
from tests.fakes import HashEmbedder, Reply, ScriptedUpstream
from tests.gateway import CLIENT_KEY, running_gateway


async def test_a_service_is_asked_what_zero_shot_asks(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.default = Reply("\\boxed{0}")
    backend = ScriptedBackend()
    arm = f"http:{upstream.url}#scripted-model"
    rows = await go(tmp_path / "run", backend, arms=f"zero-shot,{arm}", count=3)
    served = [row for row in rows if row["arm"] == arm]
    assert [row["score"] for row in sorted(served, key=lambda r: r["position"])] == [1, 0, 0]
    bodies = [call.body for call in upstream.chats]
    assert {body["model"] for body in bodies} == {"scripted-model"}
    asked = {"\n".join(m["content"] for m in body["messages"]) for body in bodies}
    assert asked == {call["text"] for call in backend.history}
    assert {body["temperature"] for body in bodies} == {0}
    assert all(row["prompt_tokens"] > 0 and row["calls"] == 1 for row in served)


async def test_a_service_is_told_a_namespace_for_each_pass_and_asked_once(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    arm = f"http:{upstream.base_url}#scripted-model"
    for _ in range(2):
        await go(tmp_path / "run", ScriptedBackend(), arms=arm, count=3, seeds=2, orders=2)
    assert len(upstream.chats) == 12
    namespaces = {call.headers["x-ttcl-namespace"] for call in upstream.chats}
    assert len(namespaces) == 4


async def test_the_whole_cost_that_our_gateway_tells_is_what_counts(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = httpx.Response.json

    def with_cost(self: httpx.Response) -> object:
        body = real(self)
        if isinstance(body, dict) and "choices" in body:
            body["ttcl"] = {
                "cost": {
                    "calls": 6,
                    "prompt_tokens": 600,
                    "completion_tokens": 60,
                    "total_tokens": 660,
                }
            }
        return body

    monkeypatch.setattr(httpx.Response, "json", with_cost)
    arm = f"http:{upstream.url}#scripted-model"
    (row,) = await go(tmp_path / "run", ScriptedBackend(), arms=arm, count=1)
    assert (row["calls"], row["prompt_tokens"], row["completion_tokens"]) == (6, 600, 60)


async def test_a_refusing_service_is_a_wrong_answer_with_a_reason(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    arm = f"http:{upstream.url}#no-such-model"
    (row,) = await go(tmp_path / "run", ScriptedBackend(), arms=arm, count=1)
    assert row["score"] == 0
    assert "does not exist" in row["failure"]


OPEN_TASK = """
name: garden
version: 1
about: Open questions.
sample: {question: 'Why water plants?', answer: 'They need it.'}
kind: open
grader: rouge
max_tokens: 40
"""


class Gardener(ScriptedBackend):
    """Answers open questions; the Teacher says what the reference says."""

    @staticmethod
    def _answer(text: str, params: dict[str, object]) -> int:
        return 0

    async def complete(self, model, messages, params, **options):  # type: ignore[no-untyped-def]
        completion = await super().complete(model, messages, params, **options)
        text = "Water them at dawn." if params["temperature"] == 0 else "Use a bucket at noon."
        return type(completion)(text, "stop", logprobs=(-0.1, -0.2), cost=completion.cost)


async def test_open_tasks_are_measured_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "garden.yaml").write_text(OPEN_TASK)
    (tmp_path / "garden.jsonl").write_text(
        '{"question": "How with 1 red and 1 blue plant?", "answer": "Water them at dawn."}\n'
    )
    await run(
        RunOptions(
            task=str(tmp_path / "garden.yaml"),
            data=str(tmp_path / "garden.jsonl"),
            arms="zero-shot,sc@3,empty-bank,paper",
            out=tmp_path / "run",
        ),
        Settings(_env_file=None),  # type: ignore[call-arg]
        Silent(),
        backend=Gardener(),
        embedder=HashEmbedder(),
    )
    scores = {row["arm"]: row["score"] for row in load_results(tmp_path / "run")}
    assert scores["zero-shot"] == pytest.approx(1)
    assert 0 < scores["sc@3"] < 0.5
    (learned,) = [row for _, row in read_rows(tmp_path / "run" / "rules.jsonl")]
    assert learned["arm"] == "paper"


@pytest.mark.parametrize("level", [FeedbackLevel.BINARY, FeedbackLevel.LABEL])
async def test_our_gateway_is_told_after_each_step_once(
    tmp_path: Path, upstream: ScriptedUpstream, level: FeedbackLevel
) -> None:
    upstream.default = Reply("\\boxed{0}")
    with running_gateway(upstream, learn_sample_rate=0.0) as gateway:
        arm = f"http:{gateway.url}#scripted-model"
        options = {"arms": arm, "count": 3, "feedback": level, "service_key": CLIENT_KEY}
        for _ in range(2):
            rows = await go(tmp_path / "run", ScriptedBackend(), **options)
        assert [row["score"] for row in rows] == [1, 0, 0]
        store = gateway.app.state.ttcl.store
        episodes = (await store.episodes.list(EVERY_EPISODE, limit=10)).items
        told = [f for e in episodes for f in await store.evidence.feedback_of(e.id)]
    assert len(episodes) == 3
    if level is FeedbackLevel.LABEL:
        assert sorted(str(each.label) for each in told) == ["0", "2", "4"]
    else:
        assert sorted(bool(each.verified) for each in told) == [False, False, True]


async def test_a_service_that_names_no_episode_is_told_nothing(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    arm = f"http:{upstream.base_url}#scripted-model"
    rows = await go(
        tmp_path / "run", ScriptedBackend(), arms=arm, count=3, feedback=FeedbackLevel.LABEL
    )
    assert len(rows) == len(upstream.history) == 3


async def test_feedback_that_a_service_refuses_stops_the_run_with_its_reason(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.arms.service.EPISODE_HEADER", "X-Request-ID")
    with running_gateway(upstream) as gateway:
        arm = f"http:{gateway.url}#scripted-model"
        options = {"arms": arm, "count": 1, "service_key": CLIENT_KEY}
        with pytest.raises(TTCLError, match="refused the feedback: There is no episode"):
            await go(tmp_path / "run", ScriptedBackend(), feedback=FeedbackLevel.BINARY, **options)
