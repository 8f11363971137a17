"""The rules' counts of exposures, which are added up apart from the requests."""

from __future__ import annotations

import asyncio
import logging

from rules_store.database import Database
from rules_store.errors import StoreUnavailable
from rules_store.repository import evidence

logger = logging.getLogger(__name__)


class ExposureCounter:
    """Requests would queue for the rows of the most used rules if each of them counted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.pending = True
        """Whether this process may have written exposures that no rule's count has."""

    async def count(self, pause: float = 0.0) -> None:
        """Brings the counts up to what was written; whoever shows or uses a count asks for it
        first. `pause`: seconds between two portions. A database that is away is logged."""
        if not self.pending:
            return
        self.pending = False
        try:
            while True:
                if not await self._database.transact(evidence.count_exposures):
                    break
                await asyncio.sleep(pause)
        except BaseException as error:
            self.pending = True
            if not isinstance(error, StoreUnavailable):
                raise
            logger.warning("exposures are counted later: %s", error)
