"""The selected answer of an exploration as an OpenAI completion: whole, or as a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.chat.call import Stream
from app.chat.formats.base import text_pieces
from app.domain.trajectory import RawAnswer, Trajectory
from app.upstream.sse import DONE, frame

_NOTHING = RawAnswer()
_OF_A_WHOLE = ("choices", "usage", "ttcl")


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """What the client wants to see of the answer."""

    model: str
    """The name it asked for, mode suffix included."""
    logprobs: bool = False
    top_logprobs: bool = False
    usage_chunk: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def usage(answer: Trajectory) -> dict[str, Any]:
    """Tokens of the visible answer alone; the loop's whole cost is in `ttcl.cost`."""
    cost = answer.cost
    return {
        **_raw(answer).usage,
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "total_tokens": cost.tokens,
    }


def completion(answer: Trajectory, asked: ResponseOptions) -> dict[str, Any]:
    return {
        **_raw(answer).body,
        "id": asked.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [
            {
                **_raw(answer).choice,
                "index": 0,
                "message": _message(answer),
                "logprobs": _logprobs(answer, asked),
                "finish_reason": answer.finish_reason or "stop",
            }
        ],
        "usage": usage(answer),
    }


def stream(answer: Trajectory, asked: ResponseOptions) -> Iterator[bytes]:
    """The answer as events: role, what stands beside the text, the text in pieces, and one that
    says why it ends; `ending` goes on."""
    message, about = _message(answer), _raw(answer).body
    yield _chunk(asked, {"role": "assistant", "content": ""}, about)
    for name, value in message.items():
        if name not in ("role", "content") and value is not None:
            yield _chunk(asked, {name: _numbered(value)}, about)
    for text, entries in _pieces(answer, asked):
        yield _chunk(asked, {"content": text}, about, logprobs=entries)
    yield _chunk(asked, {}, about, finish=answer.finish_reason or "stop")


def ending(answer: Trajectory, asked: ResponseOptions, told: Any) -> Iterator[bytes]:
    """The last events: usage where it was asked for, and in the same chunk what is `told` of the
    request, where it is not None."""
    about: dict[str, Any] = {**_raw(answer).body, **_head(asked), "choices": []}
    if asked.usage_chunk:
        about["usage"] = usage(answer)
    if told is not None:
        about["ttcl"] = told
    if asked.usage_chunk or told is not None:
        yield frame(about)
    yield DONE


def _raw(answer: Trajectory) -> RawAnswer:
    return answer.raw or _NOTHING


def _message(answer: Trajectory) -> dict[str, Any]:
    """As it came; of pieces that were put together a text that was never begun is none."""
    raw = _raw(answer).message
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, **raw}
    message["content"] = answer.text or (None if raw.get("refusal") else message["content"])
    if answer.reasoning is not None and not raw.keys() & {"reasoning_content", "reasoning"}:
        message["reasoning_content"] = answer.reasoning
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_unnumbered(each) for each in message["tool_calls"]]
    return message


def _unnumbered(call: Any) -> Any:
    return {k: v for k, v in call.items() if k != "index"} if isinstance(call, dict) else call


def _numbered(value: Any) -> Any:
    """Items as a stream has them."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return value
    return [{"index": number, **each} for number, each in enumerate(value)]


def stream_of(
    body: dict[str, Any], *, usage_chunk: bool, told: Any, headers: dict[str, str]
) -> Stream:
    """A whole completion of the model server as the stream that the client asked for; `told`: see
    `ending`."""
    head = {name: value for name, value in body.items() if name not in _OF_A_WHOLE}
    head["object"] = "chat.completion.chunk"
    choices = [choice for choice in body["choices"] if isinstance(choice, dict)]

    async def events() -> AsyncGenerator[bytes]:
        empty = {"usage": None} if usage_chunk else {}
        for choice in choices:
            yield frame({**head, **empty, "choices": [_delta_of(choice)]})
        for choice in choices:
            end = {"index": choice.get("index", 0), "delta": {}, "logprobs": None}
            reason = choice.get("finish_reason") or "stop"
            yield frame({**head, **empty, "choices": [{**end, "finish_reason": reason}]})
        last = {"usage": body.get("usage")} if usage_chunk else {}
        if told is not None:
            last["ttcl"] = told
        if last:
            yield frame({**head, "choices": [], **last})
        yield DONE

    made = events()
    return Stream(made, headers, made.aclose)


def _delta_of(choice: dict[str, Any]) -> dict[str, Any]:
    """The piece of a stream that says all that a choice says, but for its end."""
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {}
    if "tool_calls" in delta:
        delta["tool_calls"] = _numbered(delta["tool_calls"])
    rest = {name: value for name, value in choice.items() if name != "message"}
    return {"index": 0, "logprobs": None, **rest, "delta": delta, "finish_reason": None}


def _head(asked: ResponseOptions) -> dict[str, Any]:
    return {
        "id": asked.id,
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.model,
    }


def _chunk(
    asked: ResponseOptions,
    delta: dict[str, Any],
    about: dict[str, Any],
    *,
    finish: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    body = {**about, **_head(asked), "choices": [choice]}
    if asked.usage_chunk:
        body["usage"] = None
    return frame(body)


def _logprobs(answer: Trajectory, asked: ResponseOptions) -> dict[str, Any] | None:
    if not asked.logprobs or not isinstance(answer.raw_logprobs, dict):
        return None
    told = answer.raw_logprobs.get("content")
    told = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    entries = _of_text(told, answer.text)
    if not asked.top_logprobs:
        entries = [{**entry, "top_logprobs": []} for entry in entries]
    return {**answer.raw_logprobs, "content": entries}


def _of_text(entries: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The entries less a last one that is no part of the text: vLLM's end-of-turn token."""
    joined = "".join(str(entry.get("token", "")) for entry in entries[:-1])
    return entries[:-1] if entries and joined == text else entries


def _pieces(
    answer: Trajectory, asked: ResponseOptions
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Texts that join to the answer, each with the log-probabilities of its own tokens."""
    logprobs = _logprobs(answer, asked)
    if logprobs is None:
        yield from ((piece, None) for piece in text_pieces(answer.text))
        return
    entries = logprobs["content"]
    if "".join(str(entry.get("token", "")) for entry in entries) == answer.text:
        for entry in entries:
            yield entry["token"], {**logprobs, "content": [entry]}
    else:
        # Tokens that don't add up to the text (bytes of one character, say) stay in one piece.
        yield answer.text, logprobs
