"""What went through the service by day, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class TrafficDay:
    """One day in UTC. Counts are of requests in modes steer and explore: off leaves no trace."""

    day: date
    requests: int = 0
    good: int = 0
    """Feedback that found an answer right."""
    bad: int = 0
    steered: int = 0
    """Requests that were given rules or examples."""
    experience_tokens: int = 0
    """Of these, an estimate."""
    measured: int = 0
    """Requests whose tokens and time are known."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    milliseconds: float = 0.0
    """Of all that were measured, together."""
    learning_calls: int = 0
    learning_tokens: int = 0
