"""What a request to any inference path has cost, as its answer tells, in whichever format."""

from __future__ import annotations

import json
import math
from typing import Any

from app.domain import json_text
from app.domain.tokens import CHARACTERS_PER_TOKEN
from app.domain.trajectory import Cost
from app.upstream.sse import MAX_EVENT
from app.upstream.wire import made_characters, object_of, tokens_of

MAX_READ = 64 * 1024 * 1024
LARGE = 1_000_000
"""Bytes of an answer, such as the vectors of many texts, of which no more is read than what it
tells of its usage: nobody is answered while it is being read."""
_LONGEST_USAGE = 4_000
_PROMPTS = (
    "prompt",
    "input",
    "messages",
    "system",
    "instructions",
    "query",
    "documents",
    "texts",
    "text_1",
    "text_2",
)


class UsageReader:
    """Reads along with an answer's bytes. What it can't read it passes over: the answer is the
    client's, whatever it says."""

    def __init__(self, content_type: str = "") -> None:
        """`content_type`: of the bytes that `read` is given; none where `note` is told all."""
        self._stream = content_type == "text/event-stream"
        self._json = content_type.endswith("json")
        self._buffer = bytearray()
        self._told = Cost()
        self._made = 0

    def read(self, chunk: bytes) -> None:
        if not (self._stream or self._json) or len(self._buffer) > MAX_READ:
            return
        self._buffer += chunk
        if self._stream:
            *lines, rest = self._buffer.split(b"\n")
            self._buffer = bytearray() if len(rest) > MAX_EVENT else rest
            for line in lines:
                if line.startswith(b"data:"):
                    self.note(object_of(bytes(line[5:])))

    def cost(self, body: bytes, *, whole: bool) -> Cost:
        """Of a request with this body. Estimated where nothing was told, and where the answer did
        not come to its end (`whole` False) at least that."""
        if not self._stream:
            self.note(said_in(bytes(self._buffer)))
        if whole and self._told.tokens:
            return self._told
        made = math.ceil(self._made / CHARACTERS_PER_TOKEN)
        asked = _prompt_characters(body) // CHARACTERS_PER_TOKEN
        return max(self._told, Cost(1, asked, made), key=lambda cost: cost.tokens)

    def note(self, said: dict[str, Any] | None) -> None:
        """What one event, or a whole answer, says."""
        if said is None:
            return
        # A stream tells it in pieces: Anthropic's first event the prompt, its last the answer.
        for holder in (said, said.get("message"), said.get("response"), said.get("meta")):
            if isinstance(holder, dict):
                self._told = _larger(self._told, _usage(holder))
        self._made += _written(said)


def said_in(content: bytes) -> dict[str, Any] | None:
    """What a whole answer says; of a large one its usage alone."""
    if len(content) <= LARGE:
        return object_of(content)
    at = content.rfind(b'"usage"')
    _, _, said = content[at : at + _LONGEST_USAGE].partition(b":")
    try:
        found, _ = json.JSONDecoder().raw_decode(said.decode("utf-8", "replace").lstrip())
    except (ValueError, RecursionError):
        return None
    return {"usage": found}


def _usage(holder: dict[str, Any]) -> Cost:
    usage = holder.get("usage") or holder.get("tokens")
    if not isinstance(usage, dict):
        return Cost()
    cached = _count(usage, "cache_creation_input_tokens", "cache_read_input_tokens")
    prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens") + cached
    made = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
    if not prompt + made:
        prompt = _count(usage, "total_tokens")
    return Cost(1, prompt, made)


def _count(usage: dict[str, Any], *names: str) -> int:
    return sum(tokens_of(usage.get(name)) for name in names)


def _larger(one: Cost, other: Cost) -> Cost:
    return Cost(
        max(one.calls, other.calls),
        max(one.prompt_tokens, other.prompt_tokens),
        max(one.completion_tokens, other.completion_tokens),
    )


def _written(said: dict[str, Any]) -> int:
    """Characters that the model wrote in an answer or in a piece of one."""
    choices = said.get("choices")
    if isinstance(choices, list):
        return sum(_of_choice(choice) for choice in choices if isinstance(choice, dict))
    delta = said.get("delta")
    if isinstance(delta, str):
        return len(delta)
    if isinstance(delta, dict):
        return sum(len(value) for value in delta.values() if isinstance(value, str))
    # A whole answer of the other formats; a stream's last event says again what it has said.
    content = said.get("output") or said.get("content")
    return text_characters(content) if isinstance(content, list) else 0


def _of_choice(choice: dict[str, Any]) -> int:
    text = choice.get("text")
    written = made_characters(choice.get("delta")) + made_characters(choice.get("message"))
    return written + (len(text) if isinstance(text, str) else 0)


def _prompt_characters(body: bytes) -> int:
    if json_text.has_more_values(body, json_text.MOST_VALUES):
        return len(body)
    read = object_of(body) or {}
    return text_characters([read.get(name) for name in _PROMPTS])


def text_characters(value: Any) -> int:
    """Characters of all text in a JSON value. A number counts as a token, which it is in a list of
    token ids; data that is written as text (an image) as none."""
    total, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            total += 0 if each.startswith("data:") else len(each)
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
        elif type(each) is int:
            total += CHARACTERS_PER_TOKEN
    return total
