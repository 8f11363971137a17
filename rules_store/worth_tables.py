"""The part of the schema that says what rules are worth (see `rules_store.tables`)."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    true,
)

from rules_store.database.schema import UtcDateTime, metadata

# What steered which request. `withheld`: the rule fitted and was left out by lot (hold-out).
# `counted`: whether the rule's own count has it. Few indexes: rows are written in the path of
# requests.
exposures = Table(
    "exposures",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("namespace", String(128), nullable=False),
    Column("episode_id", String(64), nullable=False),
    Column("rule_id", String(64), nullable=False),
    Column("position", Integer),  # in the block, from 0; none where it was withheld
    Column("similarity", Float, nullable=False),
    Column("score", Float, nullable=False),
    Column("withheld", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("counted", Boolean, nullable=False, server_default=true()),
    UniqueConstraint("episode_id", "rule_id"),
    Index(None, "rule_id", "seq"),
)
Index(
    "ix_exposures_uncounted",
    exposures.c.seq,
    sqlite_where=~exposures.c.counted,
    postgresql_where=~exposures.c.counted,
)

# How well an episode went, by each signal; `value` and `weight` in [0, 1].
outcomes = Table(
    "outcomes",
    metadata,
    Column("episode_id", String(64), primary_key=True),
    Column("source", String(16), primary_key=True),  # agreement | client | label | verifier
    Column("namespace", String(128), nullable=False),
    Column("value", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "namespace"),
)

# A stored question answered once more with a rule and without it. `text_hash`: of the rule's text
# at that time, so that a reworded rule is judged by its own words.
trials = Table(
    "trials",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("namespace", String(128), nullable=False),
    Column("rule_id", String(64), nullable=False),
    Column("text_hash", String(64), nullable=False),
    Column("episode_id", String(64), nullable=False),
    Column("with_rule", Float, nullable=False),
    Column("without_rule", Float, nullable=False),
    Column("reference", String(16), nullable=False),  # what told right from wrong
    Column("weight", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("rule_id", "text_hash", "episode_id"),
    Index(None, "namespace"),
    sqlite_autoincrement=True,
)

# What exposures, outcomes and trials add up to for a rule, as of `at`. `helped`, `harmed` and
# `tried` are of the test that is under way.
standings = Table(
    "standings",
    metadata,
    Column("rule_id", String(64), primary_key=True),
    Column("rule_seq", Integer, nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("with_hits", Float, nullable=False),
    Column("with_misses", Float, nullable=False),
    Column("without_hits", Float, nullable=False),
    Column("without_misses", Float, nullable=False),
    Column("helped", Integer, nullable=False),
    Column("harmed", Integer, nullable=False),
    Column("tried", Integer, nullable=False),
    Column("proven", Boolean, nullable=False),
    Column("verdict", String(16)),
    Column("lift", Float, nullable=False),
    Column("lift_low", Float, nullable=False),
    Column("lift_high", Float, nullable=False),
    Index(None, "namespace"),
    Index(None, "at"),
)

# Explored questions: what a gate replays, and how much the answers there agreed.
precedents = Table(
    "precedents",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("episode_id", String(64), nullable=False, unique=True),
    Column("namespace", String(128), nullable=False),
    Column("embedding_model", String(256), nullable=False),
    Column("vector", LargeBinary, nullable=False),  # of the question, as in `embeddings`
    Column("agreement", Float),
    Column("observation", JSON, nullable=False),
    Column("answer", Text),  # the Teacher's, without any rule on trial
    Column("reference", Text),  # what a replay is compared with; none: not fit for a replay
    Column("reference_kind", String(16), nullable=False),  # label | consensus | likeness
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "namespace", "seq"),
    sqlite_autoincrement=True,
)

# `kind`: source (an episode that taught the rule), parent (a rule it was made of), contradicts.
rule_links = Table(
    "rule_links",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("namespace", String(128), nullable=False),
    Column("rule_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("other", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("rule_id", "kind", "other"),
    Index(None, "namespace"),
    Index(None, "other"),
    sqlite_autoincrement=True,
)
