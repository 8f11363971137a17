"""Alembic's entry. `rules_store.migrate` runs it, inside the transaction it has opened."""

from __future__ import annotations

from alembic import context

import rules_store.worth_tables  # noqa: F401  the rest of the schema
from rules_store.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
)
context.run_migrations()
