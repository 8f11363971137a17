"""The roles of an exploration as data: what each one adds to the client's request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.trajectory import Message, Observation, Role, Task

ANSWER_PROMPT = {
    Task.CLOSED: "explore/answer_closed",
    Task.OPEN: "explore/answer_open",
    Task.AUTO: "explore/answer_auto",
}
"""What Teacher and Students are told about the form of the answer."""

NOT_FOR_THE_LOOP = {"stream", "stream_options", "n", "ttcl", "model", "messages"}
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
    digest = hashlib.blake2b(model.encode() + orjson.dumps(list(messages)), digest_size=8)
    return int.from_bytes(digest.digest()) % SEED_SPACE


def derived_seed(seed: int, role: Role, index: int) -> int:
    """Seed of one call: same request, same role, same index, same sample."""
    digest = hashlib.blake2b(f"{seed}:{role}:{index}".encode(), digest_size=8)
    return int.from_bytes(digest.digest()) % SEED_SPACE


def teacher_params(observation: Observation, cap: int | None) -> dict[str, Any]:
    """Greedy unless the client chose its sampling: what it asked for is what it gets. Of an
    unframed observation the client's own parameters alone."""
    params = _base(observation, cap)
    if observation.framed:
        params.setdefault("temperature", 0)
        params["seed"] = observation.params.get("seed", observation.seed)
    return params


def student_params(
    observation: Observation, index: int, temperature: float, top_p: float, cap: int
) -> dict[str, Any]:
    return {
        **_base(observation, cap),
        "temperature": temperature,
        "top_p": top_p,
        "seed": derived_seed(observation.seed, Role.STUDENT, index),
    }


def _base(observation: Observation, cap: int | None) -> dict[str, Any]:
    """The client's fields; `cap` bounds the answer only where the client set no limit itself."""
    params = {k: v for k, v in observation.params.items() if k not in NOT_FOR_THE_LOOP}
    limited = params.get("max_tokens") or params.get("max_completion_tokens")
    if cap is not None and not limited:
        params["max_tokens"] = cap
    return params
