"""OpenAI's Responses API (`/v1/responses`), as its reference describes it and vLLM and llama.cpp
serve it.

What the model server has stored is its own business: a request that goes on from there
(`previous_response_id`, `conversation`) is steered by what it says itself, as one of several turns.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.chat.formats.base import (
    NEEDS_LOGPROBS,
    SHARED,
    STORED_CONVERSATION,
    STORED_RESPONSE,
    Additions,
    Reading,
    TextReader,
    appended,
    content_of,
    dicts,
    ended,
    event,
    object_in,
    own_answer,
    prepended,
    shared_fields,
    text_pieces,
)
from app.domain import json_text
from app.domain.trajectory import Cost, Message, RawAnswer, Trajectory
from app.exceptions import InvalidRequest, TTCLError
from app.loop.steer.injector import SYSTEM_ROLES
from app.upstream.types import Completion

_TEXT = ("input_text", "output_text", "text")
_STORED = ("previous_response_id", "conversation", "prompt")
_REFERENCE = "item_reference"
_LOGPROBS = "message.output_text.logprobs"
_LAST = ("response.completed", "response.incomplete", "response.failed", "error")
_OF_A_PART = tuple(
    f"response.{name}." for name in ("content_part", "output_text", "refusal", "reasoning_text")
)
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "reasoning",
    "service_tier",
    "temperature",
    "text",
    "tool_choice",
    "top_p",
    "truncation",
    "user",
)
"""Fields of a request that its answer repeats."""


class ResponsesFormat:
    path = "/responses"

    def left_alone(self, body: Mapping[str, Any]) -> bool:
        return bool(body.get("background"))

    def read(self, body: Mapping[str, Any]) -> Reading:
        """Raises `InvalidRequest`."""
        fields = shared_fields(body, (*SHARED, "user", "tools"))
        if limit := body.get("max_output_tokens"):
            fields["max_completion_tokens"] = limit
        if effort := object_in(body, "reasoning").get("effort"):
            fields["reasoning_effort"] = effort
        text = object_in(body, "text")
        if form := object_in(text, "format"):
            fields["response_format"] = _form(form)
        if verbosity := text.get("verbosity"):
            fields["verbosity"] = verbosity
        stored = [body[name] for name in _STORED if body.get(name)]
        items = _items(body.get("input"), needed=not stored)
        fields["messages"] = [
            *_instructions(body.get("instructions")),
            *_stored_turns(stored),
            *_conversation(items),
        ]
        refers = stored or any(item.get("type") == _REFERENCE for item in items)
        return Reading(
            fields,
            obstacle=STORED_CONVERSATION if refers else None,
            bound=_bound(body),
            # An agent may go on by the answer's id, with the instructions as it has them.
            in_question=bool(body.get("tools")),
        )

    def add(self, body: Mapping[str, Any], given: Additions) -> dict[str, Any]:
        items = _items(body.get("input"), needed=False)
        added: dict[str, Any] = {}
        system, at = given.system, _last_question(items)
        if given.question and at is not None:
            items[at] = prepended(items[at], given.question, "input_text")
        elif given.question:
            system = ended(system, given.question)
        leading = _leading_system(items)
        if system and leading and not body.get("instructions"):
            # Many chat templates know one system message only.
            items[leading - 1] = appended(items[leading - 1], system, "input_text")
        elif system:
            added["instructions"] = ended(body.get("instructions"), system)
        turns = [{"type": "message", **turn} for turn in given.turns]
        items = [*items[:leading], *turns, *items[leading:]]
        if items:
            added["input"] = _as_it_was(body.get("input"), items)
        return {**body, **added}

    def reader(self) -> ResponsesReader:
        return ResponsesReader()

    def completion(self, body: dict[str, Any], cost: Cost) -> Completion:
        reader = ResponsesReader()
        reader.read_whole(body)
        cut = body.get("status") == "incomplete"
        return Completion(
            text=reader.text,
            finish_reason="length" if cut else "stop",
            reasoning=_thoughts(body) or None,
            raw=RawAnswer(body=body),
            cost=cost,
        )

    def whole(
        self,
        chosen: Trajectory,
        *,
        model: str,
        body: Mapping[str, Any],
        teacher: dict[str, Any] | None,
    ) -> dict[str, Any]:
        own = own_answer(chosen, _with_text, model=model, body=body)
        if own is not None:
            return own
        cut = chosen.truncated
        return {
            **_EMPTY,
            **{name: body[name] for name in _ECHOED if body.get(name) is not None},
            **(teacher or {}),
            # Under an id of its own: what the model server may have stored is another answer.
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": int(time.time()),
            "model": model,
            "error": None,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [_message_item(chosen.text, cut)],
            "usage": _usage(chosen.cost),
        }

    def events(self, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number, payload in enumerate(_event_payloads(whole)):
            yield {**payload, "sequence_number": number}

    def error(self, error: TTCLError) -> dict[str, Any]:
        return error.envelope()


class ResponsesReader(TextReader):
    def __init__(self) -> None:
        super().__init__()
        self._number = -1
        self._item = self._part = 0

    def read_event(self, said: dict[str, Any]) -> dict[str, Any]:
        kind = said.get("type")
        number = said.get("sequence_number")
        self._number = number if type(number) is int else self._number + 1
        if kind == "response.output_text.delta":
            self.take(said.get("delta"))
        elif kind in _LAST:
            self.end(failed=kind in ("response.failed", "error"))
            if not self.text:
                self._read_output(object_in(said, "response"))
        return self._missing(said)

    def read_whole(self, body: dict[str, Any]) -> None:
        self._read_output(body)
        failed = body.get("status") in ("failed", "cancelled") or bool(body.get("error"))
        self.end(failed=failed or not isinstance(body.get("output"), list))

    def _missing(self, said: dict[str, Any]) -> dict[str, Any]:
        """The numbers of an event, which llama.cpp leaves out and OpenAI's client needs."""
        kind = str(said.get("type"))
        missing: dict[str, Any] = {}
        if "sequence_number" not in said and kind.startswith("response."):
            missing["sequence_number"] = self._number
        if "output_index" not in said and ("item" in said or "item_id" in said):
            missing["output_index"] = self._item
        if "content_index" not in said and kind.startswith(_OF_A_PART):
            missing["content_index"] = self._part
        if kind == "response.output_item.done":
            self._item, self._part = self._item + 1, 0
        elif kind == "response.content_part.done":
            self._part += 1
        return missing

    def failure(self, error: TTCLError) -> bytes:
        return event(
            {
                "type": "error",
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "sequence_number": self._number + 1,
            }
        )

    def _read_output(self, body: dict[str, Any]) -> None:
        for part in _text_parts(body):
            self.take(part.get("text"))


_EMPTY: dict[str, Any] = {
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}


def _bound(body: Mapping[str, Any]) -> str | None:
    """Why the answer must be the model server's own."""
    if body.get("store"):
        return STORED_RESPONSE
    included = body.get("include")
    return NEEDS_LOGPROBS if isinstance(included, list) and _LOGPROBS in included else None


def _form(form: dict[str, Any]) -> dict[str, Any]:
    """A form of answer as chat has it."""
    if form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {k: v for k, v in form.items() if k != "type"}}


def _instructions(said: Any) -> list[Message]:
    if not said:
        return []
    if not isinstance(said, str):
        raise InvalidRequest("instructions is no text", param="instructions")
    return [{"role": "system", "content": said}]


def _stored_turns(stored: Sequence[Any]) -> list[Message]:
    """What stands for the turns that only the model server knows, to tell one from the other."""
    if not stored:
        return []
    return [{"role": "assistant", "content": json_text.dumps(stored).decode()}]


def _items(given: Any, *, needed: bool) -> list[dict[str, Any]]:
    """The items of an input, of which a text is one. Raises `InvalidRequest`."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None and not needed:
        return []
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise InvalidRequest("input is neither text nor a list of items", param="input")
    return list(given)


def _as_it_was(given: Any, items: list[dict[str, Any]]) -> Any:
    """A text where the client sent one and nothing but it is there."""
    return items[0]["content"] if isinstance(given, str) and len(items) == 1 else items


def _conversation(items: Sequence[dict[str, Any]]) -> list[Message]:
    """As chat has it. Raises `InvalidRequest`."""
    found: list[Message] = []
    for item in items:
        kind, role = item.get("type") or "message", item.get("role")
        if not isinstance(kind, str) or not isinstance(role, str | None):
            raise InvalidRequest("An item has no type that can be read", param="input")
        if kind == "message" and role is not None:
            found.append({"role": role, "content": content_of(item.get("content"), _TEXT)})
        elif kind.endswith("_output"):
            said = item.get("output")
            content = content_of(said, _TEXT) if isinstance(said, str | list) else _dumped(said)
            found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind == "message":
            raise InvalidRequest("A message has no role", param="input")
        elif kind not in ("reasoning", _REFERENCE):
            found.append({"role": "assistant", "content": None, "tool_calls": [_call(item)]})
    return found


def _call(item: dict[str, Any]) -> dict[str, Any]:
    said = item.get("arguments", item.get("input", item.get("action")))
    return {
        "id": item.get("call_id"),
        "type": "function",
        "function": {"name": item.get("name") or item.get("type"), "arguments": _dumped(said)},
    }


def _dumped(value: Any) -> str:
    return value if isinstance(value, str) else json_text.dumps(value).decode()


def _last_question(items: Sequence[dict[str, Any]]) -> int | None:
    for position in range(len(items) - 1, -1, -1):
        if items[position].get("role") == "user":
            return position
    return None


def _leading_system(items: Sequence[dict[str, Any]]) -> int:
    """How many system items there are in front."""
    roles = [item.get("role") for item in items]
    return next((n for n, role in enumerate(roles) if role not in SYSTEM_ROLES), len(roles))


def _text_parts(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        part
        for item in dicts(body.get("output"))
        if item.get("type") == "message"
        for part in dicts(item.get("content"))
        if part.get("type") == "output_text"
    ]


def _thoughts(body: Mapping[str, Any]) -> str:
    """What a model thought, where that is shown."""
    items = [item for item in dicts(body.get("output")) if item.get("type") == "reasoning"]
    parts = [part.get("text") for item in items for part in dicts(item.get("content"))]
    return "".join(text for text in parts if isinstance(text, str))


def _with_text(body: dict[str, Any], text: str) -> dict[str, Any]:
    """The same answer, saying `text`."""
    parts = _text_parts(body)
    if not parts or "".join(str(part.get("text")) for part in parts) == text:
        return body
    first = parts[0]

    def rewritten(item: Any) -> Any:
        if not isinstance(item, dict) or item.get("type") != "message":
            return item
        content = [
            {**part, "text": text} if part is first else part
            for part in dicts(item.get("content"))
            if part is first or part.get("type") != "output_text"
        ]
        return {**item, "content": content}

    return {**body, "output": [rewritten(item) for item in body["output"]]}


def _message_item(text: str, cut: bool) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if cut else "completed",
        "content": [part],
    }


def _usage(cost: Cost) -> dict[str, Any]:
    return {
        "input_tokens": cost.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": cost.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": cost.tokens,
    }


def _event_payloads(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    said = {name: value for name, value in whole.items() if name != "ttcl"}
    begun = {**said, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(dicts(whole.get("output"))):
        where = {"output_index": index}
        is_message = item.get("type") == "message"
        shown = {**item, "status": "in_progress", **({"content": []} if is_message else {})}
        yield {"type": "response.output_item.added", **where, "item": shown}
        if is_message:
            for number, part in enumerate(dicts(item.get("content"))):
                at = {**where, "item_id": item.get("id"), "content_index": number}
                yield from _part_payloads(part, at)
        yield {"type": "response.output_item.done", **where, "item": item}
    status = whole.get("status")
    last = status if status in ("incomplete", "failed") else "completed"
    yield {"type": f"response.{last}", "response": said}


def _part_payloads(part: dict[str, Any], at: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = "refusal" if part.get("type") == "refusal" else "text"
    name = "response.refusal" if kind == "refusal" else "response.output_text"
    logprobs: dict[str, Any] = {"logprobs": []} if kind == "text" else {}
    text = part.get(kind) if isinstance(part.get(kind), str) else ""
    yield {"type": "response.content_part.added", **at, "part": {**part, kind: ""}}
    for piece in text_pieces(str(text)):
        yield {"type": f"{name}.delta", **at, "delta": piece, **logprobs}
    yield {"type": f"{name}.done", **at, kind: text, **logprobs}
    yield {"type": "response.content_part.done", **at, "part": part}
