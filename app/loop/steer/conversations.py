"""What an agent's turn was given at its first step, for the steps that follow.

Each step of an agent is a request of its own: the same messages up to the last user turn, then what
it has done since. Chosen anew, rules and examples would change between two steps (the draws, what
was learned meanwhile), and with them the bytes that the model server has cached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from time import monotonic
from typing import Any

import cachetools

from app.domain import json_text
from app.domain.trajectory import Message
from app.loop.steer.experience import Experience
from app.loop.steer.injector import last_user
from app.settings import ExperienceLimits

TURNS = 2000
"""Kept at most, the least lately used give way."""
SECONDS = 3600.0
"""Kept at most after the last step."""


class ConversationCache:
    """By the key of the turn, in this process."""

    def __init__(self, turns: int = TURNS, seconds: float = SECONDS) -> None:
        self._given: cachetools.TTLCache[str, Experience] = cachetools.TTLCache(
            turns, seconds, timer=monotonic
        )

    def get(self, key: str) -> Experience | None:
        return self._given.get(key)

    def keep(self, key: str, given: Experience) -> None:
        self._given[key] = given


def turn_key(
    namespace: str, model: str, messages: Sequence[Message], limits: ExperienceLimits
) -> str:
    """The same for all steps of a turn: what is after its user message does not count."""
    at = last_user(messages)
    turn = messages if at is None else messages[: at + 1]
    said = json_text.dumps([namespace, model, list(turn), astuple(limits)])
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def is_agents(messages: Sequence[Message], fields: Mapping[str, Any]) -> bool:
    """Whether a request may be, or is, a step among others: it has tools, or something follows on
    the user's last words."""
    follows = last_user(messages) not in (None, len(messages) - 1)
    return bool(follows or fields.get("tools") or fields.get("functions"))
