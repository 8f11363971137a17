"""Which requests are control, and how many: the draw and its default schedule.

The draw is a hash of the namespace and the conversation, so every gateway on a store draws the same
and a conversation stays in its arm. A share that changes moves only the conversations between the
old share and the new one.

The default schedule (`AUTO`): none among the first `WARM_UP` requests of a namespace, which would
show nothing, and whose user is trying things out; then `RESTING`; `MEASURING` while outcomes come
and no signal has shown yet that steering helps (or harms, where no guard would end it); `RESTING`
from then on, which notices a change. Requests for which there was nothing to give count for
nothing. With a share s, what is lost to control while a gain is not known yet is proportional to
1 / (1 - s), what is lost to a harm 1 / s: `benchmarks/effect.py` has the regret of several.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

AUTO: Final = "auto"
WARM_UP = 100
"""Requests."""
RESTING = 0.05
MEASURING = 0.25
LEAST_OUTCOMES = 20
RECENT_DAYS = 7
"""Outcomes *come* where so many were told within so many days."""


class Arm(StrEnum):
    CONTROL = "control"
    """Served without experience."""
    STEERED = "steered"


def conversation_of(namespace: str, key: str) -> str:
    """What the ledger knows a conversation by: 16 hexadecimal digits."""
    # The length keeps ("a", "bc") and ("ab", "c") apart.
    told = f"{len(namespace)}:{namespace}{key}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=8, person=b"ttcl-arm").hexdigest()


def draw(conversation: str, share: float) -> Arm:
    """The arm of a conversation where this share of them is control."""
    return Arm.CONTROL if int(conversation, 16) < share * 2.0**64 else Arm.STEERED


def scheduled(*, outcomes: int, known: bool) -> float:
    """The default schedule's share after the warm-up. `outcomes`: that were told within
    `RECENT_DAYS`; `known`: nothing more is to be found out."""
    return MEASURING if outcomes >= LEAST_OUTCOMES and not known else RESTING
