"""Anthropic's Messages API (`/v1/messages`), as its reference describes it and vLLM and llama.cpp
serve it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.chat.formats.base import (
    Additions,
    Reading,
    TextReader,
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
from app.loop.steer.injector import GAP, text_of
from app.upstream.types import Completion

_TEXT = ("text",)
_RESULT = "tool_result"
_STOPPED = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class MessagesFormat:
    path = "/messages"

    def left_alone(self, body: Mapping[str, Any]) -> bool:
        return False

    def read(self, body: Mapping[str, Any]) -> Reading:
        """Raises `InvalidRequest`."""
        fields = shared_fields(body, (*_SHARED, "max_tokens", "thinking", "tools"))
        if stops := body.get("stop_sequences"):
            fields["stop"] = stops
        if user := object_in(body, "metadata").get("user_id"):
            fields["user"] = user
        config = object_in(body, "output_config")
        if effort := config.get("effort"):
            fields["reasoning_effort"] = effort
        if form := object_in(config, "format") or object_in(body, "output_format"):
            fields["response_format"] = _form(form)
        fields["messages"] = [*_system(body.get("system")), *_conversation(body.get("messages"))]
        # Tools that the model server calls itself.
        served = any(body.get(name) for name in ("mcp_servers", "container"))
        return Reading(fields, "has_tools" if served else None)

    def add(self, body: Mapping[str, Any], given: Additions) -> dict[str, Any]:
        messages = list(body["messages"])
        added: dict[str, Any] = {}
        system, at = given.system, _last_question(messages)
        if given.question and at is not None:
            messages[at] = prepended(messages[at], given.question, "text")
        elif given.question:
            system = ended(system, given.question)
        if system:
            added["system"] = _with_system(body.get("system"), system)
        return {**body, **added, "messages": [*given.turns, *messages]}

    def reader(self) -> MessagesReader:
        return MessagesReader()

    def completion(self, body: dict[str, Any], cost: Cost) -> Completion:
        reader = MessagesReader()
        reader.read_whole(body)
        blocks = dicts(body.get("content"))
        thoughts = [block.get("thinking") for block in blocks if block.get("type") == "thinking"]
        reason = body.get("stop_reason")
        return Completion(
            text=reader.text,
            finish_reason=_STOPPED.get(str(reason), str(reason)),
            reasoning="".join(text for text in thoughts if isinstance(text, str)) or None,
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
        return {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": chosen.text}],
            "stop_reason": "max_tokens" if chosen.truncated else "end_turn",
            "stop_sequence": None,
            "usage": _usage(chosen.cost),
        }

    def events(self, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
        usage = object_in(whole, "usage")
        begun = {
            **{name: value for name, value in whole.items() if name != "ttcl"},
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 0},
        }
        yield {"type": "message_start", "message": begun}
        for index, block in enumerate(dicts(whole.get("content"))):
            yield from _block_events(index, block)
        reasons = {name: whole.get(name) for name in ("stop_reason", "stop_sequence")}
        used = {"output_tokens": usage.get("output_tokens", 0)}
        yield {"type": "message_delta", "delta": reasons, "usage": used}
        yield {"type": "message_stop"}

    def error(self, error: TTCLError) -> dict[str, Any]:
        kind = _ERROR_TYPES.get(error.status)
        if kind is None:
            kind = "invalid_request_error" if error.status < 500 else "api_error"
        return {"type": "error", "error": {"type": kind, "message": error.message}}


class MessagesReader(TextReader):
    def read_event(self, said: dict[str, Any]) -> dict[str, Any]:
        kind = said.get("type")
        if kind == "content_block_delta":
            delta = object_in(said, "delta")
            if delta.get("type") == "text_delta":
                self.take(delta.get("text"))
        elif kind == "content_block_start":
            block = object_in(said, "content_block")
            if block.get("type") == "text":
                self.take(block.get("text"))
        elif kind in ("message_stop", "error"):
            self.end(failed=kind == "error")
        return {}

    def read_whole(self, body: dict[str, Any]) -> None:
        for block in dicts(body.get("content")):
            if block.get("type") == "text":
                self.take(block.get("text"))
        self.end(failed=not isinstance(body.get("content"), list))

    def failure(self, error: TTCLError) -> bytes:
        return event(MessagesFormat().error(error))


_SHARED = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "chat_template_kwargs",
    "enable_thinking",
)


def _form(form: dict[str, Any]) -> dict[str, Any]:
    if form.get("type") != "json_schema":
        return form
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": form.get("schema"), "strict": True},
    }


def _system(system: Any) -> list[Message]:
    if not system:
        return []
    if not isinstance(system, str | list):
        raise InvalidRequest("system is neither text nor a list", param="system")
    return [{"role": "system", "content": text_of(system)}]


def _with_system(system: Any, text: str) -> Any:
    """The client's own system text, as it wrote it, ended by `text`: text by text, blocks by one
    block more, so that its `cache_control` marks still hold for all in front of it."""
    if isinstance(system, list):
        # Servers that are not Anthropic's put the blocks together with nothing in between.
        return [*system, {"type": "text", "text": GAP + text if system else text}]
    return ended(system, text)


def _conversation(messages: Any) -> list[Message]:
    """As chat has it. Raises `InvalidRequest`."""
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise InvalidRequest("messages is no list of messages", param="messages")
    found: list[Message] = []
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise InvalidRequest("A message has no role", param="messages")
        if _is_step(message):
            found += _results(message)
        elif message["role"] == "assistant":
            found.append(_answered(message))
        else:
            content = content_of(message.get("content"), _TEXT)
            found.append({"role": message["role"], "content": content})
    return found


def _is_step(message: Message) -> bool:
    """Whether a user message brings results of tools: it goes on with a turn, whatever else an
    agent says in it."""
    blocks = dicts(message.get("content"))
    return message.get("role") == "user" and any(b.get("type") == _RESULT for b in blocks)


def _last_question(messages: Sequence[Any]) -> int | None:
    """Position of the user message with which the present turn began."""
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if message.get("role") == "user" and not _is_step(message):
            return position
    return None


def _results(message: Message) -> list[Message]:
    found: list[Message] = []
    for block in dicts(message["content"]):
        if block.get("type") == _RESULT:
            content = block.get("content")
            said = content_of(content, _TEXT) if isinstance(content, list) else content
            found.append(
                {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": said}
            )
        else:
            found.append({"role": "tool", "content": content_of([block], _TEXT)})
    return found


def _answered(message: Message) -> Message:
    """An assistant's message: its text, and what it called."""
    content = message.get("content")
    if not isinstance(content, list):
        return {"role": "assistant", "content": content_of(content, _TEXT)}
    said: Message = {"role": "assistant", "content": text_of(content)}
    calls = [block for block in dicts(content) if block.get("type") not in _SAID]
    if calls:
        said["tool_calls"] = [_call(block) for block in calls]
    return said


_SAID = ("text", "thinking", "redacted_thinking")


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = json_text.dumps(block.get("input") or {}).decode()
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {"name": block.get("name") or block.get("type"), "arguments": arguments},
    }


def _usage(cost: Cost) -> dict[str, Any]:
    return {"input_tokens": cost.prompt_tokens, "output_tokens": cost.completion_tokens}


def _with_text(body: dict[str, Any], text: str) -> dict[str, Any]:
    """The same answer, saying `text`."""
    blocks = dicts(body.get("content"))
    said = [block for block in blocks if block.get("type") == "text"]
    if not said or "".join(str(block.get("text")) for block in said) == text:
        return body
    first = said[0]
    kept = [block for block in blocks if block is first or block.get("type") != "text"]
    return {
        **body,
        "content": [{**block, "text": text} if block is first else block for block in kept],
    }


_DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = str(block.get("type"))
    begun, deltas = block, []
    if kind in _DELTAS:
        text = block.get(kind) if isinstance(block.get(kind), str) else ""
        begun = {**block, kind: ""}
        deltas = [{"type": _DELTAS[kind], kind: piece} for piece in text_pieces(str(text))]
    if kind == "thinking" and isinstance(block.get("signature"), str):
        begun["signature"] = ""
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    if kind == "tool_use":
        begun = {**block, "input": {}}
        said = json_text.dumps(block.get("input") or {}).decode()
        deltas = [{"type": "input_json_delta", "partial_json": said}]
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
