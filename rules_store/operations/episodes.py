"""Episodes: one row per request, from its arrival to what became of it, kept as long as their
namespace says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import UnknownEpisode, UnknownNamespace
from rules_store.models import paging
from rules_store.models.effect import Served
from rules_store.models.episodes import (
    EVERY_EPISODE,
    Episode,
    EpisodeFilter,
    EpisodeStart,
    EpisodeStatus,
)
from rules_store.models.events import Change
from rules_store.models.evidence import NO_FINDINGS, Exposure, Findings
from rules_store.models.jobs import JobKind
from rules_store.models.paging import Page
from rules_store.models.rules import Rule
from rules_store.operations.context import StoreContext
from rules_store.operations.credit import store_findings
from rules_store.repository import effect, episodes, events, evidence, jobs, namespaces

_AT_ONCE = 500  # so that no write waits long for one of these


class EpisodeOperations:
    """`store.episodes`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def begin(
        self,
        episode_id: str,
        *,
        namespace: str,
        mode: str,
        question: str,
        model: str,
        request_id: str | None = None,
        body_hash: str | None = None,
        is_retry: bool = False,
        trace: dict[str, Any] | None = None,
        key_id: str | None = None,
    ) -> EpisodeStart:
        """Inserts a pending episode. Gives up within about `options.begin_timeout`. `key_id`: who
        asks.

        A request id that this namespace has seen is marked in the result, for the caller to learn
        nothing from it. So is, of a request that says that it `is_retry`, an earlier one with the
        same body. Raises UnknownNamespace, StoreUnavailable; ValueError when the id is
        taken.
        """
        now = self._context.clock()
        window = timedelta(seconds=self._context.options.retry_window)
        episode = Episode(
            id=episode_id,
            namespace=namespace,
            mode=mode,
            status=EpisodeStatus.PENDING,
            reason=None,
            question=storable(question),
            answer=None,
            model=storable(model),
            trace=trace or {},
            created_at=now,
            updated_at=now,
            key_id=key_id,
        )
        if request_id is not None:
            request_id = storable(request_id)

        async def begin(connection: AsyncConnection) -> EpisodeStart:
            if namespace not in self._context.namespaces:
                known = await namespaces.find(connection, namespace)
                if known is None:
                    raise UnknownNamespace(namespace)
                self._context.namespaces.put(known)
            same_body = None
            if is_retry and body_hash is not None:
                same_body = await episodes.id_of_body(
                    connection, namespace, body_hash, now - window
                )
            if await episodes.insert_episode(connection, episode, request_id, body_hash):
                return EpisodeStart(episode_id, None, same_body)
            first = None
            if request_id is not None:
                first = await episodes.id_of_request(connection, namespace, request_id)
            # The request id stays with the episode that came first.
            if not await episodes.insert_episode(connection, episode, None, body_hash):
                raise ValueError(f"there is an episode {episode_id!r} already")
            return EpisodeStart(episode_id, first, same_body)

        try:
            return await self._context.database.transact(begin, at_request_start=True)
        except IntegrityError as error:
            # Another process has deleted it, and this one has not caught up yet.
            self._context.namespaces.forget(namespace)
            raise UnknownNamespace(namespace) from error

    async def finish(
        self,
        episode_id: str,
        *,
        answer: str | None,
        trace: dict[str, Any],
        status: EpisodeStatus = EpisodeStatus.SKIPPED,
        reason: str | None = None,
        job_payload: dict[str, Any] | None = None,
        exposures: Sequence[Exposure] = (),
        findings: Findings = NO_FINDINGS,
        served: Served | None = None,
    ) -> None:
        """Answer, trace (replaces the first one), an exposure of each rule that was injected or
        withheld, what was drawn for the request (`served`), what an exploration found out and, with
        `job_payload`, a durable learning job (status `learning`): all in one transaction.

        An episode that is finished already stays as it is. Raises UnknownEpisode.
        """
        now = self._context.clock()

        async def finish(connection: AsyncConnection) -> None:
            finished = await episodes.finish(
                connection,
                episode_id,
                now,
                status=status if job_payload is None else EpisodeStatus.LEARNING,
                reason=None if reason is None else storable(reason),
                answer=None if answer is None else storable(answer),
                trace=trace,
            )
            if finished is None:
                if await episodes.find(connection, episode_id) is None:
                    raise UnknownEpisode(episode_id)
                return
            namespace, key_id = finished
            await evidence.add_exposures(connection, namespace, episode_id, exposures, now, key_id)
            if served is not None:
                await effect.add_request(connection, namespace, episode_id, served, now)
            await store_findings(self._context, connection, namespace, episode_id, findings, key_id)
            if job_payload is not None:
                await jobs.insert_job(
                    connection,
                    episode_id,
                    JobKind.EPISODE,
                    episode_id,
                    namespace,
                    job_payload,
                    now,
                    key_id,
                )
                await self._context.announce_job(connection, episode_id, new=True)

        await self._context.database.transact(finish, at_request_end=True)
        self._context.exposures.pending |= bool(exposures)

    async def annotate(self, episode_id: str, entries: dict[str, Any]) -> None:
        """More entries of the episode's trace. Raises UnknownEpisode."""

        async def annotate(connection: AsyncConnection) -> None:
            if await episodes.find(connection, episode_id) is None:
                raise UnknownEpisode(episode_id)
            await episodes.annotate(connection, episode_id, entries)

        await self._context.database.transact(annotate)

    async def get(self, episode_id: str) -> Episode:
        """Raises UnknownEpisode."""
        async with self._context.database.read() as connection:
            episode = await episodes.find(connection, episode_id)
        if episode is None:
            raise UnknownEpisode(episode_id)
        return episode

    async def of_request(self, namespace: str, *request_ids: str) -> Episode:
        """The episode of the request that has the first of these ids that is known in this
        namespace. Raises UnknownEpisode."""
        wanted = [storable(each) for each in request_ids]
        async with self._context.database.read() as connection:
            known = await episodes.ids_of_requests(connection, namespace, wanted)
            found = next((known[each] for each in wanted if each in known), None)
            episode = None if found is None else await episodes.find(connection, found)
        if episode is None:
            raise UnknownEpisode(request_ids[0])
        return episode

    async def source_of(self, rule: Rule) -> Episode | None:
        """The episode that the rule was learned from. None where there is no such one in the
        rule's namespace: an imported rule may name any, another's too."""
        if rule.source_episode is None:
            return None
        async with self._context.database.read() as connection:
            episode = await episodes.find(connection, rule.source_episode)
        return episode if episode is not None and episode.namespace == rule.namespace else None

    async def list(
        self, where: EpisodeFilter = EVERY_EPISODE, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Episodes, newest first, with the part of their traces that a list shows. Raises
        InvalidCursor."""
        before = paging.decode("episodes", cursor)
        async with self._context.database.read() as connection:
            found, total = await episodes.page(connection, where, limit + 1, before)
        return paging.page("episodes", found, total, limit)

    async def sweep_interrupted(self, older_than: timedelta) -> int:
        """Marks pending episodes without a job as skipped('interrupted'); returns how many."""
        now = self._context.clock()

        async def sweep(connection: AsyncConnection) -> int:
            return await episodes.sweep(connection, now - older_than, now)

        return await self._context.database.transact(sweep)

    async def expire(self, now: datetime | None = None) -> int:
        """Deletes questions, answers and traces that are older than their namespace keeps them;
        how many. Those whose learning is still to be done are spared. Each transaction of some
        hundreds writes an event. `now`: where it is earlier than the clock says."""
        total = 0
        clock = self._context.clock()
        now = clock if now is None else min(now, clock)
        for namespace in self._context.namespaces.all():
            days = namespace.settings.retention_days
            while days is not None:
                gone = await self._expire(namespace.name, days, now)
                total += gone
                if gone < _AT_ONCE:
                    break
        return total

    async def _expire(self, name: str, days: int, now: datetime) -> int:
        async def expire(connection: AsyncConnection) -> int:
            # First, as every writer of events does: one who has that turn may wait for episodes.
            await self._context.database.order_events(connection)
            old = await episodes.expired(connection, name, now - timedelta(days=days), _AT_ONCE)
            if old:
                await episodes.remove(connection, old)
                await events.append(
                    connection,
                    now,
                    name,
                    "episodes.expired",
                    Change(events.POLICY, f"older than {days} days"),
                    after={"episodes": len(old)},
                )
            return len(old)

        return await self._context.database.transact(expire)
