"""Exposures, outcomes and trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Row, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database import compiled
from rules_store.database.dialect import insert_or_replace, insert_unless_there
from rules_store.database.schema import episodes, examples, exposures, outcomes, rules, trials
from rules_store.models.evidence import (
    STRENGTH,
    CreditedOutcome,
    Exposure,
    ExposureRecord,
    Outcome,
    Reference,
    Signal,
    Trial,
)
from rules_store.policy.votes import Vote

_EXPOSE = insert(exposures)
CREDITED = 2000
"""Exposures of one item that are looked at to tell whose word its standing is."""
COUNTED_AT_ONCE = 200
"""Exposures; requests that write wait for so many at most."""
_UNCOUNTED = (
    select(exposures.c.seq)
    .where(~exposures.c.counted)
    .order_by(exposures.c.seq)
    .limit(COUNTED_AT_ONCE)
)
_COUNT = (
    update(exposures)
    .where(exposures.c.seq.in_(_UNCOUNTED), ~exposures.c.counted)
    .values(counted=True)
    .returning(exposures.c.namespace, exposures.c.item_id, exposures.c.withheld)
)
_ADD_TO_RULES, _ADD_TO_EXAMPLES = (
    update(items)
    .where(items.c.id == bindparam("item"), items.c.namespace == bindparam("space"))
    .values(exposures=items.c.exposures + bindparam("more"))
    for items in (rules, examples)
)
_EXPOSED = (
    select(exposures.c.item_id, exposures.c.withheld, exposures.c.created_at)
    .where(exposures.c.episode_id == bindparam("episode"))
    .order_by(exposures.c.item_id)  # the order in which their standings are locked
)
_EXPOSED_VOTES = select(exposures.c.item_id, exposures.c.vote).where(
    exposures.c.episode_id == bindparam("episode"), exposures.c.vote.is_not(None)
)
_VOTED = (
    update(exposures)
    .where(exposures.c.episode_id == bindparam("episode"), exposures.c.item_id == bindparam("item"))
    .values(vote=bindparam("value"), vote_key_id=bindparam("voter"))
)
_VOTES = select(exposures.c.similarity, exposures.c.vote, exposures.c.vote_key_id).where(
    exposures.c.vote.is_not(None)
)
_LATEST_VOTES = (
    _VOTES.where(exposures.c.namespace == bindparam("space"))
    .order_by(exposures.c.seq.desc())
    .limit(bindparam("latest"))
)
_OLDEST_FIRST = (outcomes.c.created_at, outcomes.c.key_id)
_OUTCOMES = (
    select(outcomes).where(outcomes.c.episode_id == bindparam("episode")).order_by(*_OLDEST_FIRST)
)


# -- exposures and outcomes


async def add_exposures(
    connection: AsyncConnection,
    namespace: str,
    episode_id: str,
    new: Sequence[Exposure],
    at: datetime,
    key_id: str | None,
) -> None:
    """`key_id`: who asked."""
    if new:
        await compiled.execute(
            connection,
            _EXPOSE,
            [
                {
                    "namespace": namespace,
                    "episode_id": episode_id,
                    "item_id": each.item_id,
                    "position": each.position,
                    "similarity": each.similarity,
                    "score": each.score,
                    "withheld": each.withheld,
                    "created_at": at,
                    "counted": False,
                    "key_id": key_id,
                }
                for each in new
            ],
        )


async def count_exposures(connection: AsyncConnection) -> bool:
    """Adds some of what nobody has counted yet to the counts of rules and examples. Whether there
    may be more."""
    found = (await connection.execute(_COUNT)).all()
    fresh = Counter((item_id, namespace) for namespace, item_id, withheld in found if not withheld)
    rows = [
        {"item": item_id, "space": namespace, "more": fresh[item_id, namespace]}
        for item_id, namespace in sorted(fresh)
    ]
    wanted = [row["item"] for row in rows]
    known = await connection.scalars(select(examples.c.id).where(examples.c.id.in_(wanted)))
    of_examples = set(known)
    # In one order everywhere, as `exposed` has it, so that two processes can't wait for each other.
    for is_example, some in groupby(rows, lambda row: row["item"] in of_examples):
        await connection.execute(_ADD_TO_EXAMPLES if is_example else _ADD_TO_RULES, list(some))
    return len(found) == COUNTED_AT_ONCE


async def exposed(connection: AsyncConnection, episode_id: str) -> list[tuple[str, bool, datetime]]:
    """(id, withheld, when) of every rule and example that had to do with an episode."""
    rows = await connection.execute(_EXPOSED, {"episode": episode_id})
    return [(row.item_id, row.withheld, row.created_at) for row in rows]


async def votes_of_episode(connection: AsyncConnection, episode_id: str) -> dict[str, float]:
    """By example: whether its label was the right one, as far as that is known."""
    rows = await connection.execute(_EXPOSED_VOTES, {"episode": episode_id})
    return {row.item_id: row.vote for row in rows}


async def set_vote(
    connection: AsyncConnection,
    episode_id: str,
    item_id: str,
    vote: float | None,
    voter: str | None,
) -> None:
    """Whether the label of an example that the episode was shown was the right one, and who told
    the right one."""
    given = {"episode": episode_id, "item": item_id, "value": vote, "voter": voter}
    await connection.execute(_VOTED, given)


async def votes_of_item(connection: AsyncConnection, item_id: str) -> list[Vote]:
    """Of one example."""
    statement = _VOTES.where(exposures.c.item_id == item_id)
    return _votes(await connection.execute(statement))


async def latest_votes(connection: AsyncConnection, namespace: str, latest: int) -> list[Vote]:
    """Of all examples of the namespace, the newest first."""
    given = {"space": namespace, "latest": latest}
    return _votes(await connection.execute(_LATEST_VOTES, given))


def _votes(rows: Iterable[Row[Any]]) -> list[Vote]:
    return [Vote(row.similarity, row.vote >= 0.5, row.vote_key_id) for row in rows]


async def shown_labels(connection: AsyncConnection, episode_id: str) -> dict[str, str]:
    """By id, the labels of the examples that had to do with an episode and have one."""
    statement = (
        select(examples.c.id, examples.c.label)
        .join_from(exposures, examples, exposures.c.item_id == examples.c.id)
        .where(exposures.c.episode_id == episode_id, examples.c.label.is_not(None))
    )
    return {row.id: row.label for row in await connection.execute(statement)}


async def share_judged(connection: AsyncConnection, namespace: str, among: int) -> tuple[int, int]:
    """(how many of them, how many) of the namespace's latest `among` answered episodes have a
    label's or a verifier's outcome."""
    latest = (
        select(episodes.c.id)
        .where(episodes.c.namespace == namespace, episodes.c.answer.is_not(None))
        .order_by(episodes.c.seq.desc())
        .limit(among)
        .subquery()
    )
    judged = (
        select(outcomes.c.episode_id)
        .where(
            outcomes.c.episode_id == latest.c.id,
            outcomes.c.source.in_([Signal.LABEL.value, Signal.VERIFIER.value]),
        )
        .exists()
    )
    statement = select(func.count().filter(judged), func.count()).select_from(latest)
    row = (await connection.execute(statement)).one()
    return int(row[0]), int(row[1])


async def strongest(
    connection: AsyncConnection, episode_id: str, *, lock: bool = False
) -> Outcome | None:
    """The outcome of the strongest signal that an episode has, of several who gave it the latest.
    `lock`: until the end of the transaction nobody else brings one, where the database locks
    rows."""
    if lock:
        mine = select(episodes.c.seq).where(episodes.c.id == episode_id)
        await connection.execute(mine.with_for_update())
    rows = await connection.execute(_OUTCOMES, {"episode": episode_id})
    return _strongest([Outcome(Signal(row.source), row.value) for row in rows])


def _strongest(found: Sequence[Outcome]) -> Outcome | None:
    """`found` has the oldest first."""
    latest_first = reversed(found)
    return max(latest_first, key=lambda outcome: STRENGTH[outcome.source], default=None)


async def put_outcome(
    connection: AsyncConnection,
    namespace: str,
    episode_id: str,
    outcome: Outcome,
    at: datetime,
    key_id: str | None,
) -> None:
    """In place of the earlier one of the same signal that the same key gave."""
    await connection.execute(
        insert_or_replace(connection, outcomes, "value", "weight", "created_at"),
        {
            "episode_id": episode_id,
            "source": outcome.source.value,
            "key_id": key_id or "",
            "namespace": namespace,
            "value": outcome.value,
            "weight": outcome.weight,
            "created_at": at,
        },
    )


async def exposures_of(
    connection: AsyncConnection, rule_id: str, limit: int
) -> list[ExposureRecord]:
    """The rule's latest exposures with their episodes' strongest outcomes, newest first."""
    rows = list(
        await connection.execute(
            select(exposures)
            .where(exposures.c.item_id == rule_id)
            .order_by(exposures.c.seq.desc())
            .limit(limit)
        )
    )
    found: dict[str, list[Outcome]] = {}
    ids = [row.episode_id for row in rows]
    given = select(outcomes).where(outcomes.c.episode_id.in_(ids)).order_by(*_OLDEST_FIRST)
    for row in await connection.execute(given):
        found.setdefault(row.episode_id, []).append(Outcome(Signal(row.source), row.value))
    records = []
    for row in rows:
        came = _strongest(found.get(row.episode_id, ()))
        records.append(
            ExposureRecord(
                episode_id=row.episode_id,
                position=row.position,
                similarity=row.similarity,
                score=row.score,
                at=row.created_at,
                source=None if came is None else came.source,
                value=None if came is None else came.value,
                weight=None if came is None else came.weight,
            )
        )
    return records


async def credited(
    connection: AsyncConnection, item_id: str, since: datetime | None
) -> list[CreditedOutcome]:
    """What the item's latest exposures (of `since` and later) have added to its standing."""
    latest = select(exposures).where(exposures.c.item_id == item_id)
    if since is not None:
        latest = latest.where(exposures.c.created_at >= since)
    shown = latest.order_by(exposures.c.seq.desc()).limit(CREDITED).subquery()
    rows = await connection.execute(
        select(
            *(shown.c[name] for name in ("episode_id", "withheld", "vote", "vote_key_id")),
            shown.c.created_at.label("shown_at"),
            *(outcomes.c[name] for name in ("source", "value", "key_id")),
        )
        .join_from(shown, outcomes, outcomes.c.episode_id == shown.c.episode_id)
        .order_by(shown.c.episode_id, *_OLDEST_FIRST)
    )
    by_episode = groupby(rows, lambda row: row.episode_id)
    return [_credited([row._mapping for row in some]) for _, some in by_episode]


def _credited(rows: Sequence[RowMapping]) -> CreditedOutcome:
    """Of one exposure, by its episode's outcomes, the oldest first."""
    by_outcome = {Outcome(Signal(row["source"]), row["value"]): row for row in rows}
    strongest = _strongest([Outcome(Signal(row["source"]), row["value"]) for row in rows])
    assert strongest is not None, "the rows are of outcomes"
    row = by_outcome[strongest]
    voted = row["vote"] is not None
    return CreditedOutcome(
        row["withheld"],
        row["shown_at"],
        row["vote"] if voted else row["value"],
        strongest.weight,
        not voted and strongest.source is Signal.AGREEMENT,
        row["vote_key_id"] if voted else row["key_id"],
    )


async def injected_since(
    connection: AsyncConnection, rule_id: str, since: datetime
) -> dict[str | None, int]:
    """How many requests of each API key the rule has steered from that moment on."""
    statement = (
        select(exposures.c.key_id, func.count())
        .where(
            exposures.c.item_id == rule_id,
            ~exposures.c.withheld,
            exposures.c.created_at >= since,
        )
        .group_by(exposures.c.key_id)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}


# -- trials


async def add_trial(
    connection: AsyncConnection,
    namespace: str,
    rule_id: str,
    text_hash: str,
    trial: Trial,
    at: datetime,
) -> bool:
    """False where these words of the rule have been tried on this episode."""
    statement = insert_unless_there(connection, trials)
    values = {
        "namespace": namespace,
        "rule_id": rule_id,
        "text_hash": text_hash,
        "episode_id": trial.episode_id,
        "with_rule": trial.with_rule,
        "without_rule": trial.without_rule,
        "reference": trial.reference.value,
        "weight": trial.weight,
        "created_at": at,
        "key_id": trial.key_id,
    }
    return (await connection.execute(statement, values)).rowcount == 1


async def trials_of(
    connection: AsyncConnection, rule_id: str, text_hash: str | None = None
) -> list[Trial]:
    """Newest first; of these words only, where a hash is given."""
    statement = select(trials).where(trials.c.rule_id == rule_id).order_by(trials.c.seq.desc())
    if text_hash is not None:
        statement = statement.where(trials.c.text_hash == text_hash)
    return [
        Trial(
            row.episode_id,
            row.with_rule,
            row.without_rule,
            Reference(row.reference),
            row.created_at,
            row.key_id,
        )
        for row in await connection.execute(statement)
    ]
