"""Keys expire and are rotated; a database says what is being copied into it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("expires_at", MOMENT))
    op.create_table(
        "old_secrets",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("valid_until", MOMENT, nullable=False),
    )
    op.create_table(
        "store_copies",
        sa.Column("source", sa.String(32), primary_key=True),
        sa.Column("begun_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("last_event", sa.Integer),
    )
