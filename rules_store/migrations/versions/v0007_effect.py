"""Control groups: who was drawn for, what came of it, and what learning costs by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("namespaces", sa.Column("control_share", sa.Float))
    op.add_column("namespaces", sa.Column("suspension", sa.JSON(none_as_null=True)))
    op.drop_index("ix_outcomes_namespace", "outcomes")
    op.create_index("ix_outcomes_namespace_created_at", "outcomes", ["namespace", "created_at"])
    _create_arms()
    _create_effects()
    op.create_table(
        "spend_days",
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "day", "purpose", name="pk_spend_days"),
    )


def _create_arms() -> None:
    op.create_table(
        "arms",
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("arm", sa.String(16), nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("conversation", sa.String(16), nullable=False),
        sa.Column("offered", sa.Boolean, nullable=False),
        sa.Column("milliseconds", sa.Float, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("experience_tokens", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("episode_id", name="pk_arms"),
    )
    op.create_index("ix_arms_namespace_created_at", "arms", ["namespace", "created_at"])


def _create_effects() -> None:
    op.create_table(
        "effects",
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("signal", sa.String(16), nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "signal", name="pk_effects"),
    )
    op.create_table(
        "judged_conversations",
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("signal", sa.String(16), nullable=False),
        sa.Column("conversation", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint(
            "namespace", "signal", "conversation", name="pk_judged_conversations"
        ),
    )
    op.create_table(
        "effect_points",
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("signal", sa.String(16), nullable=False),
        sa.Column("conversations", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("difference", sa.Float, nullable=False),
        sa.Column("low", sa.Float, nullable=False),
        sa.Column("high", sa.Float, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "signal", "conversations", name="pk_effect_points"),
    )
