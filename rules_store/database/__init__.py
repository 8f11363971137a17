"""Connections to SQLite and PostgreSQL, how the two differ, and the schema."""

from rules_store.database.engine import open_database, parse_url
from rules_store.database.interface import Database

__all__ = [
    "Database",
    "open_database",
    "parse_url",
]
