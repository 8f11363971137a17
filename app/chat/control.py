"""What a request's arm goes by: the conversation that it is of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from app.chat.call import ChatCall
from app.domain.bounds import LONGEST_EMBEDDED, bounded

STEERING_SUSPENDED = "steering_suspended"
"""The guard has found that steering does harm in the namespace."""
_MOST_READ = 100
"""Values of an opening in parts that tell its conversation from others."""


def conversation_key(call: ChatCall) -> str:
    """The client's `metadata.conversation_id`, which tells one conversation of a user's from the
    others; or else its `user`; or else the first user message, which all turns of a conversation
    have in common."""
    metadata = call.body.get("metadata")
    named = metadata.get("conversation_id") if isinstance(metadata, dict) else None
    for kind, given in (("conversation", named), ("user", call.fields.get("user"))):
        is_name = isinstance(given, str) and given != ""
        is_number = isinstance(given, int) and not isinstance(given, bool) and abs(given) < 2**63
        if is_name or is_number:
            return bounded(f"{kind}:{given}", LONGEST_EMBEDDED)
    return f"opening:{_opening(call)}"


def _opening(call: ChatCall) -> str:
    """The same in all turns of a conversation, and short, however long the message is."""
    content: Any = next(
        (each.get("content") for each in call.messages if each.get("role") == "user"), ""
    )
    if isinstance(content, str):
        return bounded(content, LONGEST_EMBEDDED)
    # With its images: two questions about different ones are two conversations.
    read = islice(_values(content), _MOST_READ)
    return "\n".join(bounded(each, LONGEST_EMBEDDED) for each in read)


def _values(content: Any) -> Iterator[str]:
    """Whatever stands in it, from first to last."""
    ahead = [content]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            ahead += reversed(value.values())
        elif isinstance(value, list):
            ahead += reversed(value)
        else:
            yield value if isinstance(value, str) else repr(value)
