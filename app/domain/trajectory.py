"""The words the loop is written in: frozen values that travel from step to step.

    Observation -> Trajectory, ... -> Selection -> Contrast -> DistilledRule, ...

Nothing here does I/O and nothing here knows HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rules_store.models.examples import ExampleHit
from rules_store.models.rules import Polarity, RuleHit

Message = dict[str, Any]
"""One chat message as the client sent it: `role`, `content` (text or parts) and whatever else."""


class Mode(StrEnum):
    OFF = "off"
    STEER = "steer"
    EXPLORE = "explore"


class Task(StrEnum):
    AUTO = "auto"
    CLOSED = "closed"
    OPEN = "open"


class Role(StrEnum):
    TEACHER = "teacher"
    TUTOR = "tutor"
    STUDENT = "student"
    DISTILLER = "distiller"


@dataclass(frozen=True, slots=True)
class Cost:
    """What the upstream reported it did. `calls` counts requests sent, cancelled ones included."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __sub__(self, part: Cost) -> Cost:
        return Cost(
            self.calls - part.calls,
            self.prompt_tokens - part.prompt_tokens,
            self.completion_tokens - part.completion_tokens,
        )

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, int]:
        return {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.tokens,
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """One request as the loop sees it. `messages` are the client's, without any rules or
    examples."""

    episode_id: str
    namespace: str
    model: str
    messages: tuple[Message, ...]
    question: str
    """Text of the last user turn."""
    task: Task = Task.AUTO
    domain: str = "default"
    params: dict[str, Any] = field(default_factory=dict)
    """Every other field of the client's request (temperature, max_tokens, stop, ...)."""
    hits: tuple[RuleHit, ...] = ()
    """Rules retrieved for `question`, in the order in which they are injected."""
    examples: tuple[ExampleHit, ...] = ()
    """Examples recalled for it, nearest first."""
    seed: int = 0
    framed: bool = True
    """Whether a replay adds the form of the answer and samples greedily, as the loop's own calls
    do; without, it asks as the client asked."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came, for the client that gets it; never stored."""

    message: dict[str, Any] = field(default_factory=dict)
    """Refusal, calls, audio and reasoning under their own names among them."""
    choice: dict[str, Any] = field(default_factory=dict)
    """What else was said of the choice, and (`body`) of the whole."""
    body: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sampled answer, or the reason why there is none."""

    role: Role
    index: int
    """Teacher 0, Students 1..N."""
    variant: str
    """The wording of the question that was answered."""
    text: str = ""
    reasoning: str | None = None
    finish_reason: str | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each sampled token; None when the upstream gives none."""
    raw_logprobs: Any = None
    """The upstream's `logprobs` object, kept for a client that asked for it; never stored."""
    raw: RawAnswer | None = None
    cost: Cost = Cost()
    failure: str | None = None
    """Why there is no usable text: `cancelled`, `timeout`, an error message."""

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"

    @property
    def name(self) -> str:
        return self.role.value if self.role is Role.TEACHER else f"{self.role.value}-{self.index}"


class Case(StrEnum):
    """What the group of trajectories looked like; decides which rules may be learned."""

    UNANIMOUS = "unanimous"  # all usable answers equal: only a positive rule
    MAJORITY = "majority"  # a majority and others: both polarities
    TIE = "tie"  # several largest groups, broken by mean perplexity: both polarities
    SCATTERED = "scattered"  # all different: nothing is learned, the Teacher's answer stands
    CONTRASTED = "contrasted"  # open task, spread large enough: both polarities
    HOMOGENEOUS = "homogeneous"  # open task, spread too small: only a positive rule
    VERIFIED = "verified"  # feedback knows the right answer: both polarities
    UNUSABLE = "unusable"  # fewer than two usable trajectories: nothing is learned


@dataclass(frozen=True, slots=True)
class Assessment:
    """What Reflect found out about one trajectory."""

    name: str
    usable: bool
    exclusion: str | None
    """Why it can't be y+: failed | too_long | truncated | empty | degenerate."""
    answer: str | None
    group: int | None
    """Index of its equivalence class (closed tasks), largest class first."""
    perplexity: float | None
    similarity: float | None
    """Cosine to the Teacher (open tasks)."""
    better: bool | None
    """Which side of the contrast it is on; None when it is on neither."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Outcome of Reflect / select."""

    case: Case
    task: Task
    """closed or open: what `auto` was resolved to."""
    chosen: Trajectory | None
    """What the client sees in explore mode; None when every trajectory failed."""
    better: Trajectory | None = None
    worse: Trajectory | None = None
    judged: tuple[Assessment, ...] = ()
    agreement: float | None = None
    """Share of the usable trajectories in the largest group (closed tasks), in [0, 1]."""
    criterion: str = "perplexity"
    """`perplexity`, or `medoid` where the upstream gave no log-probabilities."""
    right: str | None = None
    """The right answer, of a verified contrast."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A question with its better and its worse answer, as an episode has kept them."""

    question: str
    better: str
    worse: str
    verified: bool = False
    """Whether somebody has said that the better one is right, and the worse one wrong."""


@dataclass(frozen=True, slots=True)
class DistilledRule:
    """One rule as the distiller wrote it, judged by the admission check."""

    polarity: Polarity
    text: str
    trigger: str
    refusal: str | None = None
    """Name of the admission check that it failed; None when admitted."""
