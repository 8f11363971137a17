"""Puts block and examples into a conversation. Pure: the client's messages are never changed.

Single-turn: the block ends the system message, which is the part of the prompt that a domain's
requests share, and examples stand after it as earlier turns. Multi-turn: the block goes in front of
the last user message, so everything before it stays byte-identical from turn to turn and vLLM's
prefix cache keeps hitting. What comes after the last user message (an agent's calls and their
results) changes nothing of this: each step's messages begin with those of the step before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from app.domain.bounds import bounded
from app.domain.trajectory import Message

SYSTEM_ROLES = ("system", "developer")
GAP = "\n\n"


def inject(
    messages: Sequence[Message],
    block: str,
    turns: Sequence[Message] = (),
    *,
    in_question: bool = False,
) -> list[Message]:
    """A new list of messages with `block` in it; the same messages when there is no block. `turns`
    are put behind the leading system messages. `in_question`: the block goes in front of the last
    user message in any case."""
    placed = list(messages)
    if block and is_single_turn(messages) and not in_question:
        placed = _after_system(placed, block)
    elif block:
        placed = _before_last_user(placed, block)
    at = _leading_system(placed)
    return [*placed[:at], *turns, *placed[at:]]


def is_single_turn(messages: Sequence[Message]) -> bool:
    """Whether nobody has answered before the last user turn."""
    at = last_user(messages)
    return all(message.get("role") != "assistant" for message in messages[:at])


def add_to_system(messages: Sequence[Message], text: str) -> list[Message]:
    """A new list in which `text` ends the system message; without one it becomes it."""
    return _after_system(messages, text) if text else list(messages)


def replace_question(messages: Sequence[Message], question: str) -> list[Message]:
    """A new list in which the text of the last user message is `question`."""
    at = last_user(messages)
    if at is None:
        return list(messages)
    return [*messages[:at], {**messages[at], "content": question}, *messages[at + 1 :]]


def last_user(messages: Sequence[Message]) -> int | None:
    """Position of the last user message."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].get("role") == "user":
            return position
    return None


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list, joined by lines."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def question_of(messages: Sequence[Message]) -> str:
    """Text of the last user turn; empty when there is none."""
    at = last_user(messages)
    return "" if at is None else text_of(messages[at].get("content"))


def prompt_of(messages: Sequence[Message]) -> str:
    """The text of all turns."""
    return "\n".join(text_of(message.get("content")) for message in messages)


def instructions_of(messages: Sequence[Message]) -> str | None:
    """A digest of the system messages: requests with the same ones are of one task. None where
    there are none."""
    text = instructions_text(messages)
    if not text:
        return None
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def instructions_text(messages: Sequence[Message]) -> str:
    """The text of the system messages, bounded."""
    told = [text_of(each.get("content")) for each in messages if each.get("role") in SYSTEM_ROLES]
    return bounded("\n".join(told)).strip()


def has_images(messages: Sequence[Message]) -> bool:
    """Whether any content part is something else than text."""
    return any(
        isinstance(part, dict) and part.get("type") not in ("text", "refusal", None)
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _after_system(messages: Sequence[Message], text: str) -> list[Message]:
    # The system messages come first; the last of the leading ones is ended by the text.
    leading = _leading_system(messages)
    if leading == 0:
        return [{"role": "system", "content": text}, *messages]
    target = messages[leading - 1]
    return [*messages[: leading - 1], _appended(target, text), *messages[leading:]]


def _leading_system(messages: Sequence[Message]) -> int:
    """How many system messages there are in front."""
    leading = 0
    while leading < len(messages) and messages[leading].get("role") in SYSTEM_ROLES:
        leading += 1
    return leading


def _before_last_user(messages: Sequence[Message], block: str) -> list[Message]:
    at = last_user(messages)
    if at is None:
        return _after_system(messages, block)
    # Inside the message, not as one of its own: many chat templates insist on alternating roles.
    target = messages[at]
    content = target.get("content")
    if isinstance(content, list):
        merged: Any = [{"type": "text", "text": block}, *content]
    else:
        merged = block + GAP + (content or "")
    return [*messages[:at], {**target, "content": merged}, *messages[at + 1 :]]


def _appended(message: Message, text: str) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content}{GAP}{text}" if content else text}
