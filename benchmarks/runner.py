"""Runs arms over questions, online and resumable.

A pass is one arm over all questions in one order with one seed. It goes in steps of C questions:
those of a step are answered side by side, then what the step taught is stored. So a question sees
rules of earlier steps only, and with C = 1 those of every earlier question.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.domain.serialization import trajectories_to_json
from app.exceptions import ConfigurationError, TTCLError
from benchmarks.arms.base import (
    Arm,
    ArmAnswer,
    PassQuestion,
    Repeat,
    Session,
    Setting,
)
from benchmarks.data import Question, ordered
from benchmarks.feedback import Feedback, FeedbackLevel, WrongLabel
from benchmarks.grading import Gold, Graders, UnreadableGold
from benchmarks.journal import Row
from benchmarks.rundir import RunDir


class RunStopped(TTCLError):
    """The upstream failed for good. Nothing is lost: the same command goes on from here."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its gold answer, read."""

    question: Question
    gold: Gold


@dataclass(frozen=True, slots=True)
class LeftOut:
    id: str
    reason: str


class Watcher(Protocol):
    """Who is told how the run goes."""

    def pass_begins(self, arm: str, repeat: Repeat, done: int, total: int) -> None: ...

    def answered(self, arm: str, score: float) -> None: ...


async def read_gold(
    questions: Iterable[Question], graders: Graders
) -> tuple[list[Item], list[LeftOut]]:
    """Questions that can be graded, and those whose gold answer can't be understood."""
    items: list[Item] = []
    left_out: list[LeftOut] = []
    for question in questions:
        try:
            gold = await graders.get(question.grader).read(question.gold, question.prompt)
        except UnreadableGold as error:
            left_out.append(LeftOut(question.id, str(error)))
        else:
            items.append(Item(question, gold))
    if not items:
        raise ConfigurationError("no question has a gold answer that can be read")
    return items, left_out


class Runner:
    def __init__(
        self,
        setting: Setting,
        run: RunDir,
        items: Sequence[Item],
        *,
        concurrency: int,
        watcher: Watcher,
        feedback: FeedbackLevel = FeedbackLevel.NONE,
        wrong: Mapping[str, WrongLabel] | None = None,
    ) -> None:
        """`wrong`: by question id, what arms are told instead of the right answer."""
        self._setting = setting
        self._run = run
        self._items = {item.question.id: item for item in items}
        self._concurrency = concurrency
        self._watcher = watcher
        self._feedback = feedback
        self._wrong = wrong or {}

    async def run(self, arms: Sequence[Arm], repeats: Sequence[Repeat]) -> None:
        """Every arm in every repeat. Raises `RunStopped` when the upstream stays away."""
        for repeat in repeats:
            for arm in arms:
                await self._pass(arm, repeat)

    async def _pass(self, arm: Arm, repeat: Repeat) -> None:
        stream = self._stream(repeat)
        missing = [asked for asked in stream if not self._finished(arm, repeat, asked)]
        done = len(stream) - len(missing)
        self._watcher.pass_begins(arm.name, repeat, done, len(stream))
        if not missing:
            return
        # What a stateful arm knew can only be had again by going through the stream again.
        todo = stream if arm.stateful else missing
        session = await arm.start(self._setting, repeat)
        try:
            for step in _steps(todo, self._concurrency):
                await self._step(session, arm, repeat, step)
        finally:
            await session.close()

    def _finished(self, arm: Arm, repeat: Repeat, asked: PassQuestion) -> bool:
        key = self._key(arm, repeat, asked)
        return key in self._run.results and (key in self._run.rules or not arm.stateful)

    def _stream(self, repeat: Repeat) -> list[PassQuestion]:
        questions = ordered([item.question for item in self._items.values()], repeat.order)
        return [PassQuestion(q.id, q.prompt, position) for position, q in enumerate(questions)]

    async def _step(
        self, session: Session, arm: Arm, repeat: Repeat, step: Sequence[PassQuestion]
    ) -> None:
        outcomes = await self._answers(session, arm, repeat, step)
        told = [await self._told(arm, repeat, outcome) for outcome in outcomes]
        before = [outcome.backend.meter.taken() for outcome in outcomes]
        rows = await session.learn(told)
        self._stop_if_broken()
        by_question: dict[str, dict[str, list[Row]]] = {}
        for row in rows:
            learned = by_question.setdefault(row.pop("id"), {})
            learned.setdefault(row.pop("kind", "rules"), []).append(row)
        for outcome, answering in zip(outcomes, before, strict=True):
            if arm.stateful:
                place: Row = {"position": outcome.asked.position, "rules": []}
                place.update(by_question.get(outcome.asked.id, {}))
                if spent := outcome.backend.meter.since(answering):
                    place["learning"] = spent
                self._run.rules.append({**_head(arm, repeat, outcome.asked), **place})

    async def _told(self, arm: Arm, repeat: Repeat, outcome: ArmAnswer) -> ArmAnswer:
        """With the feedback of this run. Its score is the one on disk, so that a replay is told
        the same."""
        if self._feedback is FeedbackLevel.NONE:
            return outcome
        wrong = self._wrong.get(outcome.asked.id)
        if wrong is not None:
            # Who believes the wrong label finds the answers wrong that are right.
            right = (await wrong.gold.grade(outcome.text)).score == 1.0
            return replace(outcome, feedback=Feedback(right, wrong.label))
        known = self._run.results.known(self._key(arm, repeat, outcome.asked))
        assert known is not None, "an answer is on disk before its step is over"
        gold = self._items[outcome.asked.id].question.gold
        if self._feedback is FeedbackLevel.CORRECTION:
            return replace(outcome, feedback=Feedback(right=False, correction=gold))
        label = gold if self._feedback is FeedbackLevel.LABEL else None
        return replace(outcome, feedback=Feedback(known.score == 1.0, label))

    async def _answers(
        self, session: Session, arm: Arm, repeat: Repeat, step: Sequence[PassQuestion]
    ) -> list[ArmAnswer]:
        """The step's outcomes in its order; each is on disk as soon as it is there."""
        tasks = [asyncio.create_task(self._answer(session, arm, repeat, asked)) for asked in step]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _answer(
        self, session: Session, arm: Arm, repeat: Repeat, asked: PassQuestion
    ) -> ArmAnswer:
        started = time.monotonic()
        outcome = await session.answer(asked)
        seconds = time.monotonic() - started
        self._stop_if_broken()
        await self._record(outcome, arm, repeat, seconds)
        return outcome

    def _stop_if_broken(self) -> None:
        broken = self._setting.calls.broken
        if broken is not None:
            raise RunStopped(
                f"the upstream stopped answering ({broken.message}); what was answered is kept, "
                "and the same command goes on from here"
            ) from broken

    async def _record(self, outcome: ArmAnswer, arm: Arm, repeat: Repeat, seconds: float) -> None:
        asked, run = outcome.asked, self._run
        head = _head(arm, repeat, asked)
        digest = hashlib.blake2b(outcome.text.encode(), digest_size=8).hexdigest()
        known = run.results.known(self._key(arm, repeat, asked))
        if known is not None:
            if known.digest != digest:
                raise ConfigurationError(
                    f"replaying {arm.name}, question {asked.id}, came out differently from "
                    f"{run.path / 'results.jsonl'}: code or embeddings have changed since; "
                    "choose another --out"
                )
            return
        item = self._items[asked.id]
        grade = await item.gold.grade(outcome.text)
        run.trajectories.append(
            {
                **head,
                "rules_injected": outcome.details.get("rules_injected", []),
                "trajectories": trajectories_to_json(outcome.trajectories, None),
            }
        )
        meter = outcome.backend.meter
        wrong = self._wrong.get(asked.id)
        told = {} if wrong is None else {"told": wrong.label}
        run.results.append(
            {
                **head,
                "position": asked.position,
                "score": grade.score,
                "answer": grade.answer,
                "gold": item.question.gold,
                "text": outcome.text,
                "digest": digest,
                "failure": outcome.failure,
                "calls": meter.cost.calls,
                "prompt_tokens": meter.cost.prompt_tokens,
                "completion_tokens": meter.cost.completion_tokens,
                "model_seconds": round(meter.seconds, 3),
                # Time means something only when every call was made for this question.
                "seconds": round(seconds, 3) if meter.shared == 0 else None,
                **told,
                **outcome.details,
            }
        )
        self._watcher.answered(arm.name, grade.score)

    @staticmethod
    def _key(arm: Arm, repeat: Repeat, asked: PassQuestion) -> tuple[str, int, int, str]:
        return arm.name, repeat.seed, repeat.order, asked.id


def _head(arm: Arm, repeat: Repeat, asked: PassQuestion) -> dict[str, Any]:
    return {"arm": arm.name, "seed": repeat.seed, "order": repeat.order, "id": asked.id}


def _steps(stream: Sequence[PassQuestion], size: int) -> Iterator[Sequence[PassQuestion]]:
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


def repeats_of(seeds: int, orders: int, first_order: int = 0) -> list[Repeat]:
    """Seeds 0.. and orders from the first; every seed with every order."""
    drawn = range(first_order, first_order + orders)
    return [Repeat(seed, order) for seed in range(seeds) for order in drawn]
