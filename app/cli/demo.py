"""Questions to a running gateway in explore mode, and what it learned from them: the first
question of `ttcl serve --first-question`, and the table of `ttcl demo`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.exceptions import ConfigurationError, TTCLError
from app.loop.effort import TOO_FEW_WORDINGS

SETTLED = ("learned", "skipped", "failed")
POLL = 0.25
LEARNING_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """One question and all that came of it."""

    question: str
    answer: str
    teacher: str | None
    """The Teacher's own final answer, where one could be read."""
    selected: str | None
    case: str
    rules_injected: int
    rules_learned: tuple[dict[str, Any], ...]
    status: str
    reason: str | None
    failed_steps: tuple[str, ...]
    seconds: float


class DemoClient:
    """A client of a running gateway that also reads the admin API."""

    def __init__(
        self, url: str, admin_key: str, api_key: str | None, namespace: str, max_tokens: int
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, timeout=httpx.Timeout(600, connect=5), trust_env=False
        )
        self._admin = {"Authorization": f"Bearer {admin_key}"}
        self._client = {"Authorization": f"Bearer {api_key or admin_key}"}
        self._namespace = namespace
        self._max_tokens = max_tokens

    async def close(self) -> None:
        await self._http.aclose()

    async def ready(self, within: float) -> str:
        """Waits until everything is up; returns the model's name. Raises `TTCLError`."""
        deadline = time.monotonic() + within
        last = "no answer"
        while time.monotonic() < deadline:
            try:
                body = (await self._http.get("/readyz")).json()
                last = json.dumps(body["checks"])
                if body["status"] == "ready":
                    return str(body["checks"]["upstream"]["models"][0])
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            await asyncio.sleep(POLL)
        raise TTCLError(f"the service was not ready within {within:.0f} s: {last}")

    async def ask(self, model: str, question: str) -> DemoResult:
        """One question in explore mode, and the wait until its learning is over."""
        started = time.monotonic()
        response = await self._http.post(
            "/v1/chat/completions",
            headers=self._client,
            json={
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": self._max_tokens,
                "ttcl": {"mode": "explore", "namespace": self._namespace},
            },
        )
        body = response.json()
        if response.status_code != 200:
            raise TTCLError(body["error"]["message"])
        seconds = time.monotonic() - started
        episode = await self._settled(body["ttcl"]["episode"])
        named = {t["name"]: t.get("judged", {}).get("answer") for t in episode["trajectories"]}
        chosen = (episode["selection"] or {}).get("chosen")
        return DemoResult(
            question=question,
            answer=body["choices"][0]["message"]["content"] or "",
            teacher=named.get("teacher"),
            selected=named.get(chosen),
            case=body["ttcl"]["exploration"]["case"],
            rules_injected=len(body["ttcl"]["rules"]),
            rules_learned=tuple(episode["rules_learned"]),
            status=episode["status"],
            reason=episode["reason"],
            failed_steps=tuple(s for s in body["ttcl"]["degraded"] or () if s != TOO_FEW_WORDINGS),
            seconds=seconds,
        )

    async def _settled(self, episode_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + LEARNING_TIMEOUT
        while True:
            response = await self._http.get(f"/admin/v1/episodes/{episode_id}", headers=self._admin)
            if response.status_code != 200:
                raise TTCLError(response.json()["error"]["message"])
            episode: dict[str, Any] = response.json()
            if episode["status"] in SETTLED or time.monotonic() > deadline:
                return episode
            await asyncio.sleep(POLL)


async def ask_all(visitor: DemoClient, questions: Sequence[str]) -> AsyncIterator[DemoResult]:
    """Asks one after the other, so that later questions meet the rules of earlier ones."""
    model = await visitor.ready(within=300)
    for question in questions:
        yield await visitor.ask(model, question)


def read_questions(path: Path, limit: int) -> list[str]:
    """The `question` of each line of a JSONL file. Raises `ConfigurationError`."""
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()][:limit]
        questions = [json.loads(line)["question"] for line in lines]
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} must be JSONL with a `question` on every line") from error
    if not questions:
        raise ConfigurationError(f"{path} has no questions")
    return questions


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
