"""Examples beside rules, feedback that teaches, and what each kind of experience brought."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _move_evidence()
    _move_links()
    _key_jobs()
    op.add_column("events", sa.Column("example_id", sa.String(64)))
    op.create_index("ix_events_example_id", "events", ["example_id"])
    op.add_column("feedback", sa.Column("correction", sa.Text))
    outdated = sa.Column("outdated", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("feedback", outdated)
    op.add_column("feedback", sa.Column("effect", sa.JSON(none_as_null=True)))
    for name in ("answers_judged", "lesson_calls"):
        count = sa.Column(name, sa.Integer, nullable=False, server_default="0")
        op.add_column("learn_spend", count)
    _create_examples()
    _create_choices()


def _move_evidence() -> None:
    """What was about rules is about rules and examples."""
    op.drop_index("ix_exposures_uncounted", "exposures")
    op.drop_index("ix_exposures_rule_id_seq", "exposures")
    with op.batch_alter_table("exposures") as table:
        table.drop_constraint("uq_exposures_episode_id_rule_id", type_="unique")
        table.alter_column("rule_id", new_column_name="item_id")
    with op.batch_alter_table("exposures") as table:
        table.create_unique_constraint("uq_exposures_episode_id_item_id", ["episode_id", "item_id"])
    op.create_index("ix_exposures_item_id_seq", "exposures", ["item_id", "seq"])
    op.create_index(
        "ix_exposures_uncounted",
        "exposures",
        ["seq"],
        sqlite_where=sa.text("NOT counted"),
        postgresql_where=sa.text("NOT counted"),
    )
    op.add_column("exposures", sa.Column("vote", sa.Float))
    op.create_index(
        "ix_exposures_votes",
        "exposures",
        ["namespace", "seq"],
        sqlite_where=sa.text("vote IS NOT NULL"),
        postgresql_where=sa.text("vote IS NOT NULL"),
    )
    op.execute("ALTER TABLE standings RENAME COLUMN rule_id TO item_id")
    op.execute("ALTER TABLE standings RENAME COLUMN rule_seq TO item_seq")


def _move_links() -> None:
    op.create_table(
        "links",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("other", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_links"),
        sa.UniqueConstraint("item_id", "kind", "other", name="uq_links_item_id_kind_other"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_links_namespace", "links", ["namespace"])
    op.create_index("ix_links_other", "links", ["other"])
    op.execute(
        "INSERT INTO links (namespace, item_id, kind, other, created_at) "
        "SELECT namespace, rule_id, kind, other, created_at FROM rule_links ORDER BY seq"
    )
    op.drop_table("rule_links")


def _key_jobs() -> None:
    op.drop_index("ix_jobs_state_id", "jobs")
    with op.batch_alter_table("jobs", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.add_column(sa.Column("key", sa.String(64)))
        table.add_column(sa.Column("kind", sa.String(16)))
        table.drop_constraint("uq_jobs_episode_id", type_="unique")
    op.execute("UPDATE jobs SET key = episode_id, kind = 'episode'")
    with op.batch_alter_table("jobs", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.alter_column("key", existing_type=sa.String(64), nullable=False)
        table.alter_column("kind", existing_type=sa.String(16), nullable=False)
        table.create_unique_constraint("uq_jobs_key", ["key"])
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_episode_id", "jobs", ["episode_id"])


def _create_examples() -> None:
    op.create_table(
        "examples",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("domain", sa.String(128), nullable=False),
        sa.Column("trust", sa.String(16), nullable=False),
        sa.Column("exposures", sa.Integer, nullable=False),
        sa.Column("source_episode", sa.String(64)),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("text_hash", sa.String(64), nullable=False),
        sa.Column("embedding_model", sa.String(256)),
        sa.Column("vector", sa.LargeBinary),
        sa.Column("verified_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_examples"),
        sa.UniqueConstraint("id", name="uq_examples_id"),
        sa.UniqueConstraint("namespace", "text_hash", name="uq_examples_namespace_text_hash"),
        sa.ForeignKeyConstraint(["namespace"], ["namespaces.name"], name="fk_examples_namespace"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_examples_namespace_state", "examples", ["namespace", "state"])
    op.create_index("ix_examples_namespace_seq", "examples", ["namespace", "seq"])
    op.create_index("ix_examples_source_episode", "examples", ["source_episode"])
    op.create_index("ix_examples_expires_at", "examples", ["expires_at"])


def _create_choices() -> None:
    op.create_table(
        "choices",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("episode_id", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(128), nullable=False),
        sa.Column("given", sa.String(16), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("embedding_model", sa.String(256)),
        sa.Column("vector", sa.LargeBinary),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_choices"),
        sa.UniqueConstraint("episode_id", name="uq_choices_episode_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_choices_namespace_seq", "choices", ["namespace", "seq"])
    op.create_index("ix_choices_updated_at", "choices", ["updated_at"])
