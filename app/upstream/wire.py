"""Reading what a model server sent. Pure functions; hostile bytes become `UpstreamError`."""

from __future__ import annotations

import math
from typing import Any

import jsonschema

from app.domain import json_text
from app.domain.bounds import LONGEST_EMBEDDED, bounded
from app.domain.lenient_json import tolerant_json
from app.domain.trajectory import Cost, RawAnswer
from app.exceptions import UpstreamError, UpstreamFailed, UpstreamRejected
from app.upstream.capabilities import without_patterns
from app.upstream.types import Completion

MOST_TOKENS = 100_000_000
MOST_READ = 8 * 1024 * 1024
"""Bytes of a whole answer that is read on the event loop, for which nobody else is answered
meanwhile: some 100 ms. Log-probabilities of many choices can make it longer."""
NOT_READ = "answer_not_read"
"""It was longer, and went out as it came."""
_OF_A_CHOICE = ("index", "message", "logprobs", "finish_reason")
_OF_A_COMPLETION = ("id", "object", "created", "model", "choices", "usage")


def parse_completion(content: bytes, content_type: str = "application/json") -> Completion:
    """One choice of a chat completion. Raises `UpstreamError` that says what came instead."""
    try:
        body = json_text.loads_lenient(content)
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is not text")
        raw = choice.get("logprobs")
        thought = message.get("reasoning_content") or message.get("reasoning")
        reason = choice.get("finish_reason")
        return Completion(
            text=text,
            finish_reason=reason if isinstance(reason, str) else None,
            reasoning=thought if isinstance(thought, str) else None,
            logprobs=token_logprobs(raw),
            raw_logprobs=raw,
            raw=RawAnswer(
                message,
                {name: choice[name] for name in choice if name not in _OF_A_CHOICE},
                {name: body[name] for name in body if name not in _OF_A_COMPLETION},
                body["usage"] if isinstance(body.get("usage"), dict) else {},
            ),
            cost=parse_usage(body.get("usage")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise unreadable(content_type, content) from error


def object_of(content: bytes) -> dict[str, Any] | None:
    """The JSON object that these bytes are; None where they are none."""
    try:
        found = json_text.loads_lenient(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def is_openai_error(said: Any) -> bool:
    """Whether it is an error in OpenAI's form, with all of its fields."""
    error = said.get("error") if isinstance(said, dict) else None
    return isinstance(error, dict) and error.keys() >= {"message", "type", "param", "code"}


def unreadable(content_type: str, content: bytes) -> UpstreamError:
    """The error for an answer that is none, in words that say what came."""
    what = f"{len(content)} bytes of {content_type}" if content else "nothing"
    if object_of(content) is not None:
        what = "JSON without choices"
    return UpstreamError(f"the model server's answer can't be read: it sent {what}")


def token_logprobs(raw: Any) -> tuple[float, ...] | None:
    """Finite log-probabilities of the sampled tokens; None when there are none."""
    if not isinstance(raw, dict) or not isinstance(raw.get("content"), list):
        return None
    values = tuple(
        float(entry["logprob"])
        for entry in raw["content"]
        if isinstance(entry, dict) and isinstance(entry.get("logprob"), int | float)
    )
    finite = tuple(value for value in values if math.isfinite(value))
    return finite or None


def parse_usage(usage: Any) -> Cost:
    if not isinstance(usage, dict):
        return Cost(calls=1)

    def count(name: str) -> int:
        return tokens_of(usage.get(name))

    return Cost(1, count("prompt_tokens"), count("completion_tokens"))


def tokens_of(told: Any) -> int:
    """A count of tokens as a server tells it; 0 for what is none, and never more than any model can
    have read or written: sums of these are kept."""
    return min(told, MOST_TOKENS) if type(told) is int and told > 0 else 0


def made_characters(message: Any) -> int:
    """Length of all that the model wrote in a message or a piece of one: its text, its reasoning,
    its calls' arguments. Never raises."""
    if not isinstance(message, dict):
        return 0
    content = message.get("content")
    if len(message) == 1 and isinstance(content, str):
        return len(content)  # nearly every piece of a stream
    thought = message.get("reasoning_content") or message.get("reasoning")
    written = [content, thought, message.get("refusal")]
    tools = message.get("tool_calls")
    calls = [tool.get("function") for tool in _dicts(tools)] if tools else []
    calls.append(message.get("function_call"))
    for call in _dicts(calls):
        written += [call.get("name"), call.get("arguments")]
    return sum(len(text) for text in written if isinstance(text, str))


def parse_object(text: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON object in a model's text that fits the schema's shape (patterns aside)."""
    found = tolerant_json(text)
    if isinstance(found, list):
        found = next((item for item in found if isinstance(item, dict)), None)
    if not isinstance(found, dict):
        return None
    try:
        jsonschema.validate(found, without_patterns(schema))
    except jsonschema.ValidationError:
        return None
    return found


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def seconds_of(retry_after: str | None) -> float | None:
    """What a Retry-After header says, when it gives seconds."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def error_from(status: int, content: bytes, after: float | None) -> UpstreamFailed:
    """The error for a non-200 answer; a 4xx keeps status and body."""
    body: dict[str, Any] | None = None
    message = f"the model server answered {status}"
    param: str | None = None
    code: str | None = None
    try:
        loaded = json_text.loads_lenient(content)
    except ValueError:
        loaded = None
    if isinstance(loaded, dict):
        # {"error": {...}} as OpenAI and vLLM say it, {"error": "text"}, or {"detail": ...}
        inner = loaded.get("error", loaded)
        if isinstance(inner, dict):
            message = str(inner.get("message") or inner.get("detail") or message)
            param = inner.get("param") if isinstance(inner.get("param"), str) else None
            code = inner.get("code") if isinstance(inner.get("code"), str) else None
            body = loaded if "error" in loaded else None
        elif isinstance(inner, str):
            message = inner
    # Some repeat the request, and what it is about is looked for in it.
    message = bounded(message, LONGEST_EMBEDDED)
    if 400 <= status < 500:
        return UpstreamRejected(
            message, status=status, body=body, param=param, code=code, retry_after=after
        )
    error = UpstreamFailed(message, body=body, param=param, code=code, retry_after=after)
    error.status = status if status in (500, 502, 503, 504) else 502
    return error
