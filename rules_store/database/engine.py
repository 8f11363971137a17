"""Which database a URL means: the one place that chooses."""

from __future__ import annotations

import re
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from rules_store.database.interface import Database
from rules_store.database.postgresql import PostgresDatabase
from rules_store.database.sqlite import SqliteDatabase
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

_HOST_AND_NAME = re.compile(
    r"(?:\[[^\]@/]{0,255}\]|[^/:?#@\[\]]{0,255})(?::[0-9]{1,5})?/[^/?#@]{0,255}(?:\?[^#]{0,2000})?\Z"
)
"""Of a URL, from behind the login on."""
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}


def open_database(url: str | URL, options: StoreOptions, *, read_only: bool = False) -> Database:
    """Connects when it is first used. `read_only`: nothing can be written, nor a file made. Raises
    StoreUnavailable for a URL that can't be used."""
    parsed = parse_url(url) if isinstance(url, str) else url
    kind = SqliteDatabase if parsed.get_backend_name() == "sqlite" else PostgresDatabase
    return kind(parsed, options, read_only=read_only)


def parse_url(url: str) -> URL:
    """The URL with an async driver. The password may have any characters as they are; one without
    an `@` may also be percent-encoded. Raises StoreUnavailable, which quotes nothing of it."""
    parsed = _parsed(url.strip())
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise StoreUnavailable(f"Databases of the kind {backend!r} are not supported.")
    if backend == "sqlite" and parsed.drivername not in (backend, _DRIVERS[backend]):
        # Said before the file is made that nothing would then use.
        driver = parsed.get_driver_name()
        raise StoreUnavailable(
            f"The database driver {driver!r} is not installed: write sqlite:///PATH."
        )
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreUnavailable("The database URL names no file: write sqlite:///PATH.")
    if parsed.drivername == backend:
        parsed = parsed.set(drivername=_DRIVERS[backend])
    return parsed


def shown(url: URL) -> str:
    """Kind and place of the database, without what may be a secret: password and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host or ""
    return f"{url.get_backend_name()}://{user}{host}{port}/{url.database or ''}"


def _parsed(url: str) -> URL:
    """Raises StoreUnavailable."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.startswith("sqlite"):
        login, some = "", ""
    else:
        login, rest = _split(rest)
        # Without any, an @ further on would be taken for the end of one.
        some = "-:-@"
    try:
        parsed = make_url(f"{scheme}{found}{some}{rest}")
    except (ArgumentError, ValueError):
        # Without what was wrong with it, which would quote it.
        raise StoreUnavailable(
            "The database URL is not one: write sqlite:///PATH or "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME."
        ) from None
    if not login:
        return parsed._replace(username=None, password=None) if some else parsed
    user, colon, password = login.partition(":")
    # Who writes an @ as it is has encoded nothing.
    decode = str if "@" in password else unquote
    return parsed._replace(username=unquote(user), password=decode(password) if colon else None)


def _split(rest: str) -> tuple[str, str]:
    """What stands between scheme and host, and the rest from the host on: a password may have @, /,
    ? and # in it. Of several @ the last one that a host and a database follow is the end."""
    places = [at for at, character in enumerate(rest) if character == "@"]
    if not places:
        return "", rest
    for at in reversed(places):
        if _HOST_AND_NAME.match(rest, at + 1):
            return rest[:at], rest[at + 1 :]
    if _HOST_AND_NAME.match(rest):
        return "", rest
    return rest[: places[-1]], rest[places[-1] + 1 :]
