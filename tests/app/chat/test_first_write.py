"""The episode's first write: beside the model server's work, and before anything goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rules_store.errors import StoreUnavailable
from rules_store.models.episodes import EpisodeStart
from tests.app.chat.test_experience import QUESTION, Service, running
from tests.fakes import Reply, ScriptedUpstream
from tests.gateway import MODEL

RULE = "Say the number of the ticket."


class Openings:
    """`store.episodes.begin`, which waits for `may` and fails while the store is `away`."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self._begin = service.store.episodes.begin
        self.may = asyncio.Event()
        self.away = False
        monkeypatch.setattr(service.store.episodes, "begin", self.begin)

    async def begin(self, episode_id: str, **values: Any) -> EpisodeStart:
        await self.may.wait()
        if self.away:
            raise StoreUnavailable("The database is away.")
        return await self._begin(episode_id, **values)


@pytest.fixture
async def service(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(upstream, tmp_path) as found:
        await found.rule(RULE)
        yield found


@pytest.fixture
def openings(service: Service, monkeypatch: pytest.MonkeyPatch) -> Openings:
    return Openings(service, monkeypatch)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_model_server_is_asked_before_it_and_nothing_goes_out_without(
    service: Service, openings: Openings, stream: bool
) -> None:
    asked = asyncio.create_task(service.ask(stream=stream))
    await service.upstream.until(lambda: len(service.upstream.chats) == 1)
    done, _ = await asyncio.wait({asked}, timeout=0.1)
    assert not done
    openings.may.set()
    answer = await asked
    assert answer.headers["x-ttcl-rules"]
    episode = await service.store.episodes.get(answer.headers["x-ttcl-episode"])
    assert episode.answer is not None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_what_leaves_no_trace_is_asked_again_without_experience(
    service: Service, openings: Openings, path: str
) -> None:
    openings.away = True
    openings.may.set()
    answer = await ask(service, path)
    assert answer.headers["x-ttcl-degraded"] == "store_unavailable"
    assert answer.headers["x-ttcl-rules"] == ""
    assert "x-ttcl-arm" not in answer.headers
    # While it is known to be away nothing is asked twice.
    answer = await ask(service, path)
    assert answer.headers["x-ttcl-degraded"] == "store_unavailable"
    given = [RULE in str(call.body) for call in service.upstream.history if call.path == path]
    assert given == [True, False, False]
    openings.away = False
    answer = await ask(service, path)
    assert "x-ttcl-degraded" not in answer.headers
    answer = await ask(service, path)
    assert answer.headers["x-ttcl-rules"]


async def ask(service: Service, path: str) -> httpx.Response:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": MODEL, "max_tokens": 100, "messages": messages}
    answer = await service.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def test_an_upstream_that_fails_meanwhile_leaves_an_episode_that_says_so(
    service: Service, openings: Openings
) -> None:
    service.upstream.enqueue(Reply(status=400))
    asked = asyncio.create_task(service.ask(status=400))
    await service.upstream.until(lambda: len(service.upstream.chats) == 1)
    openings.may.set()
    await asked
    [episode] = (await service.store.episodes.list()).items
    assert episode.reason is not None
    assert episode.reason.startswith("upstream_error")
