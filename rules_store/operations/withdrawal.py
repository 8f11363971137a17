"""All that a key has said is taken back, and what stood on it is judged anew.

First the evidence goes, a hundred rows at most in one transaction, each of which also notes whose
rules and examples it was about; then these are judged, one in a transaction. A process that is
killed in between leaves what is noted to be done: whoever withdraws the key again goes on there.

    rule or example                       becomes
    taught by this key alone              retired
    promoted by the gate, on its word     what the trials that are left say: a candidate again,
                                          refuted, or active as before
    retired by the gate, on its word      what it was before, unless what is left retires it too
    retired for the opposite of a rule    what it was before, where that rule is active no more
    an example that its votes refuted     what it was before, unless the votes left refute it
    an example that its feedback retired  what it was before
    a namespace that the guard suspended  steered again, and compared anew
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from rules_store.models.episodes import EpisodeStatus
from rules_store.models.events import EVIDENCE, Change, Event
from rules_store.models.evidence import Standing, Trial
from rules_store.models.examples import Example, Trust
from rules_store.models.jobs import JobKind
from rules_store.models.keys import ALL, Withdrawal
from rules_store.models.rules import Rule, RuleState
from rules_store.operations import example_writes, rule_writes, trials, voices
from rules_store.operations.context import StoreContext
from rules_store.operations.effect import resume
from rules_store.policy import votes
from rules_store.policy.gate import Verdict
from rules_store.repository import (
    effect,
    episodes,
    events,
    evidence,
    examples,
    links,
    rules,
    standings,
    withdrawals,
)

RULE_REJUDGED = "rule.rejudged"
EXAMPLE_REJUDGED = "example.rejudged"
KEY_WITHDRAWN = "key_withdrawn"
"""Why a job of the key was ended."""

Portion = Callable[[AsyncConnection], Awaitable[int]]
Taken = tuple[int, set[str]]
"""How many rows, and the items that they were about."""


async def withdraw(context: StoreContext, key_id: str, change: Change) -> Withdrawal:
    """See `KeyOperations.withdraw`."""
    run = _Run(context, key_id, change)
    await context.exposures.count()
    begun, is_open = await run.begin()
    for name, portion in run.portions():
        await run.all_of(name, portion)
    await run.take_exposures()
    await run.judge_all()
    await run.resume_all()
    return await run.end(begun, is_open=is_open)


class _Run:
    def __init__(self, context: StoreContext, key_id: str, change: Change) -> None:
        self._context = context
        self._key = key_id
        self._change = change

    async def begin(self) -> tuple[Withdrawal, bool]:
        """As it is, and whether an earlier run has begun and not ended it (or there was none)."""

        async def begin(connection: AsyncConnection) -> tuple[Withdrawal, bool]:
            known = await withdrawals.find(connection, self._key)
            if known is not None and known.ended_at is None:
                return known, True
            now = self._context.clock()
            fresh = Withdrawal(self._key, now, None, {} if known is None else known.counts)
            await withdrawals.put(connection, fresh)
            return fresh, known is None

        return await self._context.database.transact(begin)

    def portions(self) -> Sequence[tuple[str, Portion]]:
        return (
            ("jobs", self._end_jobs),
            ("feedback", self._take_feedback),
            ("trials", self._take_trials),
            ("outcomes", self._take_outcomes),
            ("precedents", lambda c: withdrawals.take_precedents(c, self._key)),
            ("choices", lambda c: withdrawals.take_choices(c, self._key)),
            ("lessons", self._take_links),
        )

    async def all_of(self, name: str, portion: Portion) -> None:
        while await self._context.database.transact(lambda c: self._counted(c, name, portion)):
            pass

    async def _counted(self, connection: AsyncConnection, name: str, portion: Portion) -> int:
        taken = await portion(connection)
        if taken:
            known = await withdrawals.find(connection, self._key)
            assert known is not None, "it was begun"
            counts = {**known.counts, name: known.counts.get(name, 0) + taken}
            await withdrawals.put(connection, replace(known, counts=counts))
        return taken

    async def resume_all(self) -> None:
        """Steers namespaces again whose suspension stands on nothing that is left."""
        for each in self._context.namespaces.all():
            if each.suspension is None:
                continue
            async with self._context.change() as connection:
                if not await effect.states(connection, each.name):
                    await resume(self._context, connection, each.name, self._change)

    async def _end_jobs(self, connection: AsyncConnection) -> int:
        now = self._context.clock()
        ended = await withdrawals.end_jobs(connection, self._key, KEY_WITHDRAWN, now)
        for kind, episode_id in ended:
            if kind is JobKind.EPISODE:
                failed = EpisodeStatus.FAILED
                await episodes.conclude(connection, episode_id, now, failed, KEY_WITHDRAWN, {})
        return len(ended)

    async def _take_feedback(self, connection: AsyncConnection) -> int:
        taken, touched = await withdrawals.take_feedback(connection, self._key)
        await withdrawals.await_judgement(connection, self._key, touched)
        return taken

    async def _take_trials(self, connection: AsyncConnection) -> int:
        """Of one rule; its test goes on with the trials that are left of it."""
        rule_id = await withdrawals.rule_with_trials(connection, self._key)
        if rule_id is None:
            return 0
        found = await rules.find(connection, rule_id)
        standing = await standings.find(connection, rule_id, lock=True)
        left: list[Trial] = []
        if found is not None and standing is not None:
            words = rule_writes.text_hash(found[1].text)
            test = (await evidence.trials_of(connection, rule_id, words))[: standing.tried]
            left = [trial for trial in test if trial.key_id != self._key]
        taken = await withdrawals.take_trials(connection, self._key, rule_id)
        if standing is not None:
            await standings.put(connection, _with_test(standing, left))
        await withdrawals.await_judgement(connection, self._key, [rule_id])
        return taken

    async def _take_outcomes(self, connection: AsyncConnection) -> int:
        taken, of_episodes, spaces, items = await withdrawals.take_outcomes(connection, self._key)
        for namespace in spaces:
            # What the two arms' outcomes add up to names no key: it is compared anew.
            await effect.forget(connection, namespace)
        for episode_id in sorted(of_episodes):
            strongest = await evidence.strongest(connection, episode_id)
            now = self._context.clock()
            await withdrawals.correct_choice(connection, episode_id, strongest, now)
        await withdrawals.await_judgement(connection, self._key, items)
        return taken

    async def _take_links(self, connection: AsyncConnection) -> int:
        taken, items = await withdrawals.take_links(connection, self._key)
        await withdrawals.await_judgement(connection, self._key, items)
        return taken

    async def take_exposures(self) -> None:
        """Those of the key's own requests, and its votes on others'."""
        seq = 0
        while True:
            async with self._context.database.read() as connection:
                seqs = await withdrawals.exposures_after(connection, self._key, seq)
            if not seqs:
                return
            seq = seqs[-1]

            for name, take in (
                ("votes", withdrawals.take_votes),
                ("exposures", withdrawals.take_exposures),
            ):
                await self.all_of(name, partial(self._take_off, take, seqs))

    async def _take_off(
        self, take: Callable[..., Awaitable[Taken]], seqs: list[int], connection: AsyncConnection
    ) -> int:
        taken, items = await take(connection, self._key, seqs)
        await withdrawals.await_judgement(connection, self._key, items)
        return taken

    # -- judging anew

    async def judge_all(self) -> None:
        """All that are noted, but for those of frozen namespaces, which wait."""
        last = ""
        while True:
            async with self._context.database.read() as connection:
                ids = await withdrawals.awaiting(connection, self._key, last)
            if not ids:
                return
            last = ids[-1]
            for item_id in ids:
                async with self._context.change() as connection:
                    await self._judge(connection, item_id)

    async def _judge(self, connection: AsyncConnection, item_id: str) -> None:
        rule = await rules.find(connection, item_id)
        example = await examples.find(connection, item_id)
        found = rule or example
        if found is not None and self._context.namespaces.is_frozen(found[1].namespace):
            return
        if rule is not None:
            await self._judge_rule(connection, *rule)
        elif example is not None:
            await self._judge_example(connection, *example)
        await withdrawals.judged(connection, self._key, item_id)

    async def _summed(
        self, connection: AsyncConnection, item_id: str, seq: int, namespace: str, words: str
    ) -> Standing:
        """The standing by what evidence is left; it is written."""
        now = self._context.clock()
        known = await standings.find(connection, item_id, lock=True)
        standing = known or Standing(item_id, seq, namespace, now)
        left = await voices.tallies(self._context, connection, standing, words, now)
        with_item, without_item = voices.together(left.values())
        standing = replace(
            standing, at=now, with_rule=with_item, without_rule=without_item
        ).relifted()
        await standings.put(connection, standing)
        return standing

    async def _judge_rule(self, connection: AsyncConnection, seq: int, rule: Rule) -> None:
        words = rule_writes.text_hash(rule.text)
        standing = await self._summed(connection, rule.id, seq, rule.namespace, words)
        history = await events.of_rule(connection, rule.id)
        if await self._orphaned(connection, rule.id, rule.state, history):
            await self._move(connection, rule, RuleState.RETIRED, "taught by it alone")
            await self._restore_superseded(connection, rule)
            return
        last = _last_move(history)
        if last is None or last.actor != trials.GATE:
            return
        tried = list(reversed(await evidence.trials_of(connection, rule.id, words)))
        judged = voices.replayed(self._context, rule.namespace, tried)
        if rule.state is RuleState.ACTIVE:
            await self._judge_promoted(connection, rule, standing, judged)
        elif rule.state is RuleState.RETIRED and last.kind != trials.SUPERSEDED:
            harm = await voices.harm(self._context, connection, standing, words)
            if judged in (None, Verdict.HELPFUL) and harm is None:
                await self._bring_back(connection, rule, last, standing, judged, history)

    async def _judge_promoted(
        self,
        connection: AsyncConnection,
        rule: Rule,
        standing: Standing,
        judged: Verdict | None,
    ) -> None:
        if judged is Verdict.HELPFUL:
            return
        state = RuleState.CANDIDATE if judged is None else RuleState.RETIRED
        await standings.put(connection, replace(standing, proven=False, verdict=judged))
        await self._move(connection, rule, state, "promoted on its word")
        await self._restore_superseded(connection, rule)

    async def _bring_back(
        self,
        connection: AsyncConnection,
        rule: Rule,
        last: Event,
        standing: Standing,
        judged: Verdict | None,
        history: Sequence[Event],
    ) -> None:
        state = RuleState((last.before or {}).get("state", RuleState.CANDIDATE))
        vouched = _vouched_before(history, last)
        if state is RuleState.ACTIVE and not vouched and judged is None and _gated(history, last):
            state = RuleState.CANDIDATE
        proven = vouched or judged is Verdict.HELPFUL
        await standings.put(connection, replace(standing, proven=proven, verdict=judged))
        await self._move(connection, rule, state, "retired on its word")

    async def _restore_superseded(self, connection: AsyncConnection, rule: Rule) -> None:
        """Rules that went because this one says the opposite."""
        for other in await links.contradicting(connection, rule.id):
            found = await rules.find(connection, other)
            if found is None or found[1].state is not RuleState.RETIRED:
                continue
            last = _last_move(await events.of_rule(connection, other))
            if last is not None and last.kind == trials.SUPERSEDED and rule.id in last.reason:
                state = RuleState((last.before or {}).get("state", RuleState.CANDIDATE))
                await self._move(connection, found[1], state, f"rule {rule.id} stood on its word")

    async def _move(
        self, connection: AsyncConnection, rule: Rule, state: RuleState, why: str
    ) -> None:
        if rule.state is state:
            return
        reason = self._reason(why)
        after = rule_writes.moved(rule, state, reason, self._context.clock())
        change = replace(self._change, reason=reason)
        await rule_writes.update(connection, rule, after, RULE_REJUDGED, change)

    async def _judge_example(self, connection: AsyncConnection, seq: int, example: Example) -> None:
        words = example_writes.hash_of(example)
        standing = await self._summed(connection, example.id, seq, example.namespace, words)
        history = await events.of_item(connection, example.id)
        if await self._orphaned(connection, example.id, example.state, history):
            await self._write(connection, example, "taught by it alone", state=RuleState.RETIRED)
            return
        vouched = _last_of_others(history, self._key)
        if vouched is not None:
            trust, label = Trust(vouched["trust"]), vouched["label"]
            if (trust, label) != (example.trust, example.label):
                example = await self._write(
                    connection, example, "verified by it", trust=trust, label=label
                )
        last = _last_move(history)
        if example.state is not RuleState.RETIRED or last is None or last.before is None:
            return
        if await self._still_retired(connection, example, last, standing, words):
            return
        state = RuleState(last.before["state"])
        await self._write(connection, example, "retired on its word", state=state)

    async def _still_retired(
        self,
        connection: AsyncConnection,
        example: Example,
        last: Event,
        standing: Standing,
        words: str,
    ) -> bool:
        if last.actor == EVIDENCE:
            namespace = example.namespace
            usual = await evidence.latest_votes(connection, namespace, votes.LATEST)
            own = await evidence.votes_of_item(connection, example.id)
            bounded = voices.bounded(self._context, namespace)
            mapped = voices.votes_of(self._context, namespace, own)
            return votes.is_wrong(mapped, usual, bounded=bounded)
        if last.kind == example_writes.DEMOTED:
            return await voices.harm(self._context, connection, standing, words) is not None
        return last.key_id != self._key or last.actor not in (events.LEARNER, events.POLICY)

    async def _write(
        self,
        connection: AsyncConnection,
        example: Example,
        why: str,
        **values: object,
    ) -> Example:
        reason = self._reason(why)
        state = values.pop("state", example.state)
        assert isinstance(state, RuleState)
        moved = example_writes.moved(example, state, reason, self._context.clock())
        after = replace(moved, **values)  # type: ignore[arg-type]
        change = replace(self._change, reason=reason)
        await example_writes.update(
            self._context, connection, example, after, EXAMPLE_REJUDGED, change
        )
        return after

    async def _orphaned(
        self,
        connection: AsyncConnection,
        item_id: str,
        state: RuleState,
        history: Sequence[Event],
    ) -> bool:
        """Whether it was learned, and nobody but this key has taught it."""
        if state is RuleState.RETIRED or not history or history[0].before is not None:
            return False
        if history[0].actor != events.LEARNER or _vouched_before(history, None):
            return False
        return not await withdrawals.is_taught(connection, item_id)

    def _reason(self, why: str) -> str:
        said = f"{why}, and what key {self._key} said is withdrawn"
        return f"{said}; {self._change.reason}" if self._change.reason else said

    async def end(self, begun: Withdrawal, *, is_open: bool) -> Withdrawal:
        """Notes the end, with an event unless a second run has found nothing more."""

        async def end(connection: AsyncConnection) -> Withdrawal:
            await self._context.database.order_events(connection)
            known = await withdrawals.find(connection, self._key)
            assert known is not None, "it was begun"
            if await withdrawals.awaiting(connection, self._key, ""):
                return known
            ended = replace(known, ended_at=self._context.clock())
            await withdrawals.put(connection, ended)
            if is_open or ended.counts != begun.counts:
                assert ended.ended_at is not None
                after = {"id": self._key, "counts": ended.counts}
                await events.append(
                    connection, ended.ended_at, ALL, events.KEY_WITHDRAWN, self._change, after=after
                )
            return ended

        ended = await self._context.database.transact(end)
        await self._context.take_up()
        return ended


def _with_test(standing: Standing, trials_left: Sequence[Trial]) -> Standing:
    """With the counts of a test of which only these trials are left."""
    return replace(
        standing,
        helped=sum(trial.effect > 0 for trial in trials_left),
        harmed=sum(trial.effect < 0 for trial in trials_left),
        tried=len(trials_left),
    )


def _last_move(history: Sequence[Event]) -> Event | None:
    """The event that gave the item the state that it has."""
    moves = [e for e in history if (e.before or {}).get("state") != (e.after or {}).get("state")]
    return moves[-1] if moves else None


def _vouched_before(history: Sequence[Event], end: Event | None) -> bool:
    """Whether a person made it active before `end`, the latest time that it became active."""
    learned = (trials.GATE, events.LEARNER, events.POLICY, events.SYSTEM, EVIDENCE)
    vouched = False
    for event in history:
        if end is not None and event.id >= end.id:
            break
        before, after = event.before or {}, event.after or {}
        became = after.get("state") == RuleState.ACTIVE != before.get("state")
        if became:
            vouched = event.actor not in learned
    return vouched


def _gated(history: Sequence[Event], end: Event) -> bool:
    """Whether it was the gate that made it active before `end`."""
    return any(event.kind == trials.PROMOTED for event in history if event.id < end.id)


def _last_of_others(history: Sequence[Event], key_id: str) -> dict[str, str] | None:
    """What an example was after the latest event that gave it trust or label and was not the
    key's; None where the key has not changed them since."""
    state: dict[str, str] | None = None
    by_key = False
    for event in history:
        before, after = event.before or {}, event.after or {}
        if not after:
            continue
        same = all(before.get(name) == after.get(name) for name in ("trust", "label"))
        if same and before:
            continue
        by_key = event.key_id == key_id
        if not by_key:
            state = after
    return state if by_key else None
