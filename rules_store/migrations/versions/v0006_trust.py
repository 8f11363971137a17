"""On whose behalf each row was written, so that one key's evidence is bounded and can be taken
back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)

NOTED = (
    "events",
    "episodes",
    "jobs",
    "feedback",
    "exposures",
    "trials",
    "precedents",
    "links",
    "choices",
)


def upgrade() -> None:
    for table in NOTED:
        op.add_column(table, sa.Column("key_id", sa.String(64)))
    op.add_column("exposures", sa.Column("vote_key_id", sa.String(64)))
    op.add_column("precedents", sa.Column("label_key_id", sa.String(64)))
    for table in ("feedback", "trials"):
        op.create_index(f"ix_{table}_key_id", table, ["key_id"])
    _split_outcomes()
    op.create_table(
        "withdrawals",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("begun_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_withdrawals"),
    )
    op.create_table(
        "withdrawn_items",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "item_id", name="pk_withdrawn_items"),
    )


def _split_outcomes() -> None:
    """Each who gave a signal has an outcome of their own."""
    op.drop_index("ix_outcomes_namespace", "outcomes")
    op.execute("ALTER TABLE outcomes RENAME TO outcomes_before")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX pk_outcomes RENAME TO pk_outcomes_before")
    op.create_table(
        "outcomes",
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False, server_default=""),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("episode_id", "source", "key_id", name="pk_outcomes"),
    )
    same = "episode_id, source, namespace, value, weight, created_at"
    op.execute(f"INSERT INTO outcomes ({same}) SELECT {same} FROM outcomes_before")
    op.drop_table("outcomes_before")
    op.create_index("ix_outcomes_namespace", "outcomes", ["namespace"])
    op.create_index("ix_outcomes_key_id", "outcomes", ["key_id"])
