"""What the scripted upstream can be told to answer, and the wire form that vLLM would give it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Body = dict[str, Any]
CREATED = 1_700_000_000


class Fault(StrEnum):
    """Ways to fail. Those marked * strike after `Reply.after` streamed frames."""

    REFUSE = "refuse"  # the connection is reset before a byte of the answer
    HANG = "hang"  # * silence until the client goes away
    CUT = "cut"  # * the connection is reset
    ERROR_FRAME = "error_frame"  # * an error object as an SSE frame, then [DONE]
    GARBAGE = "garbage"  # 200 with bytes that are no text
    WRONG_JSON = "wrong_json"  # 200 with JSON of another shape
    EMPTY_CHOICES = "empty_choices"  # 200 with `choices: []`
    ENDLESS = "endless"  # 200 with an answer that goes on until the client goes away


@dataclass(frozen=True)
class Reply:
    """One scripted answer. What is left out is derived as a model server would."""

    text: str = "The answer is 4."
    alternatives: Sequence[str] = ()
    """Texts of the choices 1.. when the request has n > 1; missing ones repeat `text`."""
    chunks: Sequence[str] | None = None
    """Streamed pieces of `text`, which are also its tokens; default: words with their spaces."""
    delay: float = 0.0
    """Seconds before the first byte."""
    held: Callable[[], bool] = lambda: False
    """As long as it says so, no byte is sent."""
    chunk_delay: float = 0.0
    """Seconds before each frame but the first."""
    wire_split: int | None = None
    """Send the body in TCP writes of this many bytes, across frame and character borders."""
    logprobs: float | Sequence[float] | None = -0.1
    """Of each token, or one for all; None: the server has none, though asked."""
    finish_reason: str | None = None
    usage: tuple[int, int] | None = None
    """(prompt_tokens, completion_tokens)."""
    tool_calls: Sequence[tuple[str, str, str]] = ()
    """(id, function name, arguments as text)."""
    reasoning: str | None = None
    reasoning_field: str = "reasoning_content"
    status: int = 200
    body: Any = None
    """The whole answer: bytes as they are, anything else as JSON. Needed when status is not 200."""
    headers: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    after: int = 0

    @classmethod
    def of_json(cls, value: Any, **more: Any) -> Reply:
        return cls(text=json.dumps(value, ensure_ascii=False), **more)

    @classmethod
    def error(
        cls,
        status: int,
        message: str = "scripted failure",
        *,
        type: str = "BadRequestError",
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """An error as vLLM words it: `code` is the status as a number."""
        error = {"message": message, "type": type, "param": param, "code": status}
        return cls(status=status, body={"error": error}, headers=headers or {})

    def but(self, **changes: Any) -> Reply:
        return replace(self, **changes)


Script = Reply | Sequence[Reply] | Callable[[Body], Reply]


def tokens_of(text: str) -> list[str]:
    """Words with the space that follows; the fake's tokeniser."""
    return re.findall(r"\S+\s*|\s+", text)


def text_of(body: Body) -> str:
    """All text of the request's messages, one line each."""
    lines = []
    for message in body.get("messages") or []:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = "\n".join(p.get("text", "") for p in content if isinstance(p, dict))
        lines.append(content or "")
    return "\n".join(lines)


def prompt_tokens(body: Body) -> int:
    return len(tokens_of(text_of(body))) + 3 * len(body.get("messages") or [])


@dataclass(frozen=True)
class _Choice:
    index: int
    tokens: list[str]
    logprobs: list[float] | None
    finish_reason: str

    @property
    def text(self) -> str:
        return "".join(self.tokens)


class Wire:
    """Renders one reply to one request, streamed or not."""

    ends = b"data: [DONE]\n\n"
    """What comes behind the frames of a stream."""

    def __init__(self, reply: Reply, body: Body, number: int, null_usage: bool) -> None:
        self._reply = reply
        self._body = body
        self._id = f"chatcmpl-scripted-{number}"
        self._null_usage = null_usage
        texts = [reply.text, *reply.alternatives]
        self._choices = [
            self._choice(i, texts[i] if i < len(texts) else reply.text)
            for i in range(body.get("n") or 1)
        ]

    def _choice(self, index: int, text: str) -> _Choice:
        reply, body = self._reply, self._body
        tokens = list(reply.chunks) if reply.chunks and index == 0 else tokens_of(text)
        finish = "tool_calls" if reply.tool_calls else "stop"
        if reply.tool_calls and text == Reply.text:
            tokens = []
        stops = body.get("stop") or []
        cuts = [text.find(s) for s in ([stops] if isinstance(stops, str) else stops) if s in text]
        if cuts:
            tokens = tokens_of(text[: min(cuts)])
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        if limit and len(tokens) > limit:
            tokens, finish = tokens[:limit], "length"
        values: list[float] | None = None
        if body.get("logprobs") and reply.logprobs is not None:
            given = reply.logprobs
            values = [given] * len(tokens) if isinstance(given, (int, float)) else list(given)
        return _Choice(index, tokens, values, reply.finish_reason or finish)

    def usage(self) -> dict[str, Any]:
        made = sum(len(c.tokens) for c in self._choices)
        prompt, completion = self._reply.usage or (prompt_tokens(self._body), made)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _logprobs(self, choice: _Choice, start: int, stop: int) -> dict[str, Any] | None:
        if choice.logprobs is None:
            return None
        content = []
        for token, value in zip(
            choice.tokens[start:stop], choice.logprobs[start:stop], strict=False
        ):
            entry = {"token": token, "logprob": value, "bytes": list(token.encode())}
            top = [dict(entry) for _ in range(self._body.get("top_logprobs") or 0)]
            content.append({**entry, "top_logprobs": top})
        return {"content": content}

    def whole(self) -> Body:
        """The `chat.completion` object."""
        reply = self._reply
        choices = []
        for choice in self._choices:
            message: Body = {"role": "assistant", "content": choice.text, "refusal": None}
            if reply.tool_calls:
                message["content"] = choice.text or None
                message["tool_calls"] = [_call(*c) for c in reply.tool_calls]
            if reply.reasoning is not None:
                message[reply.reasoning_field] = reply.reasoning
            choices.append(
                {
                    "index": choice.index,
                    "message": message,
                    "logprobs": self._logprobs(choice, 0, len(choice.tokens)),
                    "finish_reason": choice.finish_reason,
                    "stop_reason": None,
                }
            )
        if reply.fault is Fault.EMPTY_CHOICES:
            choices = []
        return {**self._frame("chat.completion", choices), "usage": self.usage()}

    def error(self) -> Body:
        """The frame of a failure in the middle of a stream."""
        return dict(Reply.error(500, "scripted failure", type="InternalServerError").body)

    def frames(self) -> Iterator[Body]:
        """The `chat.completion.chunk` objects in order, [DONE] not included."""
        with_usage = bool((self._body.get("stream_options") or {}).get("include_usage"))
        extra: Body = {"usage": None} if with_usage and self._null_usage else {}
        if self._reply.fault is not Fault.EMPTY_CHOICES:
            for choice in self._choices:
                yield self._delta(choice, {"role": "assistant", "content": ""}) | extra
            for choice, delta, logprobs in self._deltas():
                yield self._delta(choice, delta, logprobs) | extra
            for choice in self._choices:
                yield self._delta(choice, {}, None, choice.finish_reason) | extra
        if with_usage:
            yield {**self._frame("chat.completion.chunk", []), "usage": self.usage()}

    def _deltas(self) -> Iterator[tuple[_Choice, Body, Body | None]]:
        reply, first = self._reply, self._choices[0]
        for piece in tokens_of(reply.reasoning or ""):
            yield first, {reply.reasoning_field: piece}, None
        for position in range(max(len(c.tokens) for c in self._choices)):
            for choice in self._choices:
                if position < len(choice.tokens):
                    logprobs = self._logprobs(choice, position, position + 1)
                    yield choice, {"content": choice.tokens[position]}, logprobs
        for number, (call_id, name, arguments) in enumerate(reply.tool_calls):
            yield first, {"tool_calls": [{"index": number, **_call(call_id, name, "")}]}, None
            for at in range(0, len(arguments), 8):
                piece = {"arguments": arguments[at : at + 8]}
                yield first, {"tool_calls": [{"index": number, "function": piece}]}, None

    def _delta(
        self, choice: _Choice, delta: Body, logprobs: Body | None = None, finish: str | None = None
    ) -> Body:
        entry = {
            "index": choice.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }
        return self._frame("chat.completion.chunk", [entry])

    def _frame(self, kind: str, choices: list[Body]) -> Body:
        return {
            "id": self._id,
            "object": kind,
            "created": CREATED,
            "model": self._body.get("model"),
            "choices": choices,
        }


def _call(call_id: str, name: str, arguments: str) -> Body:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def instance_of(schema: Body) -> Any:
    """A smallest value that fits a JSON schema, for structured calls that nobody scripted."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return instance_of(schema["anyOf"][0])
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {k: instance_of(v) for k, v in (schema.get("properties") or {}).items()}
    if kind == "array":
        count = max(schema.get("minItems", 1), 1)
        return [instance_of(schema.get("items") or {"type": "string"}) for _ in range(count)]
    return {"integer": 1, "number": 1.0, "boolean": True, "null": None}.get(kind, "scripted")
