"""Who is signed in to the console. Sessions live in this process: a restart signs everyone out.

The cookie holds a random token and nothing else; here only its hash is kept. Each session has its
own CSRF token, which every form sends back.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "ttcl_console"
IDLE = 2 * 3600.0
"""Seconds without a request after which a session is over."""
LIFETIME = 12 * 3600.0
"""Seconds after which it is over in any case."""
MOST_SESSIONS = 1000


@dataclass(slots=True)
class Notice:
    """One sentence for the next page: what an action did."""

    text: str
    kind: str = "done"
    """done | problem"""


@dataclass(slots=True)
class Session:
    actor: str
    """Goes into the event log with every change."""
    csrf: str
    started: float
    seen: float
    notice: Notice | None = None

    def fits(self, token: str) -> bool:
        """Whether `token` is this session's CSRF token, in constant time."""
        return hmac.compare_digest(token.encode(), self.csrf.encode())


class Sessions:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._secret = secrets.token_bytes(32)

    def start(self, actor: str) -> str:
        """A new session's token, for the cookie. The oldest session gives way to the limit."""
        self._drop_ended()
        while len(self._open) >= MOST_SESSIONS:
            del self._open[next(iter(self._open))]
        token, now = secrets.token_urlsafe(32), self._clock()
        self._open[_hash(token)] = Session(actor, secrets.token_urlsafe(32), now, now)
        return token

    def find(self, token: str | None) -> Session | None:
        """The session, its idle time begun anew; None where it is over or never was."""
        if not token:
            return None
        session = self._open.get(_hash(token))
        if session is None:
            return None
        if self._ended(session):
            self.end(token)
            return None
        session.seen = self._clock()
        return session

    def end(self, token: str | None) -> None:
        if token:
            self._open.pop(_hash(token), None)

    def login_token(self, nonce: str) -> str:
        """What the form at the door sends back for the nonce in its cookie: there is no session
        yet that could hold a CSRF token."""
        return hmac.new(self._secret, nonce.encode(), hashlib.sha256).hexdigest()

    def _ended(self, session: Session) -> bool:
        now = self._clock()
        return now - session.seen > IDLE or now - session.started > LIFETIME

    def _drop_ended(self) -> None:
        for key in [key for key, session in self._open.items() if self._ended(session)]:
            del self._open[key]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
