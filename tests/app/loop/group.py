"""Short ways to write down an observation and the trajectories that answer it."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.domain.trajectory import Observation, Role, Task, Trajectory
from app.loop.reflect.scoring import Vector
from rules_store.models.rules import Polarity, RuleHit


def asked(question: str = "How many?", *, task: Task = Task.CLOSED, **more: Any) -> Observation:
    given = {"episode_id": "ep_1", "namespace": "default", "model": "m", **more}
    return Observation(
        messages=({"role": "user", "content": question},), question=question, task=task, **given
    )


def hit(text: str, polarity: Polarity = Polarity.POSITIVE) -> RuleHit:
    return RuleHit("r1", polarity, text, "", 0.9)


def said(index: int, text: str, logprob: float | None = -0.5, **more: Any) -> Trajectory:
    """The Teacher (index 0) or a Student, every token of it as likely as `logprob` says."""
    given = {"finish_reason": "stop", **more}
    if logprob is not None:
        given.setdefault("logprobs", (logprob,) * 4)
    return Trajectory(Role.STUDENT if index else Role.TEACHER, index, "How many?", text, **given)


def group(*answers: str | tuple[str, float | None]) -> list[Trajectory]:
    """The Teacher's answer, then the Students', each boxed, with a log-probability or without."""
    pairs = [a if isinstance(a, tuple) else (a, -0.5) for a in answers]
    return [
        said(index, f"So it is \\boxed{{{answer}}}", logprob)
        for index, (answer, logprob) in enumerate(pairs)
    ]


def at(degrees: float) -> Vector:
    """A unit vector in the plane; the cosine of two is that of the angle between them."""
    angle = np.deg2rad(degrees)
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


LOOP = "and then we add one more apple to the basket " * 40
