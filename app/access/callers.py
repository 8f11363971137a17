"""Who is asking, and what they may do.

A key is the environment's (`TTCL_API_KEYS`: chat and learn, everywhere), the admin's (everything,
everywhere) or one of the store's, which says itself what it may do and where.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from app.exceptions import NotAllowed
from rules_store.models import keys
from rules_store.models.events import Change
from rules_store.models.keys import ADMIN, ALL, ApiKey, Permission
from rules_store.store import RuleStore


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    """For logs, and kept with all that is done on the caller's behalf (`key_id`); no part of a
    secret: the id of a key of the store, `environment-1` for the first of `TTCL_API_KEYS`, `admin`,
    `anyone`."""
    permissions: frozenset[Permission]
    namespaces: frozenset[str] | None = None
    """None: all."""
    first_namespace: str | None = None
    """Of a request that names none; None: the configured default."""
    key: ApiKey | None = None
    """What limits and spend belong to; None for keys of the environment."""

    @property
    def actor(self) -> str | None:
        """Who stands in the log for what is done with the key, whatever a request says: the name of
        a key of the store. None: several people may have it, and say themselves who they are."""
        return None if self.key is None else self.key.name

    def may(self, permission: Permission, namespace: str | None = None) -> bool:
        """With a namespace: whether it may do that there."""
        return permission in self.permissions and (namespace is None or self.reaches(namespace))

    def reaches(self, namespace: str) -> bool:
        return self.namespaces is None or namespace in self.namespaces

    @property
    def everywhere(self) -> bool:
        return self.namespaces is None

    def demand(self, permission: Permission) -> None:
        """Raises `NotAllowed`."""
        if permission not in self.permissions:
            raise NotAllowed(f"This key lacks the permission '{permission.value}'")

    def demand_all_of(self, permissions: Iterable[Permission]) -> None:
        """For who gives them to another key. Raises `NotAllowed`."""
        for permission in permissions:
            self.demand(permission)

    def demand_everywhere(self) -> None:
        """Raises `NotAllowed` for a key of some namespaces only."""
        if not self.everywhere:
            raise NotAllowed("This needs a key for all namespaces")


MOST_NAMES = 500
"""Keys among whose requests one is looked for by its id."""
_ACTING: ContextVar[Caller | None] = ContextVar("acting", default=None)


def act_for(caller: Caller) -> None:
    """What this request changes from now on is changed on the caller's behalf."""
    _ACTING.set(caller)


def change_by(actor: str, reason: str) -> Change:
    """For the event log: who and why, and with whose key. `actor` is what the request says; a key
    that has a name acts by that one."""
    caller = _ACTING.get()
    if caller is None:
        return Change(actor, reason)
    return Change(caller.actor or actor, reason, caller.name)


CLIENT = frozenset({Permission.CHAT, Permission.LEARN})
ANYONE = Caller(keys.ANYONE, CLIENT)
"""Who comes without a key while there are none."""
ADMINISTRATOR = Caller(ADMIN, frozenset(Permission))
"""Who comes with the admin key."""


class KeyRing:
    """Every key of this gateway; a look-up is no I/O."""

    def __init__(self, store: RuleStore, client_keys: Iterable[str], admin_key: str) -> None:
        self._store = store
        clients = {
            digest_of(key): Caller(f"environment-{place}", CLIENT)
            for place, key in enumerate(client_keys, start=1)
        }
        self._needed = bool(clients)
        self._fixed = [*clients.items(), (digest_of(admin_key), ADMINISTRATOR)]

    @property
    def needed(self) -> bool:
        """Whether a request must carry a key: once there is one in the environment or the store."""
        return self._needed or self._store.keys.exist

    @property
    def fixed(self) -> list[str]:
        """Names of the keys of the environment."""
        return [caller.name for _, caller in self._fixed]

    @property
    def several(self) -> bool:
        """Whether there is more than one client's key."""
        return len(self._fixed) - 1 + self._store.keys.count > 1

    def names(self, first: Caller) -> list[str]:
        """Of all whose requests `first` may mean, its own name before the others'."""
        fixed = {caller.name for _, caller in self._fixed} | {ANYONE.name}
        others = sorted(fixed | self._store.keys.ids)[:MOST_NAMES]
        return list(dict.fromkeys([first.name, *others]))

    def still(self, name: str, fits: Callable[[bytes], bool]) -> Caller | None:
        """The caller of this name as far as the key that `fits` knows by its SHA-256 is good still;
        None where it is revoked, expired, rotated away or another one by now."""
        for digest, caller in self._fixed:
            if caller.name == name and fits(digest):
                return None if self._store.keys.is_over(digest.hex()) else caller
        key = self._store.keys.held_by(name, fits)
        return None if key is None else caller_of(key)

    def caller(self, given: str) -> Caller | None:
        """Whose key this is; None for no live key. The time it takes tells nothing of a key."""
        if not given:
            return None
        digest = digest_of(given)
        found: Caller | None = None
        for known, caller in self._fixed:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is not None and not self._store.keys.is_rotated_away(given):
            return found
        key = self._store.keys.find(given)
        return None if key is None else caller_of(key)

    def why_not(self, given: str) -> str | None:
        """What to tell somebody whose key is none any more; None where there is nothing to tell."""
        expired = self._store.keys.expired_at(given) if given else None
        return None if expired is None else f"This key expired at {expired:%Y-%m-%d %H:%M} UTC"


def caller_of(key: ApiKey) -> Caller:
    if key.id == ADMIN:
        return ADMINISTRATOR
    everywhere = ALL in key.namespaces
    return Caller(
        name=key.id,
        permissions=frozenset(key.permissions),
        namespaces=None if everywhere else frozenset(key.namespaces),
        first_namespace=None if everywhere else key.namespaces[0],
        key=key,
    )


def digest_of(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
