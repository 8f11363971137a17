"""What every part of the store stands on: the database, the index and how it keeps up with SQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Self

from rules_store.types import DEFAULT_OPTIONS, Candidate, Parity, Polarity, StoreOptions, Vector


class StoreCore:
    """Opened by `open`, closed by `close`; belongs to the event loop that opened it."""

    embedding_model: str
    options: StoreOptions

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        embedding_model: str,
        dimension: int | None = None,
        data_dir: Path | None = None,
        options: StoreOptions = DEFAULT_OPTIONS,
        clock: Callable[[], datetime] | None = None,
    ) -> Self:
        """Migrates the schema, loads the index, and returns a store that can be used.

        `database_url` is `sqlite:///PATH` (or `sqlite+aiosqlite:///PATH`) or `postgresql://...`.
        `dimension` None is taken from the first vector of this model, stored or written.
        `data_dir` is where a snapshot of the index is kept; None keeps none.
        Raises StoreUnavailable with one sentence that says what to mend.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Writes the index snapshot (where there is a data_dir) and closes the database."""
        raise NotImplementedError

    async def ping(self) -> None:
        """One trivial query. Raises StoreUnavailable."""
        raise NotImplementedError

    def search(self, namespace: str, vector: Vector, polarity: Polarity, k: int) -> list[Candidate]:
        """The k active rules nearest to `vector`, most similar first; no I/O.

        Similarity is the larger cosine of text and trigger. An unknown namespace has no rules.
        Raises InvalidVector.
        """
        raise NotImplementedError

    async def catch_up(self) -> None:
        """Applies to the index what any process has committed since it last looked."""
        raise NotImplementedError

    async def watch(self, interval: float) -> None:
        """Calls `catch_up` every `interval` seconds until cancelled; failures are logged."""
        raise NotImplementedError

    async def rebuild(self) -> None:
        """Builds a new index from SQL aside and swaps it in."""
        raise NotImplementedError

    async def parity(self) -> Parity:
        """The index against SQL, for /readyz."""
        raise NotImplementedError
