"""Jobs that were lost with their processes are told from those that failed; what an embedding model
makes of fixed sentences, so that another model behind the same name is noticed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lost", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "embedders",
        sa.Column("model", sa.String(256), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("probes", sa.LargeBinary, nullable=False),
    )
