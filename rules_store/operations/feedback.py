"""Feedback on answers: an append-only list for each episode."""

from __future__ import annotations

import secrets
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import clean
from rules_store.errors import FeedbackConflict, UnknownEpisode
from rules_store.models.evidence import Outcome
from rules_store.models.feedback import Feedback, NewFeedback
from rules_store.operations.credit import CreditOperations
from rules_store.repository import episodes, feedback, precedents


class FeedbackOperations(CreditOperations):
    async def add_feedback(
        self, episode_id: str, new: NewFeedback, outcome: Outcome | None = None
    ) -> Feedback:
        """What is stored now. Under a key that this episode has seen that is the first feedback,
        and nothing is added. `outcome`: what it says about the answer, for the credit of rules;
        None is no evidence.

        Raises UnknownEpisode; FeedbackConflict where the first one under the key said something
        else; ValueError without score, label and verified.
        """
        if new.score is None and new.label is None and new.verified is None:
            raise ValueError("a feedback needs a score, a label or a verifier's result")
        now = self._clock()

        async def add(connection: AsyncConnection) -> Feedback:
            episode = await episodes.find(connection, episode_id)
            if episode is None:
                raise UnknownEpisode(episode_id)
            given = Feedback(
                id=f"fb_{secrets.token_hex(12)}",
                episode_id=episode_id,
                namespace=episode.namespace,
                source=new.source,
                score=new.score,
                label=_cleaned(new.label),
                verified=new.verified,
                comment=_cleaned(new.comment),
                key=_cleaned(new.key),
                created_at=now,
            )
            if await feedback.insert_feedback(connection, given):
                if outcome is not None:
                    await self._credit(connection, episode.namespace, episode_id, outcome, now)
                if given.label is not None:
                    await precedents.set_label(connection, episode_id, given.label)
                return given
            assert given.key is not None
            first = await feedback.of_key(connection, episode_id, given.key)
            if replace(given, id=first.id, created_at=first.created_at) != first:
                raise FeedbackConflict(given.key)
            return first

        return await self._database.transact(add)

    async def feedback_of(self, episode_id: str) -> list[Feedback]:
        """Oldest first; none of an unknown episode."""
        async with self._database.read() as connection:
            return await feedback.of_episode(connection, episode_id)


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean(text)
