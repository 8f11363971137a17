"""Standings, explored questions and choices as this process knows them: retrieval costs no SQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.index.choice_index import ChoiceIndex
from rules_store.index.precedent_index import PrecedentIndex
from rules_store.models.evidence import Standing
from rules_store.repository import choices, precedents, standings

_COMMITS_WITHIN = timedelta(seconds=5)
"""A transaction may commit so long after the moment that it wrote down."""
_NEXT_MOMENT = timedelta(microseconds=1)


class EvidenceCache:
    """As of the last `follow`."""

    def __init__(self, embedding_model: str, precedents: int, choices: int) -> None:
        """`precedents`, `choices`: so many of a namespace are kept."""
        self._model = embedding_model
        self._standings_seen = _Seen()
        self._choices_seen = _Seen()
        self.standings: dict[str, Standing] = {}
        self.precedents = PrecedentIndex(precedents)
        self.choices = ChoiceIndex(choices)

    async def follow(self, connection: AsyncConnection, now: datetime) -> None:
        """Takes up what is new. It has no events: evidence is no change of a rule."""
        changed = await standings.since(connection, self._standings_seen.since(now))
        places = await precedents.places_after(connection, self._model, self.precedents.last_seq)
        chosen = await choices.changed_since(
            connection, self._model, self._choices_seen.since(now), self.choices.keep
        )
        for standing in changed:
            self.standings[standing.item_id] = standing
            self._standings_seen.note(standing.at)
        self.precedents.add(places)
        self.choices.put(chosen)
        for choice in chosen:
            self._choices_seen.note(choice.at)

    def forget(self, namespace: str) -> None:
        """What is known of a namespace that was deleted."""
        self.precedents.forget(namespace)
        self.choices.forget(namespace)
        for item_id in [id for id, each in self.standings.items() if each.namespace == namespace]:
            del self.standings[item_id]


class _Seen:
    """How far rows without numbers have been read that tell when they changed."""

    def __init__(self) -> None:
        self._latest: datetime | None = None
        """Moment of the newest change that was seen."""
        self._latest_seen = 0.0
        """When it was, by a clock that nobody sets."""

    def note(self, at: datetime) -> None:
        if self._latest is None or at > self._latest:
            self._latest, self._latest_seen = at, monotonic()

    def since(self, now: datetime) -> datetime | None:
        """From where on to look for changes; None: from the beginning."""
        if self._latest is None:
            return None
        since = self._latest - _COMMITS_WITHIN
        if monotonic() - self._latest_seen > 2 * _COMMITS_WITHIN.total_seconds():
            # Whatever was under way then has been seen: it need not be read again and again.
            since = self._latest + _NEXT_MOMENT
        # A clock that was put back would hide what is new until it has caught up.
        return min(since, now - _COMMITS_WITHIN)
