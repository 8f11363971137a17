"""The schema as SQLAlchemy Core tables. `migrations/` builds it; a test keeps the two equal.

Every datetime is UTC and aware outside, every JSON column is the generic type, so the same
statements run on SQLite and PostgreSQL.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    true,
)

from rules_store.database.json_codec import storable


def to_utc(value: datetime) -> datetime:
    """Raises ValueError for one without a time zone."""
    if value.tzinfo is None:
        raise ValueError("a datetime without a time zone can't be stored")
    return value.astimezone(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC outside; SQLite keeps no zone, so it gets naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = to_utc(value)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class StorableText(TypeDecorator[str]):
    """Text of whatever a client or a model wrote: without what no database stores."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


# `key_id`, wherever it stands: on whose behalf the row was written, as `Caller.name` has it (the id
# of an API key of the store, the place of one of the environment, `admin`, `anyone`); none where it
# was before keys were noted, or nobody's doing.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row: which database this is, so that an index snapshot of another one is recognised.
identity = Table("store_identity", metadata, Column("id", String(32), primary_key=True))

# What is copied into this database from another one (its identity), until somebody serves from it.
# `last_event`: the last one that was copied, once the copy has ended.
store_copies = Table(
    "store_copies",
    metadata,
    Column("source", String(32), primary_key=True),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("last_event", Integer),
)

# `control_share`: what the default schedule has come to. `suspension`: why nothing steers.
namespaces = Table(
    "namespaces",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("frozen", Boolean, nullable=False, server_default=false()),
    Column("settings", JSON, nullable=False, server_default="{}"),
    Column("control_share", Float),
    Column("suspension", JSON(none_as_null=True)),
)

rules = Table(
    "rules",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("namespace", ForeignKey("namespaces.name"), nullable=False),
    Column("polarity", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("text", StorableText, nullable=False),
    Column("trigger", StorableText, nullable=False),
    Column("domain", String(128), nullable=False),
    Column("frequency", Integer, nullable=False),
    Column("exposures", Integer, nullable=False),
    Column("source_episode", String(64)),
    Column("version", Integer, nullable=False),
    Column("reason", StorableText),
    Column("text_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("written_by", StorableText),
    UniqueConstraint("namespace", "polarity", "text_hash"),
    Index(None, "namespace", "state"),
    Index(None, "namespace", "seq"),
    Index(None, "source_episode"),
    sqlite_autoincrement=True,
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("rule_seq", ForeignKey("rules.seq", ondelete="CASCADE"), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("kind", String(16), primary_key=True),  # text | trigger
    Column("vector", LargeBinary, nullable=False),  # little-endian float32, unit length
)

# What each embedding model made of a few fixed sentences when it was first used, or last found to
# have changed: `probes` are little-endian float32, one unit vector behind the other.
embedders = Table(
    "embedders",
    metadata,
    Column("model", String(256), primary_key=True),
    Column("generation", Integer, nullable=False),  # one more with each change
    Column("dimension", Integer, nullable=False),
    Column("probes", LargeBinary, nullable=False),
)

# Questions with answers that somebody or something vouches for. `label`: the short right answer
# where there is one; two near questions with different labels are a conflict. `vector`: of the
# question, as in `embeddings`; none while it waits to be embedded.
examples = Table(
    "examples",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("namespace", ForeignKey("namespaces.name"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("question", StorableText, nullable=False),
    Column("answer", StorableText, nullable=False),
    Column("label", StorableText),
    Column("domain", String(128), nullable=False),
    Column("instructions", String(32)),
    Column("trust", String(16), nullable=False),  # consensus | score | verifier | label
    Column("exposures", Integer, nullable=False),
    Column("source_episode", String(64)),
    Column("version", Integer, nullable=False),
    Column("reason", StorableText),
    Column("text_hash", String(64), nullable=False),  # of question and answer
    Column("embedding_model", String(256)),
    Column("vector", LargeBinary),
    Column("verified_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("namespace", "text_hash"),
    Index(None, "namespace", "state"),
    Index(None, "namespace", "seq"),
    Index(None, "source_episode"),
    Index(None, "expires_at"),
    sqlite_autoincrement=True,
)

# Append-only. `key` makes an effect that may be tried twice happen once.
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("rule_id", String(64)),
    Column("example_id", String(64)),
    Column("actor", String(128), nullable=False),
    Column("reason", StorableText, nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Column("key", String(256), unique=True),
    Column("key_id", String(64)),
    Index(None, "rule_id"),
    Index(None, "example_id"),
    Index(None, "namespace"),
    sqlite_autoincrement=True,
)

episodes = Table(
    "episodes",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("namespace", ForeignKey("namespaces.name"), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", StorableText),
    Column("question", StorableText, nullable=False),
    Column("answer", StorableText),
    Column("model", String(256), nullable=False),
    Column("request_id", String(256)),
    Column("body_hash", String(64)),
    Column("trace", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    UniqueConstraint("namespace", "request_id"),
    Index(None, "namespace", "body_hash"),
    Index(None, "namespace", "created_at", "status"),
    Index(None, "status"),
    sqlite_autoincrement=True,
)

# `key`: what the job is about, once: the id of the episode, or of the feedback on it.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),  # episode | feedback
    Column("episode_id", ForeignKey("episodes.id"), nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lost", Integer, nullable=False, server_default="0"),  # with their processes
    Column("owner", String(128)),
    Column("lease_until", UtcDateTime),
    Column("not_before", UtcDateTime, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("last_error", StorableText),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    Index(None, "state", "id"),
    Index(None, "episode_id"),
    sqlite_autoincrement=True,
)

# Whose jobs are not claimed; '*' stands for every namespace.
learning_pauses = Table(
    "learning_pauses",
    metadata,
    Column("namespace", String(128), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
)

# One row per namespace and minute, so that "the last hour" slides.
learn_spend = Table(
    "learn_spend",
    metadata,
    Column("namespace", String(128), primary_key=True),
    Column("minute", Integer, primary_key=True, autoincrement=False),  # since the epoch
    Column("calls", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("answers_judged", Integer, nullable=False, server_default="0"),  # by feedback
    Column("lesson_calls", Integer, nullable=False, server_default="0"),  # those of `calls` for it
)

# `hash`: SHA-256 of a secret of 256 random bits. `shown`: its first characters, to tell keys apart.
api_keys = Table(
    "api_keys",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("shown", String(32), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("namespaces", JSON, nullable=False),
    Column("permissions", JSON, nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_day", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    sqlite_autoincrement=True,
)

# Hashes of secrets that a rotation has put others in place of, and until when they are valid still.
# Those of the admin key stay for good: a gateway that is started with one must know it for old.
old_secrets = Table(
    "old_secrets",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("valid_until", UtcDateTime, nullable=False),
)

key_spend = Table(
    "key_spend",
    metadata,
    Column("key_id", ForeignKey("api_keys.id"), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # since the epoch
    Column("requests", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
)

# `key` is the client's own: the same one for the same episode is counted once. `effect`: what
# followed from it at once.
feedback = Table(
    "feedback",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("episode_id", ForeignKey("episodes.id"), nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("source", String(16), nullable=False),  # client | label | verifier
    Column("score", Float),
    Column("label", StorableText),
    Column("verified", Boolean),
    Column("correction", StorableText),
    Column("outdated", Boolean, nullable=False, server_default=false()),
    Column("comment", StorableText),
    Column("key", String(256)),
    Column("effect", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    UniqueConstraint("episode_id", "key"),
    Index(None, "key_id"),
    sqlite_autoincrement=True,
)


# What steered which request: a rule or an example each (`item_id`). `withheld`: it fitted and was
# left out by lot (hold-out). `counted`: whether the item's own count has it. `vote`: of an example,
# whether its own label was the right one of the episode; it is credited in place of the outcome.
# `vote_key_id`: who told the right label.
# Few indexes: rows are written in the path of requests.
exposures = Table(
    "exposures",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("namespace", String(128), nullable=False),
    Column("episode_id", String(64), nullable=False),
    Column("item_id", String(64), nullable=False),
    Column("position", Integer),  # in the block, from 0; none where it was withheld
    Column("similarity", Float, nullable=False),
    Column("score", Float, nullable=False),
    Column("withheld", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("counted", Boolean, nullable=False, server_default=true()),
    Column("vote", Float),
    Column("key_id", String(64)),
    Column("vote_key_id", String(64)),
    UniqueConstraint("episode_id", "item_id"),
    Index(None, "item_id", "seq"),
)


Index(
    "ix_exposures_uncounted",
    exposures.c.seq,
    sqlite_where=~exposures.c.counted,
    postgresql_where=~exposures.c.counted,
)


Index(
    "ix_exposures_votes",
    exposures.c.namespace,
    exposures.c.seq,
    sqlite_where=exposures.c.vote.is_not(None),
    postgresql_where=exposures.c.vote.is_not(None),
)


# How well an episode went, by each signal and each one who gave it ('' where nobody is known);
# `value` and `weight` in [0, 1].
outcomes = Table(
    "outcomes",
    metadata,
    Column("episode_id", String(64), primary_key=True),
    Column("source", String(16), primary_key=True),  # agreement | client | label | verifier
    Column("key_id", String(64), primary_key=True, server_default=""),
    Column("namespace", String(128), nullable=False),
    Column("value", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "namespace", "created_at"),
    Index(None, "key_id"),
)


# A stored question answered once more with a rule and without it. `text_hash`: of the rule's text
# at that time, so that a reworded rule is judged by its own words. `key_id`: who gave the label
# that it was judged by; none where the exploration's own answers told.
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
    Column("key_id", String(64)),
    UniqueConstraint("rule_id", "text_hash", "episode_id"),
    Index(None, "namespace"),
    Index(None, "key_id"),
    sqlite_autoincrement=True,
)


# What exposures, outcomes and trials add up to for a rule or an example, as of `at`. `helped`,
# `harmed` and `tried` are of the test that is under way.
standings = Table(
    "standings",
    metadata,
    Column("item_id", String(64), primary_key=True),
    Column("item_seq", Integer, nullable=False),
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


# Explored questions: what a gate replays, and how much the answers there agreed. `key_id`: who
# asked; `label_key_id`: who gave the label.
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
    Column("answer", StorableText),  # the Teacher's, without any rule on trial
    Column("reference", StorableText),  # what a replay is compared with; none: not fit for a replay
    Column("reference_kind", String(16), nullable=False),  # label | consensus | likeness
    Column("created_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    Column("label_key_id", String(64)),
    Index(None, "namespace", "seq"),
    sqlite_autoincrement=True,
)


# `kind`: source (an episode that taught the item), parent (a rule it was made of), contradicts
# (a rule or an example that says something else). `key_id`: whose request or feedback it was.
links = Table(
    "links",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("namespace", String(128), nullable=False),
    Column("item_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("other", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    UniqueConstraint("item_id", "kind", "other"),
    Index(None, "namespace"),
    Index(None, "other"),
    sqlite_autoincrement=True,
)


# What a request was given (none, rules, examples or both) and how well its answer did, by the
# strongest signal so far. `vector`: of the question, as in `embeddings`.
choices = Table(
    "choices",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("episode_id", String(64), nullable=False, unique=True),
    Column("namespace", String(128), nullable=False),
    Column("given", String(16), nullable=False),  # none | rules | examples | both
    Column("value", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("embedding_model", String(256)),
    Column("vector", LargeBinary),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    Index(None, "namespace", "seq"),
    Index(None, "updated_at"),
    sqlite_autoincrement=True,
)


# Requests that were drawn for, and what they cost. `share`: the probability of control when it was
# drawn; `conversation`: a hash, what was drawn for; `offered`: whether there was experience that
# fits. Tokens are none where the upstream has not told them; `experience_tokens` are an estimate.
arms = Table(
    "arms",
    metadata,
    Column("episode_id", String(64), primary_key=True),
    Column("namespace", String(128), nullable=False),
    Column("arm", String(16), nullable=False),  # control | steered
    Column("share", Float, nullable=False),
    Column("conversation", String(16), nullable=False),
    Column("offered", Boolean, nullable=False),
    Column("milliseconds", Float, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("experience_tokens", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "namespace", "created_at"),
)


# What the outcomes of one signal add up to (`policy.effect.EffectState`).
effects = Table(
    "effects",
    metadata,
    Column("namespace", String(128), primary_key=True),
    Column("signal", String(16), primary_key=True),
    Column("state", JSON, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)


# Conversations whose first outcome by a signal is in `effects`.
judged_conversations = Table(
    "judged_conversations",
    metadata,
    Column("namespace", String(128), primary_key=True),
    Column("signal", String(16), primary_key=True),
    Column("conversation", String(16), primary_key=True),
)


# The interval as it was after so many conversations, ever further apart.
effect_points = Table(
    "effect_points",
    metadata,
    Column("namespace", String(128), primary_key=True),
    Column("signal", String(16), primary_key=True),
    Column("conversations", Integer, primary_key=True, autoincrement=False),
    Column("difference", Float, nullable=False),
    Column("low", Float, nullable=False),
    Column("high", Float, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)


# What learning cost, by day since the epoch; `learn_spend` has the last hours by minute.
spend_days = Table(
    "spend_days",
    metadata,
    Column("namespace", String(128), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("purpose", String(16), primary_key=True),  # exploration | feedback | replay
    Column("calls", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)


# A key whose evidence is taken back: begun, and not at its end while `ended_at` is none. `counts`:
# what was taken back so far, by kind.
withdrawals = Table(
    "withdrawals",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("counts", JSON, nullable=False),
)


# Rules and examples that evidence was taken from in a withdrawal and that are to be judged anew.
withdrawn_items = Table(
    "withdrawn_items",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("item_id", String(64), primary_key=True),
)


# Who is signed in to the console. `hash`: of the cookie's token; `key_id`: whose key opened it, as
# everywhere; `key_proof`: by which a key of the environment is known again (`console.sessions`).
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("actor", String(128), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("key_proof", String(64), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "expires_at"),
)
