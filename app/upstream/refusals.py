"""What a model's refusal is about, so that it can be asked again without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from app.domain.trajectory import Message
from app.exceptions import UpstreamFailed, UpstreamRejected
from app.upstream.capabilities import is_context_overflow

STATUSES = frozenset({400, 403, 404, 405, 422, 501})
"""With which servers refuse a field; 403 where an account may not use it."""
SYSTEM_ROLES = ("system", "developer")
_WORDS = {
    "logprobs": r"(?:top_)?logprobs?|log[ -]?probabilit\w+",
    "stream_options": r"stream_options|include_usage",
}
_SYSTEM_ROLE = re.compile(
    r"system[ _-]?(?:role|messages?|prompts?)\b.{0,60}\b(?:not|n't|unsupported|invalid|only)\b"
    r"|(?:not|n't|unsupported|invalid|unknown|unexpected)\b.{0,60}\bsystem\b"
    r"|\broles?\b.{0,60}\bmust\b.{0,60}\balternate\b"
    r"|'?system'? is not one of",
    re.IGNORECASE | re.DOTALL,
)


def refused_field(error: UpstreamFailed, fields: Collection[str]) -> str | None:
    """The one of these fields that a refusal names; None where it names none of them, and for one
    that is about the length of the prompt."""
    if error.status not in STATUSES or is_context_overflow(error):
        return None
    named = str(error.param or "").removeprefix("body.")
    if named in fields:
        return named
    found = [
        (match.start(), name)
        for name in fields
        if (match := re.search(rf"\b(?:{_WORDS.get(name, name)})\b", error.message, re.IGNORECASE))
    ]
    # What is refused comes before what to use instead.
    return min(found)[1] if found else None


def is_plain(sent: Mapping[str, Any]) -> bool:
    """Whether a client's own fields can't make a model refuse what the loop adds to them, and would
    else take: there are none but well-known ones with usual values. What a model refuses then it
    refuses everybody."""
    return all(name in _PLAIN and _PLAIN[name](value) for name, value in sent.items())


def _number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_PLAIN: dict[str, Callable[[Any], bool]] = {
    "temperature": _number(0, 2),
    "top_p": _number(1e-6, 1),
    "seed": _number(0, 2**31),
    "max_tokens": _number(1, 2**20),
    "max_completion_tokens": _number(1, 2**20),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "stop": _is_text,
    "user": _is_text,
    "logprobs": lambda value: isinstance(value, bool),
    "top_logprobs": _number(0, 5),
}


def refuses_system_role(error: UpstreamFailed) -> bool:
    return isinstance(error, UpstreamRejected) and bool(_SYSTEM_ROLE.search(error.message))


def has_system(messages: Sequence[Message]) -> bool:
    return any(message.get("role") in SYSTEM_ROLES for message in messages)


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with what its system messages say in front of the first user message."""
    said = [each.get("content") for each in messages if each.get("role") in SYSTEM_ROLES]
    rest = [each for each in messages if each.get("role") not in SYSTEM_ROLES]
    at = next((n for n, each in enumerate(rest) if each.get("role") == "user"), None)
    if not said:
        return rest
    if at is None:
        return [{"role": "user", "content": _joined(said)}, *rest]
    user = {**rest[at], "content": _joined([*said, rest[at].get("content")])}
    return [*rest[:at], user, *rest[at + 1 :]]


def _joined(contents: Sequence[Any]) -> Any:
    """Texts as one text; parts, where there are any, as parts."""
    known = [each for each in contents if each]
    if not any(isinstance(each, list) for each in known):
        return "\n\n".join(str(each) for each in known)
    parts: list[Any] = []
    for each in known:
        parts += each if isinstance(each, list) else [{"type": "text", "text": str(each)}]
    return parts
