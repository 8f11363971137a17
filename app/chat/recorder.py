"""Writes a request's episode: at its beginning, and durably before its answer ends."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from app.access.load_limit import LoadLimit
from app.chat.request import LARGE
from app.domain.bounds import bounded
from app.domain.trajectory import Mode
from app.learning.learner import FROZEN_SKIP
from app.learning.local_worker import Worker
from app.observability.tracing import span
from rules_store.errors import StoreError, UnknownNamespace
from rules_store.models.effect import Served
from rules_store.models.episodes import EpisodeStart, EpisodeStatus
from rules_store.models.evidence import NO_FINDINGS, Exposure, Findings
from rules_store.store import RuleStore

log = structlog.get_logger(__name__)

STORE_DOWN = "store_unavailable"
NOT_RECORDED = "episode_not_recorded"
LEARNING_OFF = "learning_off"
KEY_MAY_NOT_LEARN = "key_may_not_learn"


def own_request_id(key: str, request_id: str) -> str:
    """Under which an episode is found: by the id that its client gave it, of this client alone. A
    request id has no blank in it."""
    return f"{key} {request_id}"


@dataclass(frozen=True, slots=True)
class OpenEpisode:
    """An episode that has begun. `recorded` False: the store could not take it, and nothing
    will be learned from it."""

    id: str
    recorded: bool
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class LearnPolicy:
    enabled: bool
    sample_rate: float
    backlog: int


class Recorder:
    def __init__(
        self, store: RuleStore, worker: Worker, load: LoadLimit, policy: LearnPolicy
    ) -> None:
        self._store = store
        self._worker = worker
        self._load = load
        self._policy = policy
        self.works = True
        """Whether the store has taken the last episode that was opened."""

    def new_id(self) -> str:
        return f"ep_{secrets.token_hex(16)}"

    async def open(
        self,
        episode_id: str,
        *,
        namespace: str,
        mode: Mode,
        question: str,
        model: str,
        request_id: str | None,
        raw: bytes,
        is_retry: bool,
        key_id: str,
    ) -> OpenEpisode:
        """`key_id`: `Caller.name`; what another key has sent makes nothing a retry. Never raises
        for a broken store. A namespace comes into being with its first request. Of a long question
        what `bounded` leaves is kept."""
        body_hash = await _hash(key_id, raw)

        async def begin() -> EpisodeStart:
            await self._store.namespaces.ensure(namespace)
            return await self._store.episodes.begin(
                episode_id,
                namespace=namespace,
                mode=mode.value,
                question=bounded(question),
                model=model,
                request_id=None if request_id is None else own_request_id(key_id, request_id),
                body_hash=body_hash,
                is_retry=is_retry,
                key_id=key_id,
            )

        try:
            with span("begin episode"):
                try:
                    begun = await begin()
                except UnknownNamespace:
                    # Another process has just deleted it: this request is its first one again.
                    begun = await begin()
        except StoreError as error:
            log.warning("episode not recorded", error=str(error))
            self.works = False
            return OpenEpisode(episode_id, recorded=False)
        self.works = True
        duplicate = begun.duplicate or begun.same_body_as is not None
        return OpenEpisode(episode_id, recorded=True, duplicate=duplicate)

    def why_not(
        self,
        opened: OpenEpisode,
        *,
        key_id: str,
        namespace: str,
        wanted: bool | None,
        allowed: bool,
        obstacle: str | None,
        sampled: bool,
    ) -> str | None:
        """The reason why nothing is learned from a request; None when it is to be learned from.

        `key_id`: as `open` has it. `wanted`: the request's own `ttcl.learn`. `allowed`: whether its
        key may learn. `obstacle`: what stands in the way of exploring. `sampled`: whether the
        sampling rate applies (an exploration that was paid for is kept). The namespace's own
        settings go before the service's.
        """
        own = self._store.namespaces.settings_of(namespace)
        enabled = self._policy.enabled if own.learn is None else own.learn
        if wanted is False or not enabled:
            return LEARNING_OFF
        if self._store.namespaces.is_frozen(namespace):
            return FROZEN_SKIP
        if not allowed:
            return KEY_MAY_NOT_LEARN
        if opened.duplicate:
            return "duplicate_request"
        if obstacle is not None:
            return obstacle
        if self._load.busy:
            return "overloaded"
        if self._worker.backlog.full((key_id, namespace), self._policy.backlog):
            return "backlog_full"
        rate = self._policy.sample_rate if own.sample_rate is None else own.sample_rate
        if sampled and random.Random(opened.id).random() >= rate:
            return "not_sampled"
        return None

    async def finish(
        self,
        opened: OpenEpisode,
        *,
        key_id: str,
        namespace: str,
        answer: str | None,
        trace: dict[str, Any],
        exposures: Sequence[Exposure],
        skipped: str | None,
        job: dict[str, Any] | None = None,
        findings: Findings = NO_FINDINGS,
        served: Served | None = None,
    ) -> bool:
        """Commit answer, trace and, unless `skipped`, the learning job. False: the store could
        not take it; the answer goes out all the same."""
        if not opened.recorded:
            return False
        try:
            with span("finish episode"):
                await self._store.episodes.finish(
                    opened.id,
                    answer=None if answer is None else bounded(answer),
                    trace=trace,
                    status=EpisodeStatus.SKIPPED,
                    reason=skipped,
                    job_payload=None if skipped else job,
                    exposures=exposures,
                    findings=findings,
                    served=served,
                )
        except StoreError as error:
            log.warning("episode not finished", episode=opened.id, error=str(error))
            return False
        if skipped is None and job is not None:
            self._worker.wake((key_id, namespace))
        return True


async def _hash(key: str, raw: bytes) -> str:
    """By which a retry is known again, of the same key."""

    def hashed() -> str:
        known = hashlib.blake2b(key.encode(), digest_size=16)
        known.update(raw)
        return known.hexdigest()

    return hashed() if len(raw) < LARGE else await asyncio.to_thread(hashed)
