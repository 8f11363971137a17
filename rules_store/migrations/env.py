"""Alembic's entry. `rules_store.database.migrate` runs it, inside the transaction it has opened."""

from __future__ import annotations

from alembic import context

from rules_store.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
)
context.run_migrations()
