"""What rules are worth: feedback and outcomes of episodes, trials of rules, and what follows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.errors import UnknownEpisode
from rules_store.models.events import Change
from rules_store.models.evidence import (
    Contender,
    Evidence,
    Judgement,
    Neighbour,
    Outcome,
    Precedent,
    Standing,
    Trial,
)
from rules_store.models.examples import Example
from rules_store.models.feedback import NO_TEACHING, Feedback, NewFeedback, Teaching
from rules_store.models.rules import Rule, RuleState, Vector
from rules_store.operations import example_writes, rule_writes, teaching_writes, trials, voices
from rules_store.operations.context import StoreContext
from rules_store.operations.credit import credit
from rules_store.operations.examples import find as find_example
from rules_store.operations.rules import find
from rules_store.policy.choice import Beliefs, beliefs_of
from rules_store.repository import (
    embeddings,
    episodes,
    evidence,
    examples,
    feedback,
    links,
    precedents,
    standings,
)

NEAR_FLOOR = 0.5
"""Least cosine of a question whose outcome says something about another one's neighbourhood."""
HARMS = "answers are worse with it than without it, for sure"


class EvidenceOperations:
    """`store.evidence`."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    # -- what to give a request

    def beliefs_near(self, namespace: str, vector: Vector) -> Beliefs:
        """What is thought of giving rules and examples to questions near `vector`, by the outcomes
        of earlier requests as of the last catch-up; no I/O."""
        choices = self._context.caches.evidence.choices
        now, half_life = self._context.clock(), self._context.options.half_life_days
        tallies = choices.tallies(namespace, now, half_life)
        near = choices.near(namespace, vector, now, half_life, floor=NEAR_FLOOR)
        return beliefs_of(tallies).near(near)

    # -- episodes

    async def add_feedback(
        self,
        episode_id: str,
        new: NewFeedback,
        teaching: Teaching = NO_TEACHING,
        *,
        key_id: str | None = None,
    ) -> Feedback:
        """What is stored now, with all that follows from it (`teaching`), in one transaction.
        Under a key that this episode has seen that is the first feedback, and nothing is added.
        `key_id`: the API key that gives it.

        Raises UnknownEpisode; FeedbackConflict where the first one under the key said something
        else; ValueError for one that says nothing.
        """
        if not new.says_something:
            raise ValueError("a feedback needs a score, label, correction, verdict or outdated")
        async with self._context.change() as connection:
            return await teaching_writes.add(
                self._context, connection, episode_id, new, teaching, key_id
            )

    async def shown_labels(self, episode_id: str) -> dict[str, str]:
        """Labels of the examples that the episode was shown, or that were withheld from it, by
        their ids."""
        async with self._context.database.read() as connection:
            return await evidence.shown_labels(connection, episode_id)

    async def share_judged(self, namespace: str, among: int) -> tuple[int, int]:
        """(how many of them, how many) of the namespace's latest `among` answered episodes have
        been judged by a label, a correction or a verifier."""
        async with self._context.database.read() as connection:
            return await evidence.share_judged(connection, namespace, among)

    async def feedback_of(self, episode_id: str) -> list[Feedback]:
        """Oldest first; none of an unknown episode."""
        async with self._context.database.read() as connection:
            return await feedback.of_episode(connection, episode_id)

    async def feedback_of_each(self, episode_ids: Sequence[str]) -> dict[str, list[Feedback]]:
        """Episode -> what was said of it, oldest first, of those of which anything was."""
        async with self._context.database.read() as connection:
            return await feedback.of_episodes(connection, episode_ids)

    async def record_outcome(
        self, episode_id: str, outcome: Outcome, *, key_id: str | None = None
    ) -> None:
        """One signal about an episode, credited to the rules that steered it and to those that
        were withheld. The same signal again takes the place of the first. Raises UnknownEpisode."""
        now = self._context.clock()

        async def record(connection: AsyncConnection) -> None:
            episode = await episodes.find(connection, episode_id)
            if episode is None:
                raise UnknownEpisode(episode_id)
            await credit(
                self._context,
                connection,
                episode.namespace,
                episode_id,
                outcome,
                now,
                key_id=key_id,
            )

        await self._context.database.transact(record)

    # -- reading

    def standing_of(self, item_id: str) -> Standing | None:
        """Of a rule or an example, as this process last saw it; no I/O."""
        return self._context.caches.evidence.standings.get(item_id)

    def near_precedents(
        self, namespace: str, vector: Vector, *, floor: float, k: int
    ) -> list[Neighbour]:
        """Explored questions near this one, most similar first; no I/O."""
        return self._context.caches.evidence.precedents.near(namespace, [vector], floor=floor, k=k)

    def mean_agreement(self, namespace: str) -> float | None:
        """Of the namespace's explored questions; None while there are few; no I/O."""
        return self._context.caches.evidence.precedents.mean_agreement(namespace)

    async def of_rule(self, rule_id: str, *, limit: int = 50) -> Evidence:
        """What speaks for or against the rule, at most `limit` of a kind. Raises UnknownRule."""
        async with self._context.database.read() as connection:
            await find(connection, rule_id)
            return await _of_item(connection, rule_id, limit)

    async def of_example(self, example_id: str, *, limit: int = 50) -> Evidence:
        """The same of an example, of which there are no trials. Raises UnknownExample."""
        async with self._context.database.read() as connection:
            await find_example(connection, example_id)
            return await _of_item(connection, example_id, limit)

    async def standings_of(self, item_ids: list[str]) -> dict[str, Standing]:
        """Of rules and examples, by id; those that have evidence."""
        async with self._context.database.read() as connection:
            return await standings.some(connection, item_ids)

    # -- trials

    def count_candidates(self, namespace: str) -> int:
        """Candidates in this process's index; no I/O."""
        return self._context.index.count(namespace, RuleState.CANDIDATE)

    async def contenders(self, namespace: str, limit: int = 200) -> list[Contender]:
        """Candidates, and active rules that have not proven themselves; the least tried first."""
        # What was explored a moment ago may be what they can be tried on.
        await self._context.caches.catch_up()
        async with self._context.database.read() as connection:
            return await standings.contenders(connection, namespace, trials.ON_TRIAL, limit)

    async def untried_precedents(self, rule: Rule, *, floor: float, limit: int) -> list[Precedent]:
        """Precedents near the rule that can be replayed and on which it has not been tried, the
        nearest first. The episodes that taught the rule are left out: it fits those by making."""
        async with self._context.database.read() as connection:
            rows = await embeddings.rows_of(connection, self._context.embedding_model, [rule.id])
            both = [vector for row in rows for vector in (row.text_vector, row.trigger_vector)]
            vectors = [vector for vector in both if vector is not None]
            tried = await precedents.tried(connection, rule.id, rule_writes.text_hash(rule.text))
            taught = {link.other for link in await links.of_item(connection, rule.id)}
            taught.add(rule.source_episode or "")
            near = self._context.caches.evidence.precedents.near(
                rule.namespace, vectors, floor=floor, k=limit, fit=True, without=tried | taught
            )
            found = [await precedents.find(connection, each.episode_id) for each in near]
        return [each for each in found if each is not None]

    async def replayable(
        self,
        namespace: str,
        vector: Vector,
        *,
        floor: float,
        limit: int,
        without: Collection[str] = (),
    ) -> list[Precedent]:
        """Precedents near a question that can be replayed, the nearest first; `without`: not of
        these episodes."""
        near = self._context.caches.evidence.precedents.near(
            namespace, [vector], floor=floor, k=limit, fit=True, without=without
        )
        async with self._context.database.read() as connection:
            found = [await precedents.find(connection, each.episode_id) for each in near]
        return [each for each in found if each is not None]

    async def record_trial(self, rule: Rule, trial: Trial) -> Judgement:
        """Adds one trial of a rule's words and does what the gate then says: promote a candidate,
        retire what harms or is of no use. A trial of words that have changed since, of a rule that
        is neither candidate nor active, of a frozen namespace, or one that is there already
        changes nothing."""
        async with self._context.change() as connection:
            return await trials.add(self._context, connection, rule, trial)

    async def review(self, namespace: str, *, probation: int) -> list[Judgement]:
        """Demotes active rules whose lift is below zero with its whole interval, and those that
        have steered `probation` requests since they became active without proving themselves; and
        retires active examples of such a lift. What was done with rules."""
        await self._context.exposures.count()
        if self._context.namespaces.is_frozen(namespace):
            return []
        await self._demote_examples(namespace)
        async with self._context.database.read() as connection:
            harmful = await standings.losers(connection, namespace)
            idle = await standings.unproven_since(connection, namespace, probation)
        done: list[Judgement] = []
        for rule_id in [*harmful, *(each for each in idle if each not in harmful)]:
            async with self._context.change() as connection:
                judgement = await trials.demote(self._context, connection, rule_id, probation)
            if judgement is not None:
                done.append(judgement)
        return done

    async def _demote_examples(self, namespace: str) -> None:
        async with self._context.database.read() as connection:
            if not await examples.losers(connection, namespace):
                return
        async with self._context.change() as connection:
            if self._context.namespaces.is_frozen(namespace):
                return
            gone = [
                example_writes.Retirement(each, HARMS, Change(trials.GATE, HARMS))
                for each in await examples.losers(connection, namespace)
                if await self._harms(connection, each)
            ]
            await example_writes.retire(
                connection, gone, self._context.clock(), example_writes.DEMOTED
            )

    async def _harms(self, connection: AsyncConnection, example: Example) -> bool:
        standing = await standings.find(connection, example.id)
        if standing is None:
            return False
        words = example_writes.hash_of(example)
        return await voices.harm(self._context, connection, standing, words) is not None


async def _of_item(connection: AsyncConnection, item_id: str, limit: int) -> Evidence:
    return Evidence(
        standing=await standings.find(connection, item_id),
        trials=(await evidence.trials_of(connection, item_id))[:limit],
        exposures=await evidence.exposures_of(connection, item_id, limit),
        links=await links.of_item(connection, item_id),
    )
