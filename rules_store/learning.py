"""Durable learning: jobs with leases, and the one transaction that applies a job's result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rules_store.core import StoreCore
from rules_store.types import NO_SPEND, Applied, Draft, Job, JobState, Spend


class LearningOperations(StoreCore):
    async def claim_job(self, owner: str, *, episode_id: str | None = None) -> Job | None:
        """Takes the oldest due job (or this episode's), or one whose lease has run out.

        A job that was tried `options.max_attempts` times is failed instead. `owner` must be
        unique to the worker process.
        """
        raise NotImplementedError

    async def heartbeat(self, job: Job) -> None:
        """Renews the lease. Raises LeaseLost."""
        raise NotImplementedError

    async def apply_learning(
        self,
        job: Job,
        drafts: Sequence[Draft],
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
    ) -> Applied:
        """Rules, events, spend, the episode (`learned`) and the job (`done`) in one transaction.

        At most one draft per polarity. `trace` entries replace those of the same name in the
        episode's trace; `rules_learned` is added to it. A job that is done already changes nothing
        (`Applied.already`). Raises LeaseLost, InvalidVector, StoreUnavailable.
        """
        raise NotImplementedError

    async def skip_job(
        self,
        job: Job,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
    ) -> None:
        """Nothing to learn: job done, episode skipped with this reason. Raises LeaseLost."""
        raise NotImplementedError

    async def retry_job(self, job: Job, error: str, *, spend: Spend = NO_SPEND) -> bool:
        """Puts it back with a growing delay; False when that was the last attempt and job and
        episode are failed now. Raises LeaseLost."""
        raise NotImplementedError

    async def fail_job(
        self,
        job: Job,
        reason: str,
        *,
        trace: dict[str, Any] | None = None,
        spend: Spend = NO_SPEND,
    ) -> None:
        """Gives up: job and episode failed with this reason. Raises LeaseLost."""
        raise NotImplementedError

    async def release_job(self, job: Job) -> None:
        """Puts it back at once, the attempt not counted (draining). Raises LeaseLost."""
        raise NotImplementedError

    async def job_counts(self) -> dict[JobState, int]:
        raise NotImplementedError

    async def record_spend(self, namespace: str, spend: Spend) -> None:
        raise NotImplementedError

    async def spend_last_hour(self, namespace: str) -> Spend:
        """What learning cost in this namespace within the last 60 minutes."""
        raise NotImplementedError
