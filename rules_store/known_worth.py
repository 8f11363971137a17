"""Standings and explored questions as this process knows them: retrieval costs no SQL."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import Look
from rules_store.evidence import Standing
from rules_store.neighbourhood import Neighbourhood
from rules_store.repository import precedents, standings
from rules_store.repository.precedents import Place

_COMMITS_WITHIN = timedelta(seconds=5)


class KnownWorth:
    def __init__(self, embedding_model: str, keep: int) -> None:
        self._model = embedding_model
        self._since: datetime | None = None
        self.standings: dict[str, Standing] = {}
        self.precedents = Neighbourhood(keep)

    async def follow(self, look: Look, now: datetime) -> None:
        """Takes up what is new. It has no events: evidence is no change of a rule."""
        since = self._since
        if since is not None:
            # A clock that was put back would hide what is new until it has caught up.
            since = min(since, now - _COMMITS_WITHIN)
        last = self.precedents.last_seq

        async def news(connection: AsyncConnection) -> tuple[list[Standing], list[Place]]:
            return (
                await standings.since(connection, since),
                await precedents.places_after(connection, self._model, last),
            )

        changed, places = await look(news)
        for standing in changed:
            self.standings[standing.rule_id] = standing
            # A transaction may commit some seconds after the moment that it wrote down.
            latest = standing.at - _COMMITS_WITHIN
            if self._since is None or latest > self._since:
                self._since = latest
        self.precedents.add(places)

    def forget(self, namespace: str) -> None:
        self.precedents.forget(namespace)
        for rule_id in [id for id, each in self.standings.items() if each.namespace == namespace]:
            del self.standings[rule_id]
