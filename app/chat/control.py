"""What a request's arm goes by: the conversation that it is of."""

from __future__ import annotations

import json
from typing import Any

from app.chat.call import ChatCall

STEERING_SUSPENDED = "steering_suspended"
"""The guard has found that steering does harm in the namespace."""


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
            return f"{kind}:{given}"
    return f"opening:{_opening(call)}"


def _opening(call: ChatCall) -> str:
    content: Any = next(
        (each.get("content") for each in call.messages if each.get("role") == "user"), ""
    )
    if isinstance(content, str):
        return content
    # With its images: two questions about different ones are two conversations. By the standard
    # library, which writes whatever can come: half a surrogate pair, a number of any size.
    return json.dumps(content, sort_keys=True)
