"""Any running OpenAI-compatible service as an arm: ours in any mode, or something else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from app.domain.trajectory import Cost
from app.exceptions import TTCLError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from app.loop.explore.roles import teacher_params
from app.upstream.types import Completion
from app.upstream.wire import error_from, parse_completion, seconds_of
from benchmarks.arms.base import ArmAnswer, PassQuestion, Repeat, Setting, observe, scope
from benchmarks.arms.direct import framed
from benchmarks.feedback import Feedback

EPISODE_HEADER = "X-TTCL-Episode"

TIMEOUT = 1800.0
"""Seconds for one answer: a service may explore behind it."""


@dataclass(frozen=True, slots=True)
class Service:
    """`url` is the API's base; `model` is the name it is asked for, None for the run's model.

    Asked as zero-shot is. A service that learns keeps what it learned: it is told a namespace of
    its own for every pass, which ours obeys and others ignore. Where an answer names its episode,
    as ours does, the run's feedback is posted to the service once the step is over; what it makes
    of it, it does in its own time.
    """

    name: str
    url: str
    model: str | None
    key: str | None
    stateful: bool = False
    """What it has learned is on its side; a question that was answered is never asked again, and
    an answer that was read from disk is told nothing more."""

    async def start(self, setting: Setting, repeat: Repeat) -> _Served:
        return _Served(self, setting, repeat)


class _Served:
    def __init__(self, arm: Service, setting: Setting, repeat: Repeat) -> None:
        self._arm = arm
        self._setting = setting
        self._repeat = repeat
        folder = f"{setting.scratch.resolve()}/{arm.name}".encode()
        run = hashlib.blake2b(folder, digest_size=4).hexdigest()
        headers = {"X-TTCL-Namespace": f"bench-{run}-{repeat.seed}-{repeat.order}"}
        if arm.key:
            headers["Authorization"] = f"Bearer {arm.key}"
        self._http = httpx.AsyncClient(base_url=arm.url, headers=headers, timeout=TIMEOUT)

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        observation = observe(self._setting, self._repeat, asked, arm=self._arm.name)
        backend = self._setting.calls.scoped(scope(self._arm.name, self._repeat, asked))
        body = {
            **teacher_params(observation, None),
            "model": self._arm.model or observation.model,
            "messages": framed(self._setting, observation),
        }
        episodes: list[str] = []
        try:
            completion = await backend.own(body, lambda: self._ask(body, episodes))
        except UpstreamError as error:
            return ArmAnswer(asked, "", backend, failure=error.message)
        # The last of several attempts is the one that was answered.
        return ArmAnswer(asked, completion.text, backend, lesson=episodes[-1] if episodes else None)

    async def _ask(self, body: dict[str, Any], episodes: list[str]) -> Completion:
        """One answer; its cost is what the service says the whole of it took. `episodes` gets the
        id of its episode, where there is one."""
        try:
            response = await self._http.post("chat/completions", json=body)
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(f"{self._arm.url} did not answer in time") from error
        except httpx.HTTPError as error:
            raise UpstreamUnavailable(f"{self._arm.url} can't be reached: {error}") from error
        if response.status_code != 200:
            after = seconds_of(response.headers.get("Retry-After"))
            raise error_from(response.status_code, response.content, after)
        completion = parse_completion(response.content)
        if EPISODE_HEADER in response.headers:
            episodes.append(response.headers[EPISODE_HEADER])
        told = response.json().get("ttcl")
        whole = told.get("cost") if isinstance(told, dict) else None
        if not isinstance(whole, dict):
            return completion
        cost = Cost(*(int(whole[k]) for k in ("calls", "prompt_tokens", "completion_tokens")))
        return replace(completion, cost=cost)

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        """Raises `TTCLError` where the service refuses its feedback."""
        for outcome in outcomes:
            if outcome.feedback is not None and outcome.lesson is not None:
                await self._tell(outcome, outcome.feedback)
        return []

    async def _tell(self, outcome: ArmAnswer, told: Feedback) -> None:
        key = scope(self._arm.name, self._repeat, outcome.asked)
        body = {
            "episode_id": outcome.lesson,
            "key": hashlib.blake2b(key.encode(), digest_size=16).hexdigest(),
            **told.as_body(),
        }
        try:
            response = await self._http.post("feedback", json=body)
        except httpx.HTTPError as error:
            raise UpstreamUnavailable(f"{self._arm.url} can't be told: {error}") from error
        if response.status_code not in (200, 201):
            reason = error_from(response.status_code, response.content, None).message
            raise TTCLError(f"{self._arm.url} refused the feedback: {reason}")

    async def close(self) -> None:
        await self._http.aclose()
