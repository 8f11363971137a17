"""Which database a URL means: the one place that chooses."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from rules_store.database.interface import Database
from rules_store.database.postgresql import PostgresDatabase
from rules_store.database.sqlite import SqliteDatabase
from rules_store.errors import StoreUnavailable
from rules_store.options import StoreOptions

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}


def open_database(url: str, options: StoreOptions) -> Database:
    """Connects when it is first used. Raises StoreUnavailable for a URL that can't be used."""
    parsed = parse_url(url)
    kind = SqliteDatabase if parsed.get_backend_name() == "sqlite" else PostgresDatabase
    return kind(parsed, options)


def parse_url(url: str) -> URL:
    """The URL with an async driver. Raises StoreUnavailable."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreUnavailable(
            "The database URL is not one: write sqlite:///PATH or postgresql://USER@HOST/NAME."
        ) from error
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
