"""What an exploration is told, what it gives, and what it has spent so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.trajectory import Cost, Role, Trajectory
from app.loop.explore.roles import Call
from app.loop.steer.writer import Insertion
from app.observability.tracing import set_cost, set_failed, span
from app.upstream.types import Completion

IsDecided = Callable[[Sequence[Trajectory], int], Awaitable[bool]]
"""Given what is back and how many are still out: can the outcome no longer change?"""
AskTeacher = Callable[[str, Insertion, dict[str, Any]], Awaitable[Completion]]
"""The Teacher's answer in the client's own format, given the form that is asked for (or none), what
the request is given, and the Teacher's parameters as chat has them."""


@dataclass(frozen=True, slots=True)
class ExplorerOptions:
    students: int
    temperature: float
    top_p: float
    timeout: float
    """Seconds for the whole exploration."""
    concurrency: int
    max_tokens: int
    """Most tokens of one sample where the client set no limit (never the visible answer's)."""


@dataclass(frozen=True, slots=True)
class ExplorerResult:
    trajectories: tuple[Trajectory, ...]
    """Teacher first, then the Students by index."""
    cost: Cost
    problems: tuple[str, ...]
    """Steps that failed and what was done instead, for `degraded`."""


async def sample_in_span(call: Call, sample: Callable[[Call], Awaitable[Trajectory]]) -> Trajectory:
    with span(call.role.value, index=call.index) as step:
        trajectory = await sample(call)
        set_cost(step, trajectory.cost)
        if trajectory.failure is not None:
            set_failed(step, "no_answer")
        return trajectory


def name_of(call: Call) -> str:
    return "teacher" if call.role is Role.TEACHER else f"student-{call.index}"


def failed_trajectory(call: Call, reason: str) -> Trajectory:
    return Trajectory(
        role=call.role,
        index=call.index,
        variant=call.variant,
        cost=Cost(calls=1),
        failure=reason,
    )


@dataclass(slots=True)
class RunningCost:
    cost: Cost = field(default_factory=Cost)
    """Of the calls that came back, failed ones included."""
    open: int = 0
    """Calls that were sent and did not come back; how much they made the upstream never tells."""

    def back(self, cost: Cost) -> Cost:
        """One call fewer is out; gives its cost back."""
        self.open -= 1
        self.cost += cost
        return cost

    def total(self, prompt_tokens: int) -> Cost:
        """With `prompt_tokens` for each call that did not come back."""
        return self.cost + Cost(self.open, self.open * prompt_tokens)
