"""What clients, labels and verifiers said about answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.dialect import insert_unless_there
from rules_store.database.schema import feedback
from rules_store.models.feedback import NO_EFFECT, Feedback, FeedbackEffect, FeedbackSource

_OF_EPISODE = (
    select(feedback).where(feedback.c.episode_id == bindparam("episode")).order_by(feedback.c.seq)
)
_OF_KEY = _OF_EPISODE.where(feedback.c.key == bindparam("given"))


async def insert_feedback(connection: AsyncConnection, new: Feedback) -> bool:
    """False when its key is taken for this episode."""
    values = {
        "id": new.id,
        "episode_id": new.episode_id,
        "namespace": new.namespace,
        "source": new.source.value,
        "score": new.score,
        "label": new.label,
        "verified": new.verified,
        "correction": new.correction,
        "outdated": new.outdated,
        "comment": new.comment,
        "key": new.key,
        "created_at": new.created_at,
        "key_id": new.key_id,
    }
    statement = insert_unless_there(connection, feedback)
    return (await connection.execute(statement, values)).rowcount == 1


async def set_effect(connection: AsyncConnection, feedback_id: str, effect: FeedbackEffect) -> None:
    """What followed from it."""
    kept = {name: value for name, value in asdict(effect).items() if value not in (None, False, ())}
    if effect.right is False:
        kept["right"] = False
    await connection.execute(
        update(feedback).where(feedback.c.id == feedback_id).values(effect=kept or None)
    )


async def of_key(connection: AsyncConnection, episode_id: str, key: str) -> Feedback:
    """The feedback that came under this key; there must be one."""
    row = (await connection.execute(_OF_KEY, {"episode": episode_id, "given": key})).one()
    return _feedback(row)


async def of_episode(connection: AsyncConnection, episode_id: str) -> list[Feedback]:
    """Oldest first."""
    rows = await connection.execute(_OF_EPISODE, {"episode": episode_id})
    return [_feedback(row) for row in rows]


async def of_episodes(
    connection: AsyncConnection, episode_ids: Sequence[str]
) -> dict[str, list[Feedback]]:
    """Episode -> what was said of it, oldest first, of those of which anything was."""
    found: dict[str, list[Feedback]] = {}
    statement = select(feedback).where(feedback.c.episode_id.in_(episode_ids))
    for row in await connection.execute(statement.order_by(feedback.c.seq)):
        found.setdefault(row.episode_id, []).append(_feedback(row))
    return found


def _feedback(row: Row[Any]) -> Feedback:
    return Feedback(
        id=row.id,
        episode_id=row.episode_id,
        namespace=row.namespace,
        source=FeedbackSource(row.source),
        score=row.score,
        label=row.label,
        verified=row.verified,
        correction=row.correction,
        outdated=row.outdated,
        comment=row.comment,
        key=row.key,
        effect=_effect(row.effect),
        created_at=row.created_at,
        key_id=row.key_id,
    )


def _effect(stored: dict[str, Any] | None) -> FeedbackEffect:
    if stored is None:
        return NO_EFFECT
    return FeedbackEffect(**{**stored, "retired": tuple(stored.get("retired", ()))})
