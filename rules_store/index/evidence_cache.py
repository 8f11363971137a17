"""Standings and explored questions as this process knows them: retrieval costs no SQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.index.precedent_index import PrecedentIndex
from rules_store.models.evidence import Standing
from rules_store.repository import precedents, standings

_COMMITS_WITHIN = timedelta(seconds=5)
"""A transaction may commit so long after the moment that it wrote down."""
_NEXT_MOMENT = timedelta(microseconds=1)


class EvidenceCache:
    """As of the last `follow`."""

    def __init__(self, embedding_model: str, keep: int) -> None:
        self._model = embedding_model
        self._latest: datetime | None = None
        """Moment of the newest standing that was seen."""
        self._latest_seen = 0.0
        """When it was, by a clock that nobody sets."""
        self.standings: dict[str, Standing] = {}
        self.precedents = PrecedentIndex(keep)

    async def follow(self, connection: AsyncConnection, now: datetime) -> None:
        """Takes up what is new. It has no events: evidence is no change of a rule."""
        changed = await standings.since(connection, self._since(now))
        places = await precedents.places_after(connection, self._model, self.precedents.last_seq)
        for standing in changed:
            self.standings[standing.item_id] = standing
            if self._latest is None or standing.at > self._latest:
                self._latest, self._latest_seen = standing.at, monotonic()
        self.precedents.add(places)

    def _since(self, now: datetime) -> datetime | None:
        """From where on to look for standings; None: from the beginning."""
        if self._latest is None:
            return None
        since = self._latest - _COMMITS_WITHIN
        if monotonic() - self._latest_seen > 2 * _COMMITS_WITHIN.total_seconds():
            # Whatever was under way then has been seen: it need not be read again and again.
            since = self._latest + _NEXT_MOMENT
        # A clock that was put back would hide what is new until it has caught up.
        return min(since, now - _COMMITS_WITHIN)

    def forget(self, namespace: str) -> None:
        """What is known of a namespace that was deleted."""
        self.precedents.forget(namespace)
        for item_id in [id for id, each in self.standings.items() if each.namespace == namespace]:
            del self.standings[item_id]
