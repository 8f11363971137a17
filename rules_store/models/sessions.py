"""Who is signed in to the console."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """One log-in. Of its token and of the key that opened it there are hashes only."""

    hash: str
    """SHA-256 of the token, in hexadecimal digits."""
    actor: str
    key_id: str
    key_proof: str
    started_at: datetime
    seen_at: datetime
    """Up to a minute late."""
    expires_at: datetime
    """Whatever is done with it, it ends then."""
