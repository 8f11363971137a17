"""What one request, one text and one learning job cost: measured once, kept as JSON.

Times are CPU milliseconds (of the process or thread that is named), unless they say otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.exceptions import ConfigurationError

Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SHIPPED = Path(__file__).with_name("costs.json")
"""Measured on the machine that docs/scaling.md names."""


class Given(BaseModel):
    """Numbers out of a file or the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewayCosts(Given):
    off_ms: Cost
    """All threads, a whole answer in mode off."""
    loop_ms: Cost
    """The event loop's thread, a whole steered answer with rules; without the embedding."""
    stream_ms: Cost
    """The same for a streamed answer, without its chunks."""
    chunk_ms: Cost
    """One chunk of a stream, relayed."""
    sqlite_ms: Cost
    """All threads, a whole steered answer, on SQLite."""
    started_mib: Cost
    stream_kib: Cost
    """Memory of one open stream."""
    rule_kib: Cost
    """Memory of one indexed rule (text and trigger)."""


class EmbeddingCosts(Given):
    """CPU time on one thread of a batch of n texts of 35 words: `fixed_ms` + n `text_ms`."""

    fixed_ms: Cost
    text_ms: Cost
    batch: Annotated[int, Field(ge=1)]
    """Most texts of one batch."""

    def of(self, texts: int) -> float:
        """Milliseconds of a batch."""
        return self.fixed_ms + texts * self.text_ms

    @property
    def each_ms(self) -> float:
        """Of one text in a full batch."""
        return self.of(self.batch) / self.batch


class StoreCosts(Given):
    """Of PostgreSQL, for one request or one job, beyond what an idle process causes."""

    transactions: Cost
    rows: Cost
    """Inserted and updated."""
    wal_bytes: Cost
    kept_bytes: Cost
    """Tables and indexes, vacuumed."""
    cpu_ms: Cost


class JobCosts(Given):
    """Of one request that is learned from, replays included, with `students` Students."""

    calls: Cost
    samples: Cost
    """Calls that are answers; the others are the Tutor's and the distiller's."""
    prompt_tokens: Cost
    other_tokens: Cost
    """Written by Tutor and distiller."""
    rules: Cost
    """New rules."""
    worker_ms: Cost
    """CPU of the worker, at 100 tokens a sample; embeddings included."""
    event_writes: Cost
    """Times that it takes the event log's lock."""
    lock_ms: Cost
    """Wall-clock time that one such write holds it, median."""
    store: StoreCosts


class IdleCosts(Given):
    """What a gateway does to PostgreSQL each second while nobody asks."""

    transactions: Cost
    cpu_ms: Cost


class UnitCosts(Given):
    machine: str
    gateway: GatewayCosts
    embedding: EmbeddingCosts
    request: StoreCosts
    """A steered request that nothing is learned from."""
    queued: StoreCosts
    """A steered request that makes a learning job; the job itself not included."""
    idle: IdleCosts
    fsync_ms: Cost
    """Wall-clock time of one flush of the write-ahead log."""
    students: Annotated[int, Field(ge=1)]
    gated: JobCosts
    paper: JobCosts


Kind = TypeVar("Kind", bound=Given)


def checked(kind: type[Kind], values: object, what: str = "") -> Kind:
    """`values` (JSON text or a mapping) as a `kind`. Raises `ConfigurationError` that names the
    first wrong field."""
    try:
        if isinstance(values, str):
            return kind.model_validate_json(values)
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigurationError(f"{what}{name}: {first['msg']}") from error


def read(path: Path) -> UnitCosts:
    """Raises `ConfigurationError` that names the file or the first wrong field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"unit costs: {path} can't be read: {error.strerror}") from error
    return checked(UnitCosts, text, "unit costs: ")


def write(costs: UnitCosts, path: Path) -> None:
    path.write_text(costs.model_dump_json(indent=2) + "\n", encoding="utf-8")
