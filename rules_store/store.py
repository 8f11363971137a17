"""The face of the package: everything the gateway does with rules goes through `RuleStore`.

store = await RuleStore.open("sqlite:///PATH", embedding_model="all-MiniLM-L6-v2")
hits = store.search("default", vector, Polarity.POSITIVE, k=10)
await store.rules.retire(hits.hits[0].id, change=Change("kim", "wrong for fractions"))
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from rules_store.database import migrate, open_database
from rules_store.errors import StoreUnavailable
from rules_store.index.caches import Caches
from rules_store.index.rule_index import unit
from rules_store.models.examples import ExampleHit
from rules_store.models.rules import Polarity, RuleHit, RuleState, SearchResult, Vector
from rules_store.models.stats import Parity, Stats
from rules_store.operations import maintenance
from rules_store.operations.context import StoreContext
from rules_store.operations.curation import CurationOperations
from rules_store.operations.effect import EffectOperations
from rules_store.operations.embedder import EmbedderOperations, generation_name
from rules_store.operations.episodes import EpisodeOperations
from rules_store.operations.evidence import EvidenceOperations
from rules_store.operations.examples import ExampleOperations
from rules_store.operations.exchange import ExchangeOperations
from rules_store.operations.exposures import ExposureCounter
from rules_store.operations.history import HistoryOperations
from rules_store.operations.jobs import JobOperations
from rules_store.operations.keys import KeyOperations
from rules_store.operations.namespaces import NamespaceOperations
from rules_store.operations.rules import RuleOperations
from rules_store.operations.sessions import SessionOperations
from rules_store.operations.store_copy import check_whole
from rules_store.options import DEFAULT_OPTIONS, StoreOptions
from rules_store.repository import (
    copies,
    embedders,
    episodes,
    events,
    examples,
    jobs,
    namespaces,
    rules,
)

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time now, aware."""
    return datetime.now(UTC)


class RuleStore:
    """SQL is the truth; the in-memory FAISS index is a cache of it, caught up by event number.

    Opened by `open`, closed by `close`; belongs to the event loop that opened it. What can be done
    is grouped by subject (`store.rules.get(...)`); search and upkeep are on the store itself.
    Whatever is awaited may raise `StoreUnavailable`; nothing was changed then.
    """

    def __init__(self, context: StoreContext) -> None:
        self.context = context
        """What the groups of operations share, for tests and benchmarks that must look inside."""
        self._keeps_snapshot = True
        self.rules = RuleOperations(context)
        """Rules: read, searched, and changed by an operator."""
        self.examples = ExampleOperations(context)
        """Examples: read, searched, and changed by an operator."""
        self.curation = CurationOperations(context)
        """Many rules at once: pruned by a policy, merged."""
        self.exchange = ExchangeOperations(context)
        """Rules on their way out of a store and into another one."""
        self.episodes = EpisodeOperations(context)
        """Requests, from their arrival to what became of them."""
        self.jobs = JobOperations(context)
        """Learning jobs, in a worker's hands and in an operator's."""
        self.evidence = EvidenceOperations(context)
        """What rules are worth: feedback, outcomes, trials."""
        self.effect = EffectOperations(context)
        """What steering does on live traffic, and what it costs."""
        self.namespaces = NamespaceOperations(context)
        """Namespaces and their settings."""
        self.keys = KeyOperations(context)
        """API keys."""
        self.sessions = SessionOperations(context)
        """Who is signed in to the console."""
        self.embedder = EmbedderOperations(context)
        """The embedding model behind its name."""
        self.history = HistoryOperations(context)
        """Events, snapshots, rollbacks, numbers over time."""

    # -- opening and closing

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        embedding_model: str,
        dimension: int | None = None,
        data_dir: Path | None = None,
        options: StoreOptions = DEFAULT_OPTIONS,
        clock: Callable[[], datetime] = utc_now,
        upgrade: bool = True,
    ) -> Self:
        """Loads the index, and returns a store that can be used.

        `upgrade`: a database is made where there is none, and brought to this version's schema
        where it has an older one; otherwise such are refused, nothing is made or changed by
        opening, and no snapshot is written by closing.

        `database_url` is `sqlite:///PATH` (or `sqlite+aiosqlite:///PATH`) or `postgresql://...`.
        `dimension` None is taken from the first vector of this model, stored or written.
        `data_dir` is where a snapshot of the index is kept; None keeps none.
        Raises StoreUnavailable with one sentence that says what to mend (DatabaseMissing,
        SchemaOutdated, OlderProcesses).
        """
        await (migrate.upgrade if upgrade else migrate.check)(database_url, options)
        database = open_database(database_url, options)
        try:
            await check_whole(database)
            async with database.read() as connection:
                known = await embedders.find(connection, embedding_model)
            kept = generation_name(embedding_model, 0 if known is None else known.generation)
            caches = Caches(database, kept, dimension, data_dir, options, clock)
            await caches.load()
            database.check_there()
        except BaseException:
            await database.close()
            raise
        counter = ExposureCounter(database)
        store = cls(StoreContext(database, caches, counter, options, embedding_model, kept, clock))
        store._keeps_snapshot = upgrade
        return store

    async def close(self) -> None:
        """Writes the index snapshot (where there is a data_dir) and closes the database."""
        try:
            if self._keeps_snapshot:
                await self.save_snapshot()
        except StoreUnavailable as error:
            logger.warning("index snapshot not written: %s", error)
        finally:
            await self.context.database.close()

    async def begin_to_serve(self) -> None:
        """From now on requests are answered from this store: where it was copied, no copy goes on
        into it."""
        async with self.context.database.read() as connection:
            copied = await copies.under_way(connection) is not None
        if copied:
            await self.context.database.transact(copies.forget)

    async def ping(self) -> None:
        """One trivial query, and one trivial write. Raises StoreUnavailable that says what is wrong
        with the database: locked, read-only, full, gone."""
        self.context.database.check_there()
        async with self.context.database.read() as connection:
            await rules.identity_of_store(connection)
        await self.context.database.transact(rules.touch, at_request_start=True)

    def is_incomplete(self, namespace: str) -> bool:
        """Whether this namespace has active rules or examples that no search finds, as they have no
        vector yet; no I/O."""
        return namespace in self.embedder.unembedded

    @property
    def options(self) -> StoreOptions:
        """What the store was opened with."""
        return self.context.options

    @property
    def embedding_model(self) -> str:
        """The model whose vectors are searched and written."""
        return self.context.embedding_model

    # -- the index

    def search(
        self,
        namespace: str,
        vector: Vector,
        polarity: Polarity,
        k: int,
        *,
        triggers: bool = True,
    ) -> SearchResult:
        """The k active rules nearest to `vector`, most similar first; no I/O.

        Similarity is the larger cosine of text and trigger, or of the text alone. An unknown
        namespace has no rules. Raises InvalidVector.
        """
        query = unit(vector, self.dimension)
        return self.context.index.search(namespace, query, polarity, k, triggers=triggers)

    def search_examples(
        self,
        namespace: str,
        vector: Vector,
        k: int,
        *,
        floor: float = -1.0,
        instructions: str | None = None,
    ) -> tuple[ExampleHit, ...]:
        """The k examples whose questions are nearest to `vector`, nearest first; no I/O.

        They are active, not expired by the store's clock, in no conflict, at least `floor` near,
        and of one question (the same, or nearly: `CONFLICT_COSINE`) only the newest verified. Those
        with a label whose request had these `instructions` are of the same task, whatever their
        questions are about: they may be less near. An unknown namespace has none. Raises
        InvalidVector.
        """
        query = unit(vector, self.dimension)
        now = self.context.clock()
        return self.context.caches.examples.search(namespace, query, k, floor, now, instructions)

    @property
    def dimension(self) -> int | None:
        """Of the embedding model's vectors; None while none has been seen."""
        return self.context.caches.dimension

    @property
    def rules_indexed(self) -> int:
        """Active and candidate rules in this process's index."""
        return len(self.context.index)

    @property
    def examples_indexed(self) -> int:
        """Active examples in this process's index."""
        return len(self.context.caches.examples)

    def has_rules(self, namespace: str) -> bool:
        """Whether `search` could find anything in this namespace; no I/O."""
        return self.context.index.has_active(namespace)

    def has_examples(self, namespace: str) -> bool:
        """Whether `search_examples` could find anything in this namespace; no I/O."""
        return self.context.caches.examples.has(namespace)

    def unchanged_rules(self, namespace: str, hits: Iterable[RuleHit]) -> list[RuleHit]:
        """Those that are active still, with the same text; no I/O."""
        return self.context.index.unchanged(namespace, hits)

    def unchanged_examples(self, namespace: str, hits: Iterable[ExampleHit]) -> list[ExampleHit]:
        """Those that may be recalled still, with the same question and answer; no I/O."""
        return self.context.caches.examples.unchanged(namespace, hits, self.context.clock())

    async def catch_up(self) -> None:
        """Applies to the caches what any process has committed since this one last looked."""
        await self.context.caches.catch_up()

    async def watch(self, interval: float) -> None:
        """Calls `catch_up` when the database says that something is new, and every `interval`
        seconds, until cancelled; failures are logged."""
        await maintenance.watch(self.context, self.embedder, interval)

    async def rebuild(self) -> None:
        """Builds a new index from SQL aside and swaps it in."""
        await self.context.caches.rebuild()

    async def save_snapshot(self) -> None:
        """Writes the index to the data directory. A full disk is logged, no error."""
        await self.context.caches.save_snapshot()

    # -- numbers

    async def parity(self) -> Parity:
        """The index against SQL, for /readyz; both as of one moment, whoever writes meanwhile."""
        return await self.context.caches.parity()

    async def stats(self, within: Collection[str] | None = None) -> Stats:
        """Exact counts of all that is stored in these namespaces (None: in all), at one moment."""
        async with self.context.database.read() as connection:
            counts = await rules.counts(connection)
            of_examples = await examples.counts(connection)
            names = await namespaces.names(connection)
            by_status = await episodes.counts(connection, within)
            by_job_state = await jobs.counts(connection, within)
            last = await events.last_id(connection)
        states: Counter[str] = Counter({state.value: 0 for state in RuleState})
        polarities: Counter[str] = Counter()
        spaces: dict[str, dict[str, int]] = {}
        example_states: Counter[str] = Counter({state.value: 0 for state in RuleState})
        example_spaces: dict[str, dict[str, int]] = {}
        if within is not None:
            names = [name for name in names if name in within]
            counts = [each for each in counts if each[0] in within]
            of_examples = [each for each in of_examples if each[0] in within]
        for namespace, state, count in of_examples:
            example_states[state] += count
            example_spaces.setdefault(namespace, {})[state] = count
        for namespace, polarity, state, count in counts:
            states[state] += count
            if state == RuleState.ACTIVE:
                polarities[polarity] += count
            space = spaces.setdefault(namespace, {})
            space[state] = space.get(state, 0) + count
        return Stats(
            namespaces=len(names),
            rules=dict(states),
            rules_by_polarity=dict(polarities),
            rules_by_namespace=spaces,
            examples=dict(example_states),
            examples_by_namespace=example_spaces,
            episodes=by_status,
            jobs=by_job_state,
            last_event=last,
        )
