"""Whose word the evidence about a rule or an example is; `rules_store.policy.voices` bounds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.events import Event
from rules_store.models.evidence import CreditedOutcome, Reference, Standing, Trial
from rules_store.models.keys import ADMIN, Permission
from rules_store.operations.context import StoreContext
from rules_store.policy.gate import Verdict, verdict
from rules_store.policy.lift import NOTHING, Lift, Tally, retention
from rules_store.policy.voices import Count, Tallies, Voice, harms, verdict_of_voices
from rules_store.policy.votes import Vote
from rules_store.repository import events, evidence

UNKNOWN = ""
"""The voice of evidence that came before keys were noted."""


def bounded(context: StoreContext, namespace: str) -> bool:
    """Whether no key's word decides alone there: as `StoreOptions.feedback_keys` has it."""
    if context.options.feedback_keys is not None:
        return context.options.feedback_keys > 1
    reaching = [
        key
        for key in context.caches.live_keys()
        if Permission.CHAT in key.permissions and key.reaches(namespace)
    ]
    return context.options.keys_outside + len(reaching) > 1


def voice_of(context: StoreContext, namespace: str, key_id: str | None) -> Voice:
    """Of what somebody has said with this key. An operator's word is not bounded."""
    if key_id == ADMIN:
        return None
    for key in context.caches.live_keys():
        if key.id == key_id and Permission.ADMIN_WRITE in key.permissions:
            return None if key.reaches(namespace) else key_id
    return key_id or UNKNOWN


def votes_of(context: StoreContext, namespace: str, votes: Sequence[Vote]) -> list[Vote]:
    """Votes whose voices are bounded or not, as their keys are."""
    return [replace(vote, voice=voice_of(context, namespace, vote.voice)) for vote in votes]


def voice_of_trial(context: StoreContext, namespace: str, trial: Trial) -> Voice:
    """Nobody's where the exploration's own answers told right from wrong."""
    if trial.reference is not Reference.LABEL:
        return None
    return voice_of(context, namespace, trial.key_id)


def verdict_on(
    context: StoreContext, namespace: str, standing: Standing, trials: Iterable[Trial]
) -> Verdict | None:
    """The gate's, on these trials of the test that is under way; `standing` has their sums."""
    options = context.options.gate
    if not bounded(context, namespace):
        return verdict(standing.helped, standing.harmed, standing.tried, options)
    counts: defaultdict[Voice, Count] = defaultdict(Count)
    for trial in trials:
        voice = voice_of_trial(context, namespace, trial)
        known = counts[voice]
        counts[voice] = Count(
            known.helped + (trial.effect > 0), known.harmed + (trial.effect < 0), known.tried + 1
        )
    return verdict_of_voices(counts, options)


async def harm(
    context: StoreContext, connection: AsyncConnection, standing: Standing, text_hash: str
) -> Lift | None:
    """The lift of a rule or an example that harms in use, no voice's word alone; None for one that
    does not. `text_hash`: of its words."""
    if standing.lift.high >= 0:
        return None
    if not bounded(context, standing.namespace):
        return standing.lift
    now = context.clock()
    return harms(await tallies(context, connection, standing, text_hash, now))


async def tallies(
    context: StoreContext,
    connection: AsyncConnection,
    standing: Standing,
    text_hash: str,
    now: datetime,
) -> dict[Voice, Tallies]:
    """All that speaks for or against an item in its present words, by voice, aged to `now`: its
    latest exposures with their outcomes, and its trials."""
    found: defaultdict[Voice, Tallies] = defaultdict(Tallies)
    half_life, namespace = context.options.half_life_days, standing.namespace
    since = worded_since(await events.of_item(connection, standing.item_id))
    for each in await evidence.credited(connection, standing.item_id, since):
        voice = None if each.is_agreement else voice_of(context, namespace, each.key_id)
        _add(found, voice, each, retention(each.at, now, half_life))
    for trial in await evidence.trials_of(connection, standing.item_id, text_hash):
        factor = retention(trial.at or now, now, half_life)
        voice, weight = voice_of_trial(context, namespace, trial), trial.weight * factor
        known = found[voice]
        found[voice] = Tallies(
            known.with_item.plus(trial.with_rule, weight),
            known.without_item.plus(trial.without_rule, weight),
        )
    return dict(found)


def _add(
    found: defaultdict[Voice, Tallies], voice: Voice, each: CreditedOutcome, factor: float
) -> None:
    known, weight = found[voice], each.weight * factor
    if each.withheld:
        found[voice] = replace(known, without_item=known.without_item.plus(each.value, weight))
    else:
        found[voice] = replace(known, with_item=known.with_item.plus(each.value, weight))


def together(found: Iterable[Tallies]) -> tuple[Tally, Tally]:
    """The sums, with the item and without it."""
    with_item = without_item = NOTHING
    for each in found:
        with_item = Tally(
            with_item.hits + each.with_item.hits, with_item.misses + each.with_item.misses
        )
        without_item = Tally(
            without_item.hits + each.without_item.hits,
            without_item.misses + each.without_item.misses,
        )
    return with_item, without_item


def worded_since(history: Sequence[Event]) -> datetime | None:
    """When an item got its present words; None where it never had others."""
    since = None
    for event in history:
        before, after = event.before or {}, event.after or {}
        if before and any(
            before.get(name) != after.get(name) for name in ("text", "question", "answer")
        ):
            since = event.at
    return since
