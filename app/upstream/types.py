"""What the loop needs from a model server, as values and one small protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.trajectory import Cost, Message


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished, non-streamed chat completion with a single choice."""

    text: str
    finish_reason: str | None
    reasoning: str | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each sampled token; None when the upstream gave none."""
    raw_logprobs: Any = None
    cost: Cost = field(default_factory=lambda: Cost(calls=1))


class ChatBackend(Protocol):
    """Where loop calls go: the real client, or the benchmark's call cache around it."""

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        """One chat completion. `params` are request fields (temperature, seed, max_tokens, ...).

        `background` calls queue behind the answers that clients wait for.
        Raises `app.exceptions.UpstreamError`.
        """
        ...

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        """One completion constrained to a JSON schema; None when no valid object could be read."""
        ...
