"""What the loop needs from a model server, as values and one small protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.trajectory import Cost, Message, RawAnswer

THINKING_SPENT = "thinking_budget_spent"
"""A model used up all tokens that an answer may have before it had begun to answer."""
_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished, non-streamed chat completion with a single choice."""

    text: str
    finish_reason: str | None
    reasoning: str | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each sampled token; None when the upstream gave none."""
    raw_logprobs: Any = None
    raw: RawAnswer | None = None
    cost: Cost = field(default_factory=lambda: Cost(calls=1))

    @property
    def thought(self) -> bool:
        """Whether there was thinking before the answer."""
        return self.reasoning is not None or _THOUGHTS.search(self.text) is not None

    @property
    def spent_on_thinking(self) -> bool:
        """Whether it was cut before it had begun to answer."""
        said = _THOUGHTS.sub("", self.text)
        return self.finish_reason == "length" and self.thought and not said.strip()


class LoopParams(dict[str, Any]):
    """Request fields of a call, and which of them the loop `added` to the client's: those may be
    left out for a model that refuses them. `sent`: which are as the client sent them."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        added: Iterable[str],
        sent: Iterable[str] | None = None,
    ) -> None:
        """`sent` None: all that were not added."""
        super().__init__(fields)
        self.added = frozenset(added)
        self.sent = frozenset(fields.keys() - self.added if sent is None else sent)


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
