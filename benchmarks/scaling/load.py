"""What comes in, and what limits are kept: the numbers a reader puts in."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from benchmarks.scaling.costs import Given, JobCosts, UnitCosts
from benchmarks.scaling.queues import CROWDED

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Embedder(StrEnum):
    LOCAL = "local"
    SERVER = "server"


class Policy(StrEnum):
    GATED = "gated"
    PAPER = "paper"


class Load(Given):
    """What comes in: steered requests with streamed answers."""

    rate: Positive
    """Requests a second, mean."""
    burst: Annotated[float, Field(ge=1, lt=1 / CROWDED)] = 1.0
    """Times the mean rate in a crowd; 1 is Poisson."""
    answer_tokens: Positive = 300
    tokens_per_second: Positive = 50
    """Of one answer, as the model server makes it."""
    tokens_per_chunk: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1
    """Of a stream: a model server may send several tokens at once."""
    sample_rate: Share = 0.01
    """Share of the requests that are learned from (TTCL_LEARN_SAMPLE_RATE)."""
    policy: Policy = Policy.GATED
    namespaces: Annotated[int, Field(ge=1)] = 100
    rules: Annotated[int, Field(ge=0)] = 1000
    """Of each namespace, active and candidates."""
    embedder: Embedder = Embedder.LOCAL
    spread: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Coefficient of variation of service times: 0 is fixed, 1 exponential."""
    seed: int = 0

    @property
    def answer_seconds(self) -> float:
        return self.answer_tokens / self.tokens_per_second

    @property
    def chunks(self) -> float:
        return self.answer_tokens / self.tokens_per_chunk

    @property
    def jobs(self) -> float:
        """Requests a second that are learned from."""
        return self.rate * self.sample_rate

    def loop_ms(self, costs: UnitCosts) -> float:
        """CPU of the event loop that one request takes."""
        return costs.gateway.stream_ms + self.chunks * costs.gateway.chunk_ms

    def job(self, costs: UnitCosts) -> JobCosts:
        return costs.gated if self.policy is Policy.GATED else costs.paper

    def job_seconds(self, costs: UnitCosts) -> float:
        """Of all upstream calls of one job in turn; a sample is as long as an answer."""
        job = self.job(costs)
        return self.answer_seconds * job.samples + job.other_tokens / self.tokens_per_second


class Limits(Given):
    utilisation: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Of anything that queues."""
    p99_ms: Positive = 200
    """Until 99 % of the requests have reached the model."""
    job_p99_s: Positive = 60
    """Until 99 % of the learning jobs are begun."""
    open_requests: Positive = 1000
    """TTCL_MAX_OPEN_REQUESTS; above half of it a gateway's requests teach nothing."""
    call_concurrency: Positive = 16
    """TTCL_LEARN_CALL_CONCURRENCY of a worker."""
    database_cores: Positive = 32
    """Of one PostgreSQL at most."""
    connections: Positive = 500
    """Of one PostgreSQL at most, without a pooler."""
    wal_mb: Positive = 100
    """Megabytes of write-ahead log a second, of one PostgreSQL at most."""
