"""Connections to SQLite and PostgreSQL, how the two differ, and the schema."""

from rules_store.database.engine import Database, parse_url

__all__ = [
    "Database",
    "parse_url",
]
