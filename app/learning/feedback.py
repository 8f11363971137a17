"""What a client's feedback on an answer is to lead to: evidence, an example, a lesson.

    answer                      example                                   lesson
    right                       question and the episode's own answer     none
    wrong, right one known      a trajectory of the episode that has it,  right against wrong
                                else the correction, else the label
    wrong, right one unknown    none: wrong answers do harm as memory     none

A label after an answer with its steps worked out is only a candidate: as an example it would teach
the model to skip the work, so the lesson looks for a right answer by a new exploration first
(`app.learning.lessons`). All of it is found out here, before the one transaction that stores it
(`rules_store.operations.teaching_writes`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.domain.serialization import observation_of, observation_to_json
from app.domain.trajectory import Observation, Task
from app.learning.evaluation.outcomes import Judge
from app.learning.lessons import LONGEST_ANSWER
from app.loop.admission.examples import screened
from app.loop.reflect.answers import AnswerForm, extract, strip_reasoning
from app.loop.reflect.equivalence import ComparisonUnfinished
from app.loop.steer.injector import instructions_of
from app.upstream.embeddings import Embedder, vector_of_question
from rules_store.models.episodes import Episode
from rules_store.models.evidence import Outcome, Precedent, Reference, Signal
from rules_store.models.examples import ExampleUse, NewExample, Trust
from rules_store.models.feedback import Feedback, FeedbackSource, NewFeedback, Teaching
from rules_store.models.rules import RuleState, Vector
from rules_store.policy.turns import Tenant
from rules_store.store import RuleStore

RIGHT_SCORE = 0.8
"""A client's score from which an answer counts as right."""
LONGEST_QUESTION = 4000
"""Characters of an example's question; see `LONGEST_ANSWER`."""
WORKED_OUT = 200
"""Characters that an answer has more than its label where it is the work that leads to it."""
WAITS = "waits for a worked-out answer"

NO_ANSWER = "no_answer"
NOT_RIGHT = "right_answer_unknown"
TOO_LONG = "too_long"
NO_QUESTION = "no_question"
EXAMPLES_OFF = "examples_off"
LEARNING_OFF = "learning_off"
OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class FeedbackOptions:
    learn: bool
    """What the service does where the namespace says nothing; so `examples`."""
    examples: ExampleUse
    embedding_timeout: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a feedback says. `right` None: nothing about the answer."""

    right: bool | None
    outcome: Outcome | None
    answer: str | None
    """The episode's own, without thoughts."""
    better: str | None = None
    """An answer in full that is right: the episode's own, one of its trajectories, the
    correction."""
    label: str | None = None
    """The short right answer, where it is known."""

    @property
    def known(self) -> str | None:
        """The right answer in whichever form there is."""
        return self.better if self.better is not None else self.label

    @property
    def worked_out(self) -> bool:
        """Whether the model's answers are the work that leads to the label."""
        own, label = self.answer or "", self.label or ""
        return len(own) - len(label) > WORKED_OUT


class FeedbackIntake:
    def __init__(
        self,
        store: RuleStore,
        judge: Judge,
        embedder: Embedder,
        wake: Callable[[Tenant], None],
        options: FeedbackOptions,
    ) -> None:
        """`wake`: called with key and namespace after a lesson has been committed."""
        self._store = store
        self._judge = judge
        self._embedder = embedder
        self._wake = wake
        self._options = options

    async def take(
        self, episode: Episode, new: NewFeedback, *, learn: bool, key_id: str
    ) -> Feedback:
        """Stores the feedback with what follows from it. `learn` False: it is kept, and nothing
        follows. `key_id`: who gives it (`Caller.name`). Raises StoreError."""
        teaching = await self._teaching(episode, new) if learn else Teaching()
        given = await self._store.evidence.add_feedback(episode.id, new, teaching, key_id=key_id)
        if given.effect.lesson:
            self._wake((key_id, episode.namespace))
        return given

    async def _teaching(self, episode: Episode, new: NewFeedback) -> Teaching:
        observation = observation_of(episode)
        reading = await self._read(episode, new, observation)
        vector = await vector_of_question(
            self._embedder, episode.question, seconds=self._options.embedding_timeout
        )
        teaching = Teaching(
            learns=True,
            right=reading.right,
            outcome=reading.outcome,
            wrong=reading.answer if reading.right is False else None,
            vector=vector,
            votes=await self._votes(episode, reading),
        )
        if new.outdated:
            return dataclasses.replace(teaching, skipped=OUTDATED)
        example, skipped = self._example(episode, new, reading, observation)
        return dataclasses.replace(
            teaching,
            example=example,
            job=self._lesson(episode, reading, observation),
            precedent=_precedent(episode, new, observation, vector),
            skipped=skipped,
        )

    # -- what it says

    async def _read(
        self, episode: Episode, new: NewFeedback, observation: Observation | None
    ) -> _Reading:
        own = _plain(episode.answer)
        try:
            outcome = await self._outcome(episode, new)
        except ComparisonUnfinished:
            # Whether it was right nobody knows, and so nothing follows.
            return _Reading(None, None, own)
        right = None
        if outcome is not None:
            enough = RIGHT_SCORE if outcome.source is Signal.CLIENT else 1.0
            right = outcome.value >= enough
        elif new.label is not None:
            right = False  # nothing in the answer could be read as one
        label = new.label
        if label is None:
            full = new.correction or (own if right else None)
            label = _short(full, episode.question, observation)
        better = new.correction
        if right:
            better = new.correction or own
        elif label is not None:
            better = await self._right_trajectory(episode, label) or new.correction
        return _Reading(right, outcome, own, better, label)

    async def _outcome(self, episode: Episode, new: NewFeedback) -> Outcome | None:
        """What the strongest signal of a feedback says about the answer; None where it says nothing
        that can be read."""
        if new.source is FeedbackSource.VERIFIER:
            return Outcome(Signal.VERIFIER, float(bool(new.verified)))
        if new.source is FeedbackSource.CLIENT:
            return None if new.score is None else Outcome(Signal.CLIENT, new.score)
        if episode.answer is None:
            return None
        if new.label is not None:
            value = await self._judge.label(episode.question, episode.answer, new.label)
            return None if value is None else Outcome(Signal.LABEL, value)
        # What somebody has corrected was not right, unless nothing is changed by it.
        same = _plain(new.correction) == _plain(episode.answer)
        return Outcome(Signal.LABEL, float(same))

    async def _right_trajectory(self, episode: Episode, label: str) -> str | None:
        """The first answer of the episode's exploration that has this label."""
        for row in episode.trace.get("trajectories") or ():
            text = _plain(row.get("text"))
            if row.get("failure") or row.get("finish_reason") == "length" or not text:
                continue
            if await self._judge.has_label(episode.question, text, label):
                return text
        return None

    async def _votes(self, episode: Episode, reading: _Reading) -> dict[str, float]:
        if reading.label is None:
            return {}
        shown = await self._store.evidence.shown_labels(episode.id)
        same = {
            example_id: await self._judge.same(label, reading.label)
            for example_id, label in shown.items()
        }
        return {example_id: float(told) for example_id, told in same.items() if told is not None}

    # -- what follows

    def _example(
        self,
        episode: Episode,
        new: NewFeedback,
        reading: _Reading,
        observation: Observation | None,
    ) -> tuple[NewExample | None, str | None]:
        """The example that a feedback makes; or None, and why there is none."""
        if reading.right is None:
            return None, None
        reason = self._no_example(episode, reading)
        if reason is not None:
            return None, reason
        waits = reading.better is None and reading.worked_out
        assert reading.known is not None, "an unknown answer has a reason"
        made = NewExample(
            namespace=episode.namespace,
            question=episode.question,
            answer=reading.known,
            trust=_trust(new),
            label=reading.label,
            domain=(episode.trace.get("request") or {}).get("domain", "default"),
            instructions=None if observation is None else instructions_of(observation.messages),
            state=RuleState.CANDIDATE if waits else RuleState.ACTIVE,
            reason=WAITS if waits else None,
            source_episode=episode.id,
        )
        return screened(made)[0], None

    def _learns(self, namespace: str) -> bool:
        own = self._store.namespaces.settings_of(namespace).learn
        return self._options.learn if own is None else own

    def _no_example(self, episode: Episode, reading: _Reading) -> str | None:
        own = self._store.namespaces.settings_of(episode.namespace)
        use = self._options.examples if own.examples is None else own.examples
        obstacle = _obstacle(episode)
        if not self._learns(episode.namespace) or obstacle is not None:
            return obstacle or LEARNING_OFF
        if use is ExampleUse.OFF:
            return EXAMPLES_OFF
        if reading.answer is None:
            return NO_ANSWER
        if not episode.question.strip():
            return NO_QUESTION
        if not reading.known:
            return NOT_RIGHT
        if len(episode.question) > LONGEST_QUESTION or len(reading.known) > LONGEST_ANSWER:
            return TOO_LONG
        return None

    def _lesson(
        self, episode: Episode, reading: _Reading, observation: Observation | None
    ) -> dict[str, Any] | None:
        """Payload of the job that learns from a wrong answer whose right one is known."""
        if not self._learns(episode.namespace) or observation is None:
            return None
        if reading.right is not False:
            return None
        if not reading.answer or not reading.known:
            return None
        return {
            "observation": observation_to_json(observation),
            "wrong": reading.answer,
            "better": reading.better,
            "label": reading.label,
            "explore": reading.better is None and reading.worked_out,
            "origin": {"request_id": episode.trace.get("request_id") or episode.id},
        }


def _obstacle(episode: Episode) -> str | None:
    """Why nothing is learned from the request (tools, images, its own wish, its key)."""
    obstacle: str | None = (episode.trace.get("request") or {}).get("obstacle")
    return obstacle


def _plain(text: str | None) -> str | None:
    return None if text is None else strip_reasoning(text).strip() or None


def _short(text: str | None, question: str, observation: Observation | None) -> str | None:
    """The short answer in a right one, where the task is closed: it is marked as the answer, or
    all there is."""
    if text is None or (observation is not None and observation.task is Task.OPEN):
        return None
    found = extract(text, question)
    if found is None:
        return None
    closed = observation is not None and observation.task is Task.CLOSED
    sure = closed or found.explicit or found.how is AnswerForm.SHORT
    return found.text if sure else None


def _trust(new: NewFeedback) -> Trust:
    if new.label is not None or new.correction is not None:
        return Trust.LABEL
    return Trust.VERIFIER if new.verified is not None else Trust.SCORE


def _precedent(
    episode: Episode, new: NewFeedback, observation: Observation | None, vector: Vector | None
) -> Precedent | None:
    """The labelled question, so that candidates can be tried on it as the client asked it."""
    if new.label is None or observation is None or vector is None or episode.answer is None:
        return None
    return Precedent(
        episode_id=episode.id,
        namespace=episode.namespace,
        vector=vector,
        agreement=None,
        observation=observation_to_json(dataclasses.replace(observation, framed=False)),
        answer=episode.answer,
        reference=new.label,
        reference_kind=Reference.LABEL,
    )
