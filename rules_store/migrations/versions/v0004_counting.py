"""Exposures are counted apart from the requests that make them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # True of those that are there: their rules had them counted when they were written.
    counted = sa.Column("counted", sa.Boolean, nullable=False, server_default=sa.true())
    op.add_column("exposures", counted)
    op.create_index(
        "ix_exposures_uncounted",
        "exposures",
        ["seq"],
        sqlite_where=sa.text("NOT counted"),
        postgresql_where=sa.text("NOT counted"),
    )
