"""Namespaces, rules with embeddings, the event log, episodes, jobs and spend."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    identity = op.create_table(
        "store_identity",
        sa.Column("id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_store_identity"),
    )
    op.bulk_insert(identity, [{"id": uuid.uuid4().hex}])
    op.create_table(
        "namespaces",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_namespaces"),
    )
    _create_rules()
    _create_events()
    _create_episodes()
    _create_jobs()
    op.create_table(
        "learn_spend",
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("minute", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "minute", name="pk_learn_spend"),
    )


def _create_rules() -> None:
    op.create_table(
        "rules",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("polarity", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("domain", sa.String(128), nullable=False),
        sa.Column("frequency", sa.Integer, nullable=False),
        sa.Column("exposures", sa.Integer, nullable=False),
        sa.Column("source_episode", sa.String(64)),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("text_hash", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_rules"),
        sa.UniqueConstraint("id", name="uq_rules_id"),
        sa.UniqueConstraint(
            "namespace", "polarity", "text_hash", name="uq_rules_namespace_polarity_text_hash"
        ),
        sa.ForeignKeyConstraint(["namespace"], ["namespaces.name"], name="fk_rules_namespace"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rules_namespace_state", "rules", ["namespace", "state"])
    op.create_index("ix_rules_source_episode", "rules", ["source_episode"])
    op.create_table(
        "embeddings",
        sa.Column("rule_seq", sa.Integer, nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("rule_seq", "model", "kind", name="pk_embeddings"),
        sa.ForeignKeyConstraint(
            ["rule_seq"], ["rules.seq"], name="fk_embeddings_rule_seq", ondelete="CASCADE"
        ),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("rule_id", sa.String(64)),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("key", sa.String(256)),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("key", name="uq_events_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_rule_id", "events", ["rule_id"])
    op.create_index("ix_events_namespace", "events", ["namespace"])


def _create_episodes() -> None:
    op.create_table(
        "episodes",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("request_id", sa.String(256)),
        sa.Column("body_hash", sa.String(64)),
        sa.Column("trace", sa.JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_episodes"),
        sa.UniqueConstraint("id", name="uq_episodes_id"),
        sa.UniqueConstraint("namespace", "request_id", name="uq_episodes_namespace_request_id"),
        sa.ForeignKeyConstraint(["namespace"], ["namespaces.name"], name="fk_episodes_namespace"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_episodes_namespace_body_hash", "episodes", ["namespace", "body_hash"])
    op.create_index("ix_episodes_status", "episodes", ["status"])


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(128)),
        sa.Column("lease_until", MOMENT),
        sa.Column("not_before", MOMENT, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("episode_id", name="uq_jobs_episode_id"),
        sa.ForeignKeyConstraint(["episode_id"], ["episodes.id"], name="fk_jobs_episode_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])


def downgrade() -> None:
    for table in (
        "learn_spend",
        "jobs",
        "episodes",
        "events",
        "embeddings",
        "rules",
        "namespaces",
        "store_identity",
    ):
        op.drop_table(table)
