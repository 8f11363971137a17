"""A `ChatBackend` that answers from a script, remembers, and can hold calls back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.domain.trajectory import Cost, Message, Observation, Role
from app.exceptions import UpstreamError
from app.loop.explore.roles import derived_seed
from app.upstream.types import Completion

Script = str | Completion | UpstreamError | Callable[["Sent"], Completion]


@dataclass
class Sent:
    """One call as it arrived, and what became of it."""

    name: str
    """teacher, student-1.., tutor, distiller."""
    messages: list[Message]
    params: dict[str, Any]
    background: bool
    logprobs: bool = False
    schema: dict[str, Any] | None = None
    outcome: str = "open"
    """open, answered, failed, cancelled."""

    @property
    def text(self) -> str:
        return "\n".join(str(message.get("content")) for message in self.messages)


def completion(text: str, **more: Any) -> Completion:
    """An answer of a well-behaved upstream, at a cost of 10 + 5 tokens."""
    given = {"finish_reason": "stop", "logprobs": (-0.1, -0.2), "cost": Cost(1, 10, 5), **more}
    return Completion(text, **given)


class Backend:
    """`script[name]` answers the call of that name, `default` the others. A name in `held` waits
    for `release(name)`."""

    def __init__(
        self, observation: Observation, default: str = "The answer is \\boxed{4}."
    ) -> None:
        self.script: dict[str, Script] = {}
        self.variants: Any = {"variants": []}
        """The Tutor's object; an exception is raised, None is an answer that could not be read."""
        self.rules: Any = None
        """The distiller's object."""
        self.default = default
        self.sent: list[Sent] = []
        self.most_open = 0
        self._seeds = {
            derived_seed(observation.seed, Role.STUDENT, n): f"student-{n}" for n in range(1, 17)
        }
        self._held: dict[str, asyncio.Event] = {}
        self._arrived = asyncio.Event()

    def hold(self, *names: str) -> None:
        self._held.update({name: asyncio.Event() for name in names})

    def release(self, name: str) -> None:
        self._held[name].set()

    @property
    def names(self) -> list[str]:
        return [sent.name for sent in self.sent]

    def call(self, name: str) -> Sent:
        (found,) = (sent for sent in self.sent if sent.name == name)
        return found

    def outcomes(self) -> dict[str, str]:
        return {sent.name: sent.outcome for sent in self.sent}

    async def until_sent(self, *names: str) -> None:
        async with asyncio.timeout(5):
            while not set(names) <= set(self.names):
                self._arrived.clear()
                await self._arrived.wait()

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        name = self._seeds.get(params["seed"], "teacher")
        sent = Sent(name, messages, params, background, logprobs)
        return await self._answer(sent, self.script.get(name, self.default))

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        name = "tutor" if "variants" in schema["properties"] else "distiller"
        sent = Sent(name, messages, params, background, schema=schema)
        value = self.variants if name == "tutor" else self.rules
        if isinstance(value, UpstreamError):
            return None, await self._answer(sent, value)
        return value, await self._answer(sent, self.script.get(name, "{}"))

    async def _answer(self, sent: Sent, script: Script) -> Completion:
        self.sent.append(sent)
        self._arrived.set()
        self.most_open = max(self.most_open, sum(each.outcome == "open" for each in self.sent))
        try:
            await asyncio.sleep(0)
            if sent.name in self._held:
                await self._held[sent.name].wait()
        except asyncio.CancelledError:
            sent.outcome = "cancelled"
            raise
        if isinstance(script, UpstreamError):
            sent.outcome = "failed"
            raise script
        sent.outcome = "answered"
        if isinstance(script, str):
            return completion(script)
        return script if isinstance(script, Completion) else script(sent)
