"""The roles of an exploration as data: what each one adds to the client's request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain import json_text
from app.domain.trajectory import Message, Observation, Role, Task
from app.upstream.types import LoopParams

ANSWER_PROMPT = {
    Task.CLOSED: "explore/answer_closed",
    Task.OPEN: "explore/answer_open",
    Task.AUTO: "explore/answer_auto",
}
"""What Teacher and Students are told about the form of the answer."""

NOT_FOR_THE_LOOP = {"stream", "stream_options", "n", "ttcl", "model", "messages"}
SIDE_EFFECTS = {"store", "metadata", "prediction", "audio", "modalities", "user_location"}
"""What is kept, paid for or spoken for one answer: it goes out with the Teacher's call only."""
THINKING = (
    "chat_template_kwargs",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "think",
    "include_reasoning",
)
SEED_SPACE = 2**31


@dataclass(frozen=True, slots=True)
class Call:
    """One Teacher or Student call, ready to be sent."""

    role: Role
    index: int
    variant: str
    messages: list[Message]
    params: dict[str, Any]


def seed_of(model: str, messages: Sequence[Message], given: Any = None) -> int:
    """Seed of a request: the client's own, or one that follows from what it says."""
    if isinstance(given, int):
        return given % SEED_SPACE
    digest = hashlib.blake2b(model.encode() + json_text.dumps(list(messages)), digest_size=8)
    return int.from_bytes(digest.digest()) % SEED_SPACE


def derived_seed(seed: int, role: Role, index: int) -> int:
    """Seed of one call: same request, same role, same index, same sample."""
    digest = hashlib.blake2b(f"{seed}:{role}:{index}".encode(), digest_size=8)
    return int.from_bytes(digest.digest()) % SEED_SPACE


def teacher_params(observation: Observation, cap: int | None) -> dict[str, Any]:
    """Greedy unless the client chose its sampling: what it asked for is what it gets. Of an
    unframed observation the client's own parameters alone."""
    own = _own(observation, samples=cap is not None)
    added = {name: value for name, value in _limit(own, cap).items() if name not in own}
    if observation.framed:
        added |= {"temperature": 0, "seed": observation.seed}
    return LoopParams({**added, **own}, added=added.keys() - own.keys())


def student_params(
    observation: Observation, index: int, temperature: float, top_p: float, cap: int
) -> dict[str, Any]:
    own = _own(observation, samples=True)
    added = {
        **_limit(own, cap),
        "temperature": temperature,
        "top_p": top_p,
        "seed": derived_seed(observation.seed, Role.STUDENT, index),
    }
    return LoopParams({**own, **added}, added=added)


def thinking_switches(observation: Observation) -> dict[str, Any]:
    """What the client says of how long to think, which holds for the loop's own questions too."""
    return {name: observation.params[name] for name in THINKING if name in observation.params}


def _own(observation: Observation, *, samples: bool) -> dict[str, Any]:
    """The client's fields; of a call that is not the client's own answer (`samples`) less those
    that do something beside it."""
    dropped = NOT_FOR_THE_LOOP | SIDE_EFFECTS if samples else NOT_FOR_THE_LOOP
    return {name: value for name, value in observation.params.items() if name not in dropped}


def _limit(own: Mapping[str, Any], cap: int | None) -> dict[str, Any]:
    """`cap` bounds the answer only where the client set no limit itself."""
    limited = own.get("max_tokens") or own.get("max_completion_tokens")
    return {} if cap is None or limited else {"max_tokens": cap}
