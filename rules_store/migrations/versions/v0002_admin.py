"""Namespaces that can be set up and frozen, API keys and their spend, feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "namespaces", sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("namespaces", sa.Column("settings", sa.JSON, nullable=False, server_default="{}"))
    op.create_index("ix_rules_namespace_seq", "rules", ["namespace", "seq"])
    op.create_index(
        "ix_episodes_namespace_created_at_status",
        "episodes",
        ["namespace", "created_at", "status"],
    )
    op.create_table(
        "learning_pauses",
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", name="pk_learning_pauses"),
    )
    op.create_table(
        "api_keys",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("shown", sa.String(32), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("namespaces", sa.JSON, nullable=False),
        sa.Column("permissions", sa.JSON, nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("tokens_per_day", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_used_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("seq", name="pk_api_keys"),
        sa.UniqueConstraint("id", name="uq_api_keys_id"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "key_spend",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", name="pk_key_spend"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_key_spend_key_id"),
    )
    op.create_table(
        "feedback",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("label", sa.Text),
        sa.Column("verified", sa.Boolean),
        sa.Column("comment", sa.Text),
        sa.Column("key", sa.String(256)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_feedback"),
        sa.UniqueConstraint("id", name="uq_feedback_id"),
        sa.UniqueConstraint("episode_id", "key", name="uq_feedback_episode_id_key"),
        sa.ForeignKeyConstraint(["episode_id"], ["episodes.id"], name="fk_feedback_episode_id"),
        sqlite_autoincrement=True,
    )
