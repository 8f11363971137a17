"""Episodes: one row per request, from its arrival to what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rules_store.core import StoreCore
from rules_store.types import EVERY_EPISODE, Begun, Episode, EpisodeFilter, EpisodeStatus, Page


class EpisodeOperations(StoreCore):
    async def begin_episode(
        self,
        episode_id: str,
        *,
        namespace: str,
        mode: str,
        question: str,
        model: str,
        request_id: str | None = None,
        body_hash: str | None = None,
        trace: dict[str, Any] | None = None,
    ) -> Begun:
        """Inserts a pending episode. Gives up within `options.begin_timeout`.

        A request id that this namespace has seen is marked in the result, for the caller to learn
        nothing from it. Raises UnknownNamespace, StoreUnavailable.
        """
        raise NotImplementedError

    async def finish_episode(
        self,
        episode_id: str,
        *,
        answer: str | None,
        trace: dict[str, Any],
        status: EpisodeStatus = EpisodeStatus.SKIPPED,
        reason: str | None = None,
        job_payload: dict[str, Any] | None = None,
        exposures: Sequence[str] = (),
    ) -> None:
        """Answer, trace (replaces the first one), one more exposure for each injected rule and,
        with `job_payload`, a durable learning job (status `learning`): all in one transaction.

        An episode that is finished already stays as it is. Raises UnknownEpisode.
        """
        raise NotImplementedError

    async def get_episode(self, episode_id: str) -> Episode:
        """Raises UnknownEpisode."""
        raise NotImplementedError

    async def list_episodes(
        self, where: EpisodeFilter = EVERY_EPISODE, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Episodes, newest first. Raises InvalidCursor."""
        raise NotImplementedError

    async def sweep_interrupted(self, older_than: timedelta) -> int:
        """Marks pending episodes without a job as skipped('interrupted'); returns how many."""
        raise NotImplementedError
