"""The values that pass between the HTTP layer and the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from app.access.callers import Caller
from app.chat.formats import ApiFormat, Reading
from app.chat.recorder import OpenEpisode
from app.chat.request import ChatRequest, TTCLOptions
from app.domain.bounds import LARGEST_LEARNED, LONGEST_TEXT, bounded
from app.domain.trajectory import Cost, Message, Mode, Observation
from app.loop.explore.roles import seed_of
from app.loop.steer.experience import NO_EXPERIENCE, Experience
from app.loop.steer.injector import has_images, is_single_turn, question_of
from app.loop.steer.writer import Insertion
from app.settings import ExperienceLimits
from app.upstream.capabilities import ModelInfo
from rules_store.database.json_codec import storable
from rules_store.models.effect import Assignment

CHORE = "chore"
"""Of a request that no user made: it is answered, and that is all."""


@dataclass(slots=True)
class Summary:
    """What the access log says of a request when it is over; filled in on the way."""

    began: float = field(default_factory=time.perf_counter)
    arm: str | None = None
    cost: Cost | None = None
    """Of what went upstream for the client, as far as the upstream has told it."""
    learning: str | None = None
    """`queued`, or why nothing is learned from it."""
    error: str | None = None
    """What became of the request instead of an answer."""

    @property
    def milliseconds(self) -> float:
        """Until now."""
        return 1000.0 * (time.perf_counter() - self.began)


@dataclass(frozen=True)
class ChatCall:
    """A checked request with everything that was decided about it. What is read out of its
    messages is read once: there may be a hundred thousand parts."""

    caller: Caller
    request: ChatRequest
    """As far as it can be read; in mode off nobody looks."""
    options: TTCLOptions
    unread: tuple[str, ...]
    """Names of the fields that can't be read; they go upstream as they came."""
    body: dict[str, Any]
    """The client's fields without `ttcl`, under the upstream's model name."""
    reading: Reading
    """The same as a chat request, which `body` is where `format` is None."""
    raw: bytes
    verbatim: bool
    """Whether `raw` can go upstream as it is: no `ttcl` in it, and the model's own name."""
    asked_model: str
    """The name that the client used; the answer carries it."""
    model: ModelInfo
    mode: Mode
    namespace: str
    domain: str
    limits: ExperienceLimits
    episode: str | None
    """Id of the episode to be; None in mode off, which leaves none."""
    request_id: str
    client_request_id: str | None
    """The same, where it was the client that gave it."""
    is_retry: bool
    fingerprint: str = ""
    """What is equal where an exploration is asked for again: key, namespace, body and the rest."""
    says_retry: bool = False
    """Whether it says that an equal one is the same request: by a header that counts retries, or by
    an idempotency key."""
    wants_ttcl: bool = False
    """Whether a stream's last chunk carries the `ttcl` object."""
    chore: str | None = None
    """Which chore of a client this is (`app.chat.chores`); None for what somebody asked."""
    playground: bool = False
    """Whether somebody only looks at what experience does (the console's playground): it is drawn
    for no arm, gets what most requests like it get, is credited to nothing and teaches nothing by
    itself. Feedback on it does."""
    format: ApiFormat | None = None
    """The format of request and answer; None: chat's own."""
    summary: Summary = field(default_factory=Summary)

    @property
    def fields(self) -> dict[str, Any]:
        """Of the request as a chat request."""
        return self.reading.fields

    @property
    def in_question(self) -> bool:
        """Whether what the request is given stands in front of the question, not in the system
        text."""
        return self.reading.in_question or not is_single_turn(self.messages)

    @cached_property
    def messages(self) -> list[Message]:
        """Those that are messages at all."""
        found = self.fields.get("messages")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    @cached_property
    def _whole_question(self) -> str:
        return question_of(self.messages)

    @cached_property
    def question(self) -> str:
        """Text of the last user turn, as far as it is read; the model server gets all of it."""
        return storable(bounded(self._whole_question))

    @cached_property
    def has_images(self) -> bool:
        """Whether any content part is something else than text."""
        return has_images(self.messages)

    @property
    def too_large(self) -> bool:
        """Whether it is too much to be kept, and so to be learned from."""
        return len(self.raw) > LARGEST_LEARNED

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        options = self.request.stream_options
        return bool(options and options.include_usage)

    @property
    def joins(self) -> str | None:
        """The request that one waits for which is the same and under way: of what takes many calls
        and is answered at the end only. None: each is a request of its own."""
        if self.mode is not Mode.EXPLORE or self.request.stream or self.obstacle is not None:
            return None
        return self.fingerprint or None

    @cached_property
    def obstacle(self) -> str | None:
        """Why this request is steered but not explored; None when it can be explored."""
        request = self.request
        if self.chore is not None:
            return CHORE
        if self.unread:
            return "unreadable_fields"
        if self.reading.obstacle is not None:
            return self.reading.obstacle
        if request.tools or request.functions:
            return "has_tools"
        if any(m.tool_calls or m.role in ("tool", "function") for m in request.messages):
            return "has_tools"
        if request.n is not None and request.n > 1:
            return "several_choices"
        if self.has_images:
            return "has_images"
        if not self.question.strip():
            return "no_question"
        if self.too_large or len(self._whole_question) > LONGEST_TEXT:
            return "too_long"
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    content: bytes
    headers: dict[str, str]
    """`Content-Type` among them where it is not JSON's plain one."""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Stream:
    """`close` releases what the events hold, also when they were never read."""

    events: AsyncGenerator[bytes]
    headers: dict[str, str]
    close: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class SteeredRequest:
    """A request after Steer: its episode, what it is given, and what had to be left out."""

    mode: Mode
    episode: str | None = None
    opening: asyncio.Task[OpenEpisode] | None = None
    """The episode's first write while it is under way; what it comes to is in the next two fields
    once `Steering.settle` has waited for it."""
    recorded: bool = False
    duplicate: bool = False
    experience: Experience = NO_EXPERIENCE
    assignment: Assignment | None = None
    """What was drawn for it; None where nothing was: steering is suspended, or nothing is kept."""
    offered: bool = False
    """Whether there was experience that fits, whatever it was given of it."""
    degraded: list[str] = field(default_factory=list)
    sent: list[Message] | None = None
    """The conversation with the experience in it, once it was put together."""
    insertion: Insertion | None = None
    """What was put into it."""

    def drop_experience(self) -> None:
        """Without the others, what was left out by lot says nothing any more."""
        self.experience = Experience(offered=self.experience.offered)
        self.sent = self.insertion = None

    def give_nothing(self) -> None:
        """Neither experience nor an arm: as if nothing had been looked up."""
        self.experience, self.assignment, self.offered = NO_EXPERIENCE, None, False
        self.sent = self.insertion = None

    def headers(self) -> dict[str, str]:
        headers = {"X-TTCL-Mode": self.mode.value}
        if self.episode is not None:
            headers["X-TTCL-Episode"] = self.episode
            headers["X-TTCL-Rules"] = ",".join(hit.id for hit in self.experience.rules)
            if self.assignment is not None:
                headers["X-TTCL-Arm"] = self.assignment.arm.value
            headers["X-TTCL-Examples"] = ",".join(hit.id for hit in self.experience.examples)
        if self.degraded:
            headers["X-TTCL-Degraded"] = ",".join(self.degraded)
        return headers

    def told(self, call: ChatCall, cost: Cost, exploration: dict[str, Any] | None = None) -> Any:
        """The `ttcl` object of a JSON answer."""
        return {
            "mode": self.mode.value,
            "namespace": call.namespace,
            "episode": self.episode,
            "rules": [
                {
                    "id": hit.id,
                    "polarity": hit.polarity.value,
                    "similarity": round(hit.similarity, 4),
                }
                for hit in self.experience.rules
            ],
            "examples": [
                {
                    "id": hit.id,
                    "trust": hit.trust.value,
                    "similarity": round(hit.similarity, 4),
                }
                for hit in self.experience.examples
            ],
            "given": self.experience.given.value,
            "arm": None if self.assignment is None else self.assignment.arm.value,
            "exploration": exploration,
            "cost": cost.as_dict(),
            "degraded": self.degraded or None,
        }


def observe(call: ChatCall, steered: SteeredRequest) -> Observation:
    """The request as the loop sees it: the client's own messages, without any experience."""
    own = ("model", "messages", "stream", "stream_options", "n")
    return Observation(
        episode_id=steered.episode or "",
        namespace=call.namespace,
        model=call.model.id,
        messages=tuple(call.messages),
        question=call.question,
        task=call.options.task,
        domain=call.domain,
        params={key: value for key, value in call.fields.items() if key not in own},
        hits=steered.experience.rules,
        examples=steered.experience.examples,
        seed=seed_of(call.model.id, call.messages, call.request.seed),
    )
