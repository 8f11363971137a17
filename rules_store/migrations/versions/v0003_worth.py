"""What rules are worth: exposures, outcomes, trials, standings, precedents, links."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "exposures",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer),
        sa.Column("similarity", sa.Float, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("withheld", sa.Boolean, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_exposures"),
        sa.UniqueConstraint("episode_id", "rule_id", name="uq_exposures_episode_id_rule_id"),
    )
    op.create_index("ix_exposures_rule_id_seq", "exposures", ["rule_id", "seq"])
    op.create_table(
        "outcomes",
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("episode_id", "source", name="pk_outcomes"),
    )
    op.create_index("ix_outcomes_namespace", "outcomes", ["namespace"])
    op.create_table(
        "trials",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("text_hash", sa.String(64), nullable=False),
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("with_rule", sa.Float, nullable=False),
        sa.Column("without_rule", sa.Float, nullable=False),
        sa.Column("reference", sa.String(16), nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_trials"),
        sa.UniqueConstraint(
            "rule_id", "text_hash", "episode_id", name="uq_trials_rule_id_text_hash_episode_id"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_trials_namespace", "trials", ["namespace"])
    op.create_table(
        "standings",
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("rule_seq", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("with_hits", sa.Float, nullable=False),
        sa.Column("with_misses", sa.Float, nullable=False),
        sa.Column("without_hits", sa.Float, nullable=False),
        sa.Column("without_misses", sa.Float, nullable=False),
        sa.Column("helped", sa.Integer, nullable=False),
        sa.Column("harmed", sa.Integer, nullable=False),
        sa.Column("tried", sa.Integer, nullable=False),
        sa.Column("proven", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("lift", sa.Float, nullable=False),
        sa.Column("lift_low", sa.Float, nullable=False),
        sa.Column("lift_high", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("rule_id", name="pk_standings"),
    )
    op.create_index("ix_standings_namespace", "standings", ["namespace"])
    op.create_index("ix_standings_at", "standings", ["at"])
    op.create_table(
        "precedents",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("embedding_model", sa.String(256), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("agreement", sa.Float),
        sa.Column("observation", sa.JSON, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("reference", sa.Text),
        sa.Column("reference_kind", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_precedents"),
        sa.UniqueConstraint("episode_id", name="uq_precedents_episode_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_precedents_namespace_seq", "precedents", ["namespace", "seq"])
    op.create_table(
        "rule_links",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("other", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_rule_links"),
        sa.UniqueConstraint("rule_id", "kind", "other", name="uq_rule_links_rule_id_kind_other"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rule_links_namespace", "rule_links", ["namespace"])
    op.create_index("ix_rule_links_other", "rule_links", ["other"])
