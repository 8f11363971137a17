"""API keys, and what they have used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

ALL = "*"
"""In place of names: every namespace."""
ADMIN = "admin"
"""In place of an id: the admin key, which is none of the store's."""
ANYONE = "anyone"
"""In place of an id: who comes without a key while there are none."""


class Permission(StrEnum):
    CHAT = "chat"
    """Ask, list models, give feedback."""
    LEARN = "learn"
    """What is asked may write rules, and may create its namespace."""
    ADMIN_READ = "admin-read"
    ADMIN_WRITE = "admin-write"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown: neither the secret nor its hash."""

    id: str
    name: str
    shown: str
    """The secret's first characters, to tell keys apart."""
    namespaces: tuple[str, ...]
    """Names, the first being the default of requests that name none; or `(ALL,)`."""
    permissions: tuple[Permission, ...]
    requests_per_minute: int | None
    tokens_per_day: int | None
    created_at: datetime
    last_used_at: datetime | None = None
    """Some seconds late."""
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    """None: never."""

    def live(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def reaches(self, namespace: str) -> bool:
        return ALL in self.namespaces or namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class Secret:
    """What a request may carry to be known for a key."""

    digest: str
    """SHA-256 of it, in hexadecimal digits."""
    key: ApiKey
    valid_until: datetime | None = None
    """Of one that was rotated away; None: the key's present one."""


@dataclass(frozen=True, slots=True)
class NewKey:
    name: str
    namespaces: tuple[str, ...]
    permissions: tuple[Permission, ...]
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    expires_at: datetime | None = None


class KeyChanges(TypedDict, total=False):
    """What `KeyOperations.patch` is to change; a limit or an end of None is none."""

    name: str
    namespaces: tuple[str, ...]
    permissions: tuple[Permission, ...]
    requests_per_minute: int | None
    tokens_per_day: int | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What one key used on one day, in addition to what is written."""

    key_id: str
    day: int
    """UTC days since the epoch."""
    requests: int
    tokens: int
    last_used_at: datetime


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """All that a key has said, taken back."""

    key_id: str
    begun_at: datetime
    ended_at: datetime | None
    """None: rules or examples of frozen namespaces wait to be judged anew."""
    counts: dict[str, int]
    """Rows that were taken back, by what they were: jobs, feedback, trials, outcomes, precedents,
    choices, lessons (what it taught), votes, exposures."""


@dataclass(frozen=True, slots=True)
class DailyKeyUsage:
    requests: int = 0
    tokens: int = 0
