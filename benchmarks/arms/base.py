"""What an arm is: one way of answering the same questions.

An arm sees no gold answer but what the run's feedback tells it, once the question's step is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.domain.trajectory import Observation, Trajectory
from app.loop.reflect.equivalence import Equivalence
from app.prompt_library import PromptLibrary
from app.settings import Settings
from app.upstream.distiller_model import DistillerModel
from app.upstream.embeddings import Embedder
from app.upstream.types import ChatBackend
from app.wiring.factories import build_distiller_model
from benchmarks.callcache import CallCache, MeteredBackend
from benchmarks.feedback import Feedback
from benchmarks.taskfile import TaskFile
from rules_store.models.rules import RuleHit

NAMESPACE = "bench"


@dataclass(frozen=True, slots=True)
class Setting:
    """What all arms of a run share."""

    model: str
    task: TaskFile
    settings: Settings
    prompts: PromptLibrary
    embedder: Embedder
    equivalence: Equivalence
    calls: CallCache
    scratch: Path
    """Where arms keep rule stores while they run; what is there is never needed again."""
    distiller: ChatBackend | None = None
    """The server of the model that writes rules; None: that of the run's own model."""

    def distiller_backend(self, backend: MeteredBackend) -> MeteredBackend:
        """Calls to that server, counted with those of `backend`."""
        return backend if self.distiller is None else backend.through(self.distiller, "distiller")

    def distiller_model(self, backend: MeteredBackend) -> DistillerModel | None:
        """The model that writes rules, where it is not the run's own."""
        return build_distiller_model(self.settings, self.distiller_backend(backend))


@dataclass(frozen=True, slots=True)
class Repeat:
    """One pass over the questions. `seed` is that of the sampling, `order` that of the shuffle."""

    seed: int
    order: int


@dataclass(frozen=True, slots=True)
class PassQuestion:
    """One question of a pass, without its label."""

    id: str
    prompt: str
    position: int
    """Place in the stream, from 0."""


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What an arm did with one question."""

    asked: PassQuestion
    text: str
    """The answer that a client would have got; empty when there was none."""
    backend: MeteredBackend
    """Counted every call of this question, learning included."""
    failure: str | None = None
    trajectories: tuple[Trajectory, ...] = ()
    hits: tuple[RuleHit, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """What the report shows besides: case, agreement, problems."""
    lesson: Any = None
    """What the arm itself needs to learn from this question once its step is over."""
    feedback: Feedback | None = None
    """Set by the runner at the end of the step, where the run has feedback."""


class Session(Protocol):
    """An arm during one pass."""

    async def answer(self, asked: PassQuestion) -> ArmAnswer:
        """Answer one question, by what was learned in earlier steps only. Questions of one step
        are answered side by side."""
        ...

    async def learn(self, outcomes: Sequence[ArmAnswer]) -> list[dict[str, Any]]:
        """End of a step, outcomes in the order of the stream, with the feedback that the run gives:
        keep what was learned. Returns one row per rule, with the `id` of its question, and one with
        `kind` "examples" for each example that was kept or left."""
        ...

    async def close(self) -> None: ...


class Arm(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def stateful(self) -> bool:
        """Whether an answer depends on earlier questions of the pass: a pass that was broken off
        is then replayed from its start (its calls come from disk)."""
        ...

    async def start(self, setting: Setting, repeat: Repeat) -> Session: ...


def scope(arm: str, repeat: Repeat, asked: PassQuestion) -> str:
    return f"{arm}/{repeat.seed}/{repeat.order}/{asked.id}"


def observe(
    setting: Setting,
    repeat: Repeat,
    asked: PassQuestion,
    *,
    arm: str,
    hits: tuple[RuleHit, ...] = (),
) -> Observation:
    """The question as every arm puts it: same messages, same limit, same seed."""
    digest = hashlib.blake2b(f"{repeat.seed}\n{asked.prompt}".encode(), digest_size=4).digest()
    return Observation(
        episode_id=scope(arm, repeat, asked),
        namespace=NAMESPACE,
        model=setting.model,
        messages=setting.task.messages(asked.prompt),
        question=asked.prompt,
        task=setting.task.kind,
        domain=setting.task.domain,
        params={"max_tokens": setting.task.max_tokens},
        hits=hits,
        seed=int.from_bytes(digest) % 2**31,
    )
