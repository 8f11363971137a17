"""Who is signed in to the console, by a cookie that holds a random token and nothing else.

In SQL there is the token's hash with who it is and since when (`rules_store.operations.sessions`).
What else a session needs is made of the token: the CSRF token that every form sends back, the
signature of the sentence that waits for the next page, and the proof that the key of the
environment that opened it is the one there is now.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from app.access.callers import Caller, KeyRing, digest_of
from rules_store.models.keys import Permission
from rules_store.operations.sessions import SessionOperations

COOKIE = "ttcl_console"
NOTICE_COOKIE = "ttcl_console_notice"
LONGEST_NOTICE = 2000
"""Bytes; a cookie holds 4 KB."""
ADMIN_PERMISSIONS = (Permission.ADMIN_READ, Permission.ADMIN_WRITE)
"""One of which opens the console."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence for the next page: what an action did."""

    text: str
    kind: str = "done"
    """done | problem"""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in, for one request."""

    actor: str
    """Goes into the event log with every change."""
    caller: Caller
    """What the key may do, as of now."""
    token: str

    @property
    def csrf(self) -> str:
        return _signed(self.token, b"csrf")

    @property
    def may_write(self) -> bool:
        return self.caller.may(Permission.ADMIN_WRITE)

    def fits(self, token: str) -> bool:
        """Whether `token` is this session's CSRF token, in constant time."""
        return hmac.compare_digest(token.encode(), self.csrf.encode())

    def sealed(self, notice: Notice) -> str:
        """For the cookie that brings it to the next page; no other session can read it."""
        text = notice.text.encode()[:LONGEST_NOTICE].decode(errors="ignore")
        content = json.dumps([notice.kind, text], ensure_ascii=False).encode()
        packed = base64.urlsafe_b64encode(content).decode()
        return f"{packed}.{_signed(self.token, packed.encode())}"

    def opened(self, sealed: str | None) -> Notice | None:
        """What `sealed` made; None of anything else."""
        packed, _, signature = (sealed or "").rpartition(".")
        expected = _signed(self.token, packed.encode())
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        kind, text = json.loads(base64.urlsafe_b64decode(packed))
        return Notice(text, kind)


class Sessions:
    def __init__(self, store: SessionOperations, keys: KeyRing) -> None:
        self._store = store
        self._keys = keys

    async def start(self, caller: Caller, actor: str, key: str) -> str:
        """A new session's token, for the cookie. Raises StoreError."""
        token = secrets.token_urlsafe(32)
        await self._store.start(
            _hash(token),
            actor=actor,
            key_id=caller.name,
            key_proof=_signed(token, digest_of(key)),
        )
        return token

    async def find(self, token: str | None) -> Session | None:
        """None where it is over or never was, or where its key may not come in any more. Raises
        StoreError."""
        if not token:
            return None
        known = await self._store.find(_hash(token))
        if known is None:
            return None

        def fits(digest: bytes) -> bool:
            return hmac.compare_digest(_signed(token, digest), known.key_proof)

        caller = self._keys.still(known.key_id, fits)
        if caller is None or not any(caller.may(each) for each in ADMIN_PERMISSIONS):
            await self._store.end(known.hash)
            return None
        return Session(known.actor, caller, token)

    async def end(self, token: str | None) -> None:
        """Raises StoreError."""
        if token:
            await self._store.end(_hash(token))


def login_token(nonce: str) -> str:
    """What the form at the door sends back for the nonce in its cookie: there is no session yet
    that could hold a CSRF token, and no other site can read or set the cookie."""
    return _hash(f"door {nonce}")


def _signed(token: str, content: bytes) -> str:
    return hmac.new(token.encode(), content, hashlib.sha256).hexdigest()


def _hash(token: str) -> str:
    return digest_of(token).hex()
