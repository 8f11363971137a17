"""Steps of the one transaction in which a feedback is stored with all that follows from it, and of
the one that ends its lesson. Each runs within `StoreContext.change`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.database.json_codec import storable
from rules_store.errors import FeedbackConflict, UnknownEpisode
from rules_store.models.episodes import Episode
from rules_store.models.events import EVIDENCE, Change, is_own_actor
from rules_store.models.evidence import STRENGTH, LinkKind, Signal
from rules_store.models.examples import Example, Given
from rules_store.models.feedback import (
    NO_EFFECT,
    Completion,
    Feedback,
    FeedbackEffect,
    NewFeedback,
    Teaching,
)
from rules_store.models.jobs import NO_SPEND, Job, JobKind
from rules_store.models.rules import RuleState
from rules_store.operations import effect, example_writes, rule_writes, voices
from rules_store.operations.context import StoreContext
from rules_store.operations.credit import credit
from rules_store.policy import votes
from rules_store.repository import (
    choices,
    episodes,
    events,
    evidence,
    examples,
    feedback,
    jobs,
    links,
    precedents,
)

FROZEN = "namespace_frozen"
OUTWEIGHED = "stronger_feedback_before"
"""A score makes no example where a label or a verifier has judged the answer."""
COMPLETED = "example.completed"


async def add(
    context: StoreContext,
    connection: AsyncConnection,
    episode_id: str,
    new: NewFeedback,
    teaching: Teaching,
    key_id: str | None,
) -> Feedback:
    """See `EvidenceOperations.add_feedback`."""
    episode = await episodes.find(connection, episode_id)
    if episode is None:
        raise UnknownEpisode(episode_id)
    given = _feedback(context, episode, new, key_id)
    if not await feedback.insert_feedback(connection, given):
        assert given.key is not None
        first = await feedback.of_key(connection, episode_id, given.key)
        same = replace(
            given,
            id=first.id,
            created_at=first.created_at,
            effect=first.effect,
            key_id=first.key_id,
        )
        if same != first:
            raise FeedbackConflict(given.key)
        return first
    if not teaching.learns:
        return given
    effect = await _follow(context, connection, episode, given, teaching)
    await feedback.set_effect(connection, given.id, effect)
    return replace(given, effect=effect)


def _feedback(
    context: StoreContext, episode: Episode, new: NewFeedback, key_id: str | None
) -> Feedback:
    return Feedback(
        id=f"fb_{secrets.token_hex(12)}",
        episode_id=episode.id,
        namespace=episode.namespace,
        source=new.source,
        score=new.score,
        label=_cleaned(new.label),
        verified=new.verified,
        correction=_cleaned(new.correction),
        outdated=new.outdated,
        comment=_cleaned(new.comment),
        key=_cleaned(new.key),
        effect=NO_EFFECT,
        created_at=context.clock(),
        key_id=key_id,
    )


async def _follow(
    context: StoreContext,
    connection: AsyncConnection,
    episode: Episode,
    given: Feedback,
    teaching: Teaching,
) -> FeedbackEffect:
    """Evidence always; examples and lessons where the namespace is not frozen."""
    before = await evidence.strongest(connection, episode.id, lock=True)
    first = not await _judged_before(connection, episode.id, given.id)
    await _credit(context, connection, episode, teaching, given.key_id)
    if given.label is not None:
        await precedents.set_label(connection, episode.id, given.label, given.key_id)
    if context.namespaces.is_frozen(episode.namespace):
        return FeedbackEffect(right=teaching.right, skipped=FROZEN)
    if first and teaching.right is not None:
        await _pay(context, connection, episode.namespace)
    if teaching.precedent is not None:
        keep = context.options.precedents
        model, now = context.embedding_model, context.clock()
        await precedents.add(
            connection,
            model,
            teaching.precedent,
            now,
            keep,
            asker=episode.key_id,
            labeller=given.key_id,
        )
    outweighed = (
        teaching.outcome is not None
        and teaching.outcome.source is Signal.CLIENT
        and before is not None
        and STRENGTH[before.source] > STRENGTH[Signal.CLIENT]
    )
    if outweighed:
        teaching = replace(teaching, example=None, wrong=None, job=None, skipped=OUTWEIGHED)
    retired = await _retire_refuted(context, connection, episode.namespace, teaching.votes)
    made, replaced = await _write_example(context, connection, episode, given, teaching)
    await _add_job(context, connection, given, teaching, made)
    return FeedbackEffect(
        right=teaching.right,
        example=None if made is None else made.id,
        example_state=None if made is None else made.state.value,
        lesson=teaching.job is not None,
        retired=(*replaced, *retired),
        skipped=teaching.skipped,
    )


async def _judged_before(connection: AsyncConnection, episode_id: str, but: str) -> bool:
    """Whether another feedback has judged the episode's answer."""
    others = await feedback.of_episode(connection, episode_id)
    return any(each.effect.right is not None for each in others if each.id != but)


async def _credit(
    context: StoreContext,
    connection: AsyncConnection,
    episode: Episode,
    teaching: Teaching,
    key_id: str | None,
) -> None:
    outcome, now = teaching.outcome, context.clock()
    if outcome is None:
        return
    await credit(
        context,
        connection,
        episode.namespace,
        episode.id,
        outcome,
        now,
        key_id=key_id,
        votes=teaching.votes,
    )
    await effect.guard(context, connection, episode.namespace, now)
    told = episode.trace.get("given") or {}
    # Where there was nothing to choose from, the outcome is of other questions than the chosen
    # ones: it would pass off what is hard about them as the choice's doing.
    chosen = told.get("chosen") if len(told.get("offered") or ()) > 1 else None
    strongest = await evidence.strongest(connection, episode.id)
    if chosen in set(Given) and strongest is not None:
        vector = example_writes.checked_vector(context, teaching.vector)
        await choices.put(
            connection,
            episode.id,
            episode.namespace,
            Given(chosen),
            strongest,
            context.embedding_model,
            vector,
            now,
            episode.key_id,
        )


async def _pay(context: StoreContext, connection: AsyncConnection, namespace: str) -> None:
    """One more judged answer pays for lessons."""
    minute = jobs.minute_of(context.clock())
    await jobs.add_spend(
        connection, namespace, minute, NO_SPEND, oldest=minute - jobs.SPEND_KEPT, answers_judged=1
    )


async def _write_example(
    context: StoreContext,
    connection: AsyncConnection,
    episode: Episode,
    given: Feedback,
    teaching: Teaching,
) -> tuple[Example | None, list[str]]:
    """The example that the feedback makes, and ids of those of the episode that it retires: all
    where the feedback says that they are outdated, those that another one takes the place of, and
    the episode's own answer where that was wrong."""
    change = Change(events.LEARNER, f"feedback {given.id} on {episode.id}", given.key_id)
    made: Example | None = None
    if teaching.example is not None and not given.outdated:
        made = await example_writes.keep(
            context, connection, teaching.example, teaching.vector, change, key=given.id
        )
        await links.add(
            connection,
            episode.namespace,
            made.id,
            LinkKind.SOURCE,
            episode.id,
            context.clock(),
            given.key_id,
        )
    own = [
        each
        for each in await _of_episode(connection, episode)
        if each.state is not RuleState.RETIRED
        and (made is None or each.id != made.id)
        and not await _others_vouch(context, connection, each, given)
    ]
    if given.outdated:
        said = Change(events.LEARNER, f"outdated, says feedback {given.id}", given.key_id)
        return None, await _retire(context, connection, own, said)
    # The policy's: what was replaced comes back when it is said to be right again.
    said = Change(events.POLICY, f"replaced by feedback {given.id}", given.key_id)
    replaced = [
        each
        for each in own
        if each.source_episode == episode.id and (made is not None or each.answer == teaching.wrong)
    ]
    return made, await _retire(context, connection, replaced, said)


async def _of_episode(connection: AsyncConnection, episode: Episode) -> list[Example]:
    """Made of it, or verified by it."""
    ids = await links.items_of(connection, LinkKind.SOURCE, episode.id)
    found = await examples.by_ids(connection, ids)
    own = await examples.of_episode(connection, episode.id)
    together = {**found, **{each.id: each for each in own}}
    return [each for each in together.values() if each.namespace == episode.namespace]


async def _others_vouch(
    context: StoreContext, connection: AsyncConnection, example: Example, given: Feedback
) -> bool:
    """Whether somebody else stands for an example as well, where no key decides alone. Who says
    that it is outdated stands for it no more."""
    namespace, key_id = example.namespace, given.key_id or voices.UNKNOWN
    if not voices.bounded(context, namespace):
        return False
    if voices.voice_of(context, namespace, given.key_id) is None:
        return False
    if given.outdated:
        await links.take_back(connection, example.id, key_id)
    if await links.is_taught_by_others(connection, example.id, key_id):
        return True
    history = await events.of_item(connection, example.id)
    return any(not is_own_actor(event.actor) for event in history)


async def _retire(
    context: StoreContext,
    connection: AsyncConnection,
    gone: Iterable[Example],
    change: Change,
) -> list[str]:
    """Their ids."""
    all_gone = [example_writes.Retirement(each, change.reason, change) for each in gone]
    if not all_gone:
        return []
    return [each.id for each in await example_writes.retire(connection, all_gone, context.clock())]


async def _retire_refuted(
    context: StoreContext, connection: AsyncConnection, namespace: str, voted: Mapping[str, float]
) -> list[str]:
    """Those that were shown for this question and whose votes say that their label is wrong."""
    doubtful = [each for each, vote in voted.items() if vote < 0.5]
    if not doubtful:
        return []
    usual = await evidence.latest_votes(connection, namespace, votes.LATEST)
    bounded = voices.bounded(context, namespace)
    refuted: dict[str, list[votes.Vote]] = {}
    for example_id in doubtful:
        own = voices.votes_of(
            context, namespace, await evidence.votes_of_item(connection, example_id)
        )
        if votes.is_wrong(own, usual, bounded=bounded):
            refuted[example_id] = own
    gone: list[str] = []
    for each in (await examples.by_ids(connection, list(refuted))).values():
        if each.state is RuleState.ACTIVE and each.namespace == namespace:
            own = refuted[each.id]
            right = sum(vote.right for vote in own)
            reason = f"label refuted: right for {right} of {len(own)} questions like it"
            gone += await _retire(context, connection, [each], Change(EVIDENCE, reason))
    return gone


async def _add_job(
    context: StoreContext,
    connection: AsyncConnection,
    given: Feedback,
    teaching: Teaching,
    made: Example | None,
) -> None:
    if teaching.job is None:
        return
    payload: dict[str, Any] = {**teaching.job, "example": None if made is None else made.id}
    await jobs.insert_job(
        connection,
        given.id,
        JobKind.FEEDBACK,
        given.episode_id,
        given.namespace,
        payload,
        context.clock(),
        given.key_id,
    )
    await context.announce_job(connection, given.id, new=True)


async def complete(
    context: StoreContext, connection: AsyncConnection, job: Job, completion: Completion
) -> bool:
    """Gives a candidate the answer that it has waited for and makes it active. False where
    somebody has changed its state, or another example says just that."""
    found = (await examples.by_ids(connection, [completion.example_id])).get(completion.example_id)
    if found is None or found.state is not RuleState.CANDIDATE or found.namespace != job.namespace:
        return False
    reason = f"a right answer was found for {job.episode_id}"
    after = replace(
        example_writes.moved(found, RuleState.ACTIVE, reason, context.clock()),
        answer=rule_writes.tidy(completion.answer),
    )
    same = await examples.find_by_text(connection, job.namespace, example_writes.hash_of(after))
    if same is not None:
        return False
    change = Change(events.LEARNER, reason, job.key_id)
    await example_writes.update(context, connection, found, after, COMPLETED, change)
    return True


def _cleaned(text: str | None) -> str | None:
    return None if text is None else storable(text)
