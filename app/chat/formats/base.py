"""What a format has to say for itself, and what the formats have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain import json_text
from app.domain.trajectory import Cost, Message, RawAnswer, Role, Trajectory
from app.exceptions import InvalidRequest, TTCLError, UpstreamError
from app.loop.steer.injector import GAP
from app.loop.steer.writer import Insertion
from app.upstream.sse import MAX_CHARACTERS
from app.upstream.types import Completion

STORED_CONVERSATION = "stored_conversation"
"""Earlier turns are known to the model server alone, so that nothing can be explored."""
STORED_RESPONSE = "stored_response"
"""The model server is to keep its answer, so that no other one may be given for it."""
NEEDS_LOGPROBS = "needs_logprobs"
"""Log-probabilities are asked for, which only the model server's own answer has in this format."""
_PIECE = re.compile(r"\s*+\S++(?:\s++\Z)?|\s++")
SHARED = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "chat_template_kwargs",
    "enable_thinking",
    "reasoning_effort",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
)
"""Fields that mean the same in a chat request."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A request as the loop sees it."""

    fields: dict[str, Any]
    """The same as a chat request: its messages, its sampling, the form that it asks for."""
    obstacle: str | None = None
    """Why it can be neither explored nor learned from."""
    bound: str | None = None
    """Why its answer must be the model server's own, though it can be learned from."""
    in_question: bool = False
    """Whether what it is given stands in front of the question even where nobody has answered yet,
    because what comes after it is sent without the system text that it had."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What a request is given, by its place."""

    system: str = ""
    """Ends the system text."""
    question: str = ""
    """In front of the last question."""
    turns: tuple[Message, ...] = ()
    """Examples, behind the system text."""


def additions(
    insertion: Insertion, *, in_question: bool, form: str = "", folded: bool = False
) -> Additions:
    """The places are chat's (see `app.loop.steer.injector`). `in_question`: where the block goes.
    `form`: what a Teacher is told of the answer's form. `folded`: the model has no system role."""
    block, turns = insertion.block, insertion.turns
    if folded:
        return Additions("", _joined(form, block), turns)
    if in_question:
        return Additions(form, block, turns)
    return Additions(_joined(form, block), "", turns)


def _joined(*texts: str) -> str:
    return GAP.join(text for text in texts if text)


class AnswerReader(Protocol):
    """Reads along with the answer to one request."""

    @property
    def text(self) -> str: ...

    ended: bool
    """Whether the last event of a stream is there."""

    @property
    def complete(self) -> bool:
        """Whether it came to its end without a failure."""
        ...

    def read_event(self, said: dict[str, Any]) -> dict[str, Any]:
        """Take in what one event says; gives what it lacks of its format, which is mostly nothing.
        Raises `UpstreamError` where there is no end to them."""
        ...

    def read_whole(self, body: dict[str, Any]) -> None:
        """Take in a whole answer. What is none of this format is not `complete`. Raises as
        `read_event`."""
        ...

    def failure(self, error: TTCLError) -> bytes:
        """The event that ends a stream which failed."""
        ...


class ApiFormat(Protocol):
    path: str
    """Of the model server, beneath `/v1`."""

    def left_alone(self, body: Mapping[str, Any]) -> bool:
        """Whether a request is the model server's business alone."""
        ...

    def read(self, body: Mapping[str, Any]) -> Reading:
        """Raises `InvalidRequest` for what can't be read."""
        ...

    def add(self, body: Mapping[str, Any], given: Additions) -> dict[str, Any]:
        """The client's body with what it is given; what it says itself stays as it is."""
        ...

    def reader(self) -> AnswerReader: ...

    def completion(self, body: dict[str, Any], cost: Cost) -> Completion:
        """A whole answer as the loop sees it, itself in `raw.body`, at this cost. Raises
        `UpstreamError` for a text without end."""
        ...

    def whole(
        self,
        chosen: Trajectory,
        *,
        model: str,
        body: Mapping[str, Any],
        teacher: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """The chosen answer in this format. `model`: the name that the client used; `body`: its
        request, under the model's own; `teacher`: what the model server answered to it."""
        ...

    def events(self, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A whole answer as the format's complete sequence of events (see `event`)."""
        ...

    def error(self, error: TTCLError) -> dict[str, Any]:
        """The body of an error."""
        ...


def text_pieces(text: str) -> list[str]:
    """Words, each with the space around it, that join to the text."""
    pieces: list[str] = _PIECE.findall(text)
    return pieces


class TextReader:
    """The text of an answer, put together of its pieces, and how it ended: what the readers of all
    formats have in common."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._characters = 0
        self.ended = False
        self._failed = False

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def complete(self) -> bool:
        return self.ended and not self._failed

    def take(self, piece: Any) -> None:
        """Raises `UpstreamError` where there is no end to them."""
        if not isinstance(piece, str):
            return
        self._parts.append(piece)
        self._characters += len(piece)
        if self._characters > MAX_CHARACTERS:
            raise UpstreamError("the model server's answer has no end")

    def end(self, *, failed: bool) -> None:
        self.ended, self._failed = True, failed


def event(payload: dict[str, Any]) -> bytes:
    """A server-sent event under the name of its type."""
    return f"event: {payload['type']}\ndata: ".encode() + json_text.dumps(payload) + b"\n\n"


def last_event(payload: dict[str, Any], told: Any) -> bytes:
    """The last event of a stream, with what is `told` of the request where that is not None."""
    return event(payload if told is None else {**payload, "ttcl": told})


def dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def object_in(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object under that name; an empty one where there is none."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def shared_fields(body: Mapping[str, Any], names: Iterable[str] = SHARED) -> dict[str, Any]:
    return {name: body[name] for name in names if body.get(name) is not None}


def content_of(content: Any, text_types: Collection[Any]) -> Any:
    """A message's content as chat has it: one text where there is nothing but text, else the parts
    as they are. Raises `InvalidRequest`."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("A message's content is neither text nor a list")
    parts = dicts(content)
    texts = [part.get("text") for part in parts if part.get("type") in text_types]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) == len(content):
        return "\n".join(known)
    return [
        {"type": "text", "text": part.get("text")} if part.get("type") in text_types else part
        for part in parts
    ]


def prepended(message: Message, text: str, part_type: str) -> Message:
    """The message with `text` in front of what it says."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [{"type": part_type, "text": text}, *content]}
    return {**message, "content": text + GAP + (content or "")}


def appended(message: Message, text: str, part_type: str) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": part_type, "text": text}]}
    return {**message, "content": ended(content, text)}


def ended(said: str | None, text: str) -> str:
    """What was said with `text` at its end."""
    return f"{said}{GAP}{text}" if said else text


def own_answer(
    chosen: Trajectory,
    saying: Callable[[dict[str, Any], str], dict[str, Any]],
    *,
    model: str,
    body: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The model server's own answer in the client's format, under the client's name of the model,
    where that was chosen. `saying`: the same answer with another text."""
    raw: RawAnswer | None = chosen.raw
    if chosen.role is not Role.TEACHER or raw is None or not raw.body:
        return None
    said = saying(raw.body, chosen.text)
    return dict(said) if model == body.get("model") else {**said, "model": model}
