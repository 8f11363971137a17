"""One immutable `Settings`, read once from the environment (prefix `TTCL_`) and a `.env` file.

Unknown `TTCL_` variables and unknown keys of the `.env` file stop the start: a misspelt setting
that nothing reads is worse than a message.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv.parser import Binding, parse_stream
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.domain.trajectory import Mode
from app.exceptions import ConfigurationError
from rules_store.models.examples import LEAST_AGREED, ExampleUse
from rules_store.models.namespaces import (
    MOST_EXAMPLES,
    MOST_RETENTION_DAYS,
    NamespaceSettings,
)
from rules_store.models.rules import Pruning
from rules_store.options import DEFAULT_OPTIONS

PREFIX = "TTCL_"
NAMESPACE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
NAMESPACE = re.compile(NAMESPACE_PATTERN)


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class Policy(StrEnum):
    """How rules come to steer."""

    PAPER = "paper"
    """Everything admitted is active at once (the method's reproduction)."""
    GATED = "gated"
    """A rule is active only after replays have shown that it helps and does no harm."""


class ExamplePlace(StrEnum):
    """Where the examples of a single-turn request stand."""

    TURNS = "turns"
    """As earlier turns of the conversation."""
    BLOCK = "block"
    """Inside the block, after the rules."""


@dataclass(frozen=True, slots=True)
class ExperienceLimits:
    """Most rules of each polarity, and most examples, of one request."""

    positive: int
    negative: int
    examples: int

    @property
    def rules(self) -> int:
        return self.positive + self.negative


class DistillerVariant(StrEnum):
    """What the distiller sees, and how often it writes."""

    CONTRAST = "contrast"
    """One contrast, once."""
    NAMED = "named"
    """One contrast, once; of answers that the task lists, when to give which."""
    CLUSTER = "cluster"
    """A contrast beside those of near questions, once."""
    REVISED = "revised"
    """One contrast; then once more, with what the rules did to near stored questions."""


class EngineBackend(StrEnum):
    LLAMA = "llama"
    VLLM = "vllm"


class Experiment(BaseModel):
    """Knobs of the method that its measurements turn: operators leave them alone.

    Each has a variable of its own, like every other setting (`TTCL_HOLD_OUT_RATE`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    distiller_variant: DistillerVariant = Field(
        DistillerVariant.NAMED,
        description="What the distiller sees: contrast (one), named (one; where the task lists "
        "its answers and the right one is known, the task as well), cluster (those of near "
        "questions as well) or revised (one; then what its rules did to near stored questions)",
    )
    mmr_lambda: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Weight of relevance against diversity in MMR; 1 = no diversity",
    )
    early_stop: bool | None = Field(
        None,
        description="Cancel calls that can't change the outcome; unset: under `gated` yes, under "
        "`paper` no",
    )
    open_spread: float = Field(
        0.1, ge=0, le=2, description="Least spread of similarities for a negative rule (open tasks)"
    )
    merge_threshold: float = Field(
        DEFAULT_OPTIONS.merge_threshold,
        gt=0,
        le=1,
        description="Cosine from which two rules of one polarity are the same",
    )
    gate_replays: int = Field(
        DEFAULT_OPTIONS.gate.replays,
        ge=1,
        le=10_000,
        description="Most replays of one candidate (gated policy)",
    )
    probation: int = Field(
        50,
        ge=1,
        description="Requests that an imported rule may steer before it has proven itself (gated)",
    )
    unproven_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of requests that one imported, still unproven rule may steer (gated)",
    )
    hold_out_rate: float = Field(
        0.1, ge=0, le=1, description="Share of requests that leave out one fitting rule (gated)"
    )
    utility_weight: float = Field(
        0.5, ge=0, le=10, description="Weight of lift beside similarity in retrieval (gated)"
    )
    trigger_retrieval: bool = Field(
        True, description="Find rules by their triggers, not by their texts alone"
    )
    abstention: bool = Field(
        True, description="Leave out rules that are not likely to help (gated)"
    )
    lift_half_life_days: float = Field(
        DEFAULT_OPTIONS.half_life_days,
        gt=0,
        description="Days in which evidence about a rule loses half of its weight",
    )
    example_place: ExamplePlace = Field(
        ExamplePlace.TURNS,
        description="Where examples stand in single-turn requests: turns or block",
    )
    adaptive_effort: bool | None = Field(
        None,
        description="Explore less where answers have agreed; unset: under `gated` yes, under "
        "`paper` no",
    )
    explore_confidence: float = Field(
        0.85,
        gt=0.5,
        lt=1,
        description="How sure of the majority an exploration must be to stop early (adaptive)",
    )


DEFAULT_EXPERIMENT = Experiment()


class Settings(BaseSettings):
    """Every setting of the service; docs/settings.md is tested against these fields."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    # Where the frozen model is
    upstream_base_url: str | None = Field(
        None, description="OpenAI-compatible server, with or without /v1; unset: an embedded model"
    )
    upstream_api_key: SecretStr | None = Field(None, description="Bearer key sent to the upstream")
    upstream_model: str | None = Field(
        None,
        description="The one chat model to expose, which needs not be listed; unset: every model "
        "that the upstream lists",
    )
    pass_paths: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated paths of the upstream to pass through beside those in "
        "docs/clients.md; `/*` at the end: all beneath",
    )
    upstream_timeout: float = Field(
        600.0, gt=0, description="Seconds without a byte from the upstream before a 504"
    )
    upstream_connect_timeout: float = Field(5.0, gt=0, description="Seconds to connect upstream")
    engine: EngineBackend = Field(
        EngineBackend.LLAMA, description="Engine of the embedded model: llama or vllm"
    )
    engine_model: str | None = Field(
        None, description="GGUF file (llama) or model folder or name (vllm) for the embedded model"
    )

    # Who may come in, and where
    host: str = Field("127.0.0.1", description="Address to bind; not loopback needs keys")
    port: int = Field(8080, ge=0, le=65535, description="Port to bind")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Gateway processes behind the port; several need PostgreSQL and an upstream",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Comma-separated client keys, each for chat and learning everywhere; unset: "
        "those of `ttcl keys` alone, and open on loopback while there are none",
    )
    admin_api_key: SecretStr | None = Field(
        None, description="Key of the admin API; unset: made at first start in DATA_DIR/admin.key"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated origins of web pages that may ask from a browser, or `*`; "
        "unset: none",
    )
    max_body_bytes: int = Field(
        20_000_000, ge=1024, description="Largest request body; above it 413"
    )
    max_open_requests: int = Field(
        1000,
        ge=1,
        description="Chat requests under way at most; above it 503 with Retry-After, and above "
        "half of it nothing new is learned",
    )
    stop_grace: int = Field(30, ge=1, description="Seconds for answers to end after SIGTERM")

    # What a request gets
    mode: Mode = Field(Mode.STEER, description="Default mode: off, steer or explore")
    mode_names: bool = Field(
        True, description="List each model in /v1/models under its mode names too"
    )
    namespace: str = Field(
        "default", pattern=NAMESPACE_PATTERN, description="Namespace of requests that name none"
    )
    stream_ttcl: bool = Field(
        False,
        description="Put the `ttcl` object into the last chunk of every stream that is not passed "
        "through; unset: where `stream_options.include_ttcl` asks for it",
    )
    max_positive: int = Field(3, ge=0, le=30, description="Most positive rules injected")
    max_negative: int = Field(3, ge=0, le=30, description="Most negative rules injected")
    similarity_floor: float = Field(
        0.3, ge=-1, le=1, description="Least cosine of question and rule (or its trigger)"
    )
    examples: ExampleUse = Field(
        ExampleUse.VERIFIED,
        description="Which examples are kept and recalled: off, verified (by feedback), or "
        "consensus (those on which an exploration agreed as well: while all its answers agree, it "
        "asks for four)",
    )
    max_examples: int = Field(4, ge=0, le=MOST_EXAMPLES, description="Most examples recalled")
    example_floor: float = Field(
        0.3,
        ge=-1,
        le=1,
        description="Least cosine of question and example; one with a label is of the same task "
        "where its request had the same system messages, and then recalled however far its "
        "question is",
    )
    experience_token_budget: int = Field(
        1536, ge=0, description="Most tokens of injected rules and examples together"
    )

    control_rate: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        DEFAULT_OPTIONS.control_rate,
        description="Share of conversations served without rules and examples, to compare with; "
        "auto: none of a namespace's first 100 requests, then 0.05, and 0.25 while outcomes come "
        "in and nothing is known yet",
    )

    # Explore and learn
    students: int = Field(4, ge=1, le=16, description="Students of one exploration (N)")
    student_temperature: float = Field(0.7, ge=0, le=2, description="Sampling of the Students")
    student_top_p: float = Field(0.9, gt=0, le=1, description="Sampling of the Students")
    explore_timeout: float = Field(
        300.0, gt=0, description="Seconds for one exploration; what is not back by then is left out"
    )
    explore_wait: float = Field(
        45.0,
        gt=0,
        description="Seconds after which an exploration that is not streamed waits for the "
        "Teacher's answer alone, and gives that; keep it below the time-out of proxies before this",
    )
    explore_linger: float = Field(
        60.0,
        ge=0,
        description="Most seconds for which an exploration goes on when its client has gone, for a "
        "retry to join (never longer than it took so far); 0: none",
    )
    explore_concurrency: int = Field(
        8, ge=1, description="Most upstream calls that one exploration has under way"
    )
    sample_max_tokens: int = Field(
        1024,
        ge=16,
        description="Most tokens of one of the loop's own samples where the client set no limit",
    )
    policy: Policy | None = Field(
        None,
        description="Rule life: gated or paper; unset: gated, but paper with the embedded model, "
        "where one wants to see rules work at once",
    )
    capacity: int = Field(
        DEFAULT_OPTIONS.capacity, ge=1, description="Active rules per namespace, and candidates"
    )
    example_capacity: int = Field(
        DEFAULT_OPTIONS.example_capacity, ge=1, description="Active examples per namespace"
    )
    example_days: int | None = Field(
        None,
        ge=1,
        le=MOST_RETENTION_DAYS,
        description="Days that a new example is recalled; unset: no end",
    )
    pruning: Pruning = Field(
        DEFAULT_OPTIONS.pruning, description="What makes room at capacity: fifo or similarity"
    )
    gate_calls_per_answer: float = Field(
        0.4, ge=0, le=100, description="Replays that one learned-from request pays for (gated)"
    )
    learn: bool = Field(True, description="Learn from answered requests")
    learn_sample_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of steered requests that are explored in the background without "
        "feedback; what feedback teaches is not sampled",
    )
    learn_calls_per_hour: int = Field(
        2000, ge=0, description="Learning budget per namespace: upstream calls per hour"
    )
    learn_tokens_per_hour: int = Field(
        2_000_000, ge=0, description="Learning budget per namespace: tokens per hour"
    )
    learn_concurrency: int = Field(
        1,
        ge=0,
        le=64,
        description="Learning jobs at a time in this process; 0 leaves them to `ttcl worker` "
        "(PostgreSQL)",
    )
    learn_call_concurrency: int = Field(
        2, ge=1, le=256, description="Upstream calls of learning at a time, all jobs together"
    )
    feedback_calls_per_answer: float = Field(
        0.2,
        ge=0,
        le=100,
        description="Upstream calls of learning from feedback that one answered request pays for",
    )
    distiller_model: str | None = Field(
        None,
        description="Another model than the served one that writes the rules, of the upstream or "
        "of DISTILLER_BASE_URL; unset: the served one. While it does not answer, the served one "
        "writes",
    )
    distiller_base_url: str | None = Field(
        None,
        description="OpenAI-compatible server of that model; it gets questions and answers of "
        "every namespace. Unset: the upstream",
    )
    distiller_api_key: SecretStr | None = Field(None, description="Bearer key for that server")
    distiller_timeout: float = Field(
        120.0, gt=0, description="Seconds without a byte from that server before it counts as down"
    )
    judge_rules: bool | None = Field(
        None,
        description="Ask the model what each new rule does, one call a rule, and hold back what is "
        "no way of working. Unset: under `gated` yes, under `paper` no",
    )
    feedback_keys: int | None = Field(
        None,
        ge=1,
        le=2,
        description="Keys whose feedback it takes to promote or retire, 1 or 2; an operator's is "
        "enough. Unset: 2 in a namespace that more than one key reaches",
    )
    learn_backlog: int = Field(
        10_000, ge=0, description="Most jobs waiting; above it new ones are skipped, and said so"
    )
    job_lease: float = Field(
        DEFAULT_OPTIONS.lease,
        ge=1,
        description="Seconds after which a dead process's job is taken up again",
    )
    job_attempts: int = Field(
        DEFAULT_OPTIONS.max_attempts, ge=1, description="Tries before a learning job has failed"
    )

    # Pieces
    database_url: SecretStr | None = Field(
        None,
        description="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME, the password as it "
        "is; unset: SQLite at DATA_DIR/ttcl.db",
    )
    embedding_model: str | None = Field(
        None,
        description="sentence-transformers name or folder (unset: the packaged MiniLM), or the "
        "model's name at EMBEDDING_BASE_URL",
    )
    embedding_base_url: str | None = Field(
        None, description="OpenAI-compatible /v1/embeddings server, instead of a local model"
    )
    embedding_api_key: SecretStr | None = Field(None, description="Bearer key for that server")
    embedding_timeout: float = Field(
        2.0, gt=0, description="Seconds for a question's embedding before the answer goes unsteered"
    )
    data_dir: Path = Field(Path(".ttcl"), description="Database, index snapshots, logs, admin key")
    prompts_dir: Path | None = Field(None, description="Prompt packs; unset: the shipped ones")
    log_format: LogFormat = Field(LogFormat.CONSOLE, description="console or json")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severity that is logged"
    )

    experiment: Experiment = Field(DEFAULT_EXPERIMENT, description="Knobs that experiments turn")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment is asked for the fields of a class: for the knobs' own names as well.
        knobs = EnvSettingsSource(Experiment, env_prefix=PREFIX, env_ignore_empty=True)  # type: ignore[arg-type]
        return init_settings, env_settings, knobs, dotenv_settings

    @model_validator(mode="before")
    @classmethod
    def _nest_knobs(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Knobs come by their flat names, from wherever settings come."""
        flat = {name: given[name] for name in Experiment.model_fields if name in given}
        nested = given.get("experiment", {})
        if isinstance(nested, Experiment):
            nested = nested.model_dump()
        return {**given, "experiment": {**nested, **flat}}

    @field_validator("api_keys", "pass_paths", "cors_origins", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("upstream_base_url", "embedding_base_url", "distiller_base_url")
    @classmethod
    def _normal_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        value = value.rstrip("/")
        return value if value.endswith("/v1") else f"{value}/v1"

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.workers > 1 and not (self.on_postgresql and self.upstream_base_url):
            raise ValueError(
                "TTCL_WORKERS: several processes need a database and a model server that they can "
                "share: set TTCL_DATABASE_URL to a PostgreSQL, and TTCL_UPSTREAM_BASE_URL. On "
                "SQLite one process serves; its embedder has a thread, and so a core, of its own"
            )
        if self.learn_concurrency == 0 and not self.on_postgresql:
            raise ValueError(
                "TTCL_LEARN_CONCURRENCY: 0 leaves learning to `ttcl worker`, which needs "
                "PostgreSQL: set TTCL_DATABASE_URL, or TTCL_LEARN=false to learn nothing"
            )
        if self.examples is ExampleUse.CONSENSUS and self.students + 1 < LEAST_AGREED:
            raise ValueError(
                f"TTCL_EXAMPLES: a consensus takes {LEAST_AGREED} answers that agree, the "
                f"Teacher's among them: set TTCL_STUDENTS={LEAST_AGREED - 1} or more"
            )
        if self.distiller_base_url is not None and self.distiller_model is None:
            raise ValueError(
                "TTCL_DISTILLER_BASE_URL: name the model of that server in TTCL_DISTILLER_MODEL"
            )
        if self.distiller_api_key is not None and self.distiller_base_url is None:
            raise ValueError(
                "TTCL_DISTILLER_API_KEY: it is for TTCL_DISTILLER_BASE_URL, which is not set; the "
                "upstream gets TTCL_UPSTREAM_API_KEY"
            )
        if self.distiller_model is not None and not (
            self.distiller_base_url or self.upstream_base_url
        ):
            raise ValueError(
                "TTCL_DISTILLER_MODEL: the embedded server has no other model; name the one that "
                "has it in TTCL_DISTILLER_BASE_URL"
            )
        return self

    def changed(self, **values: Any) -> Settings:
        """A copy with these values, unchecked; knobs go by their flat names."""
        knobs = {name: values.pop(name) for name in Experiment.model_fields if name in values}
        return self.model_copy(
            update={**values, "experiment": self.experiment.model_copy(update=knobs)}
        )

    def flat(self) -> dict[str, Any]:
        """Every setting as JSON, knobs among them, by the names in `SETTINGS`."""
        dumped = self.model_dump(mode="json")
        knobs: dict[str, Any] = dumped.pop("experiment")
        return dumped | knobs

    def limits(
        self,
        own: NamespaceSettings,
        *,
        positive: int | None = None,
        negative: int | None = None,
        examples: int | None = None,
    ) -> ExperienceLimits:
        """Of a request that asks for so many: it goes before its namespace's `own` settings, and
        those before ours."""
        return ExperienceLimits(
            _first(positive, own.max_positive, self.max_positive),
            _first(negative, own.max_negative, self.max_negative),
            _first(examples, own.max_examples, self.max_examples),
        )

    @property
    def on_postgresql(self) -> bool:
        return self.resolved_database_url.startswith("postgresql")

    @property
    def resolved_database_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value().strip()
        return f"sqlite+aiosqlite:///{self.data_dir.resolve() / 'ttcl.db'}"

    @property
    def resolved_policy(self) -> Policy:
        if self.policy is not None:
            return self.policy
        return Policy.PAPER if self.upstream_base_url is None else Policy.GATED

    @property
    def stops_early(self) -> bool:
        gated = self.resolved_policy is Policy.GATED
        chosen = self.experiment.early_stop
        return gated if chosen is None else chosen

    @property
    def adapts(self) -> bool:
        gated = self.resolved_policy is Policy.GATED
        chosen = self.experiment.adaptive_effort
        return gated if chosen is None else chosen


SETTINGS = {
    name: field
    for name, field in (Settings.model_fields | Experiment.model_fields).items()
    if name != "experiment"
}
"""Every setting by its flat name: with the prefix, that of its variable."""


def _first(*known: int | None) -> int:
    return next(each for each in known if each is not None)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(env_file: Path | None = Path(".env"), **overrides: Any) -> Settings:
    """Read the environment and `env_file`; raise `ConfigurationError` with one sentence."""
    refuse_unknown(env_file, PREFIX, SETTINGS)
    try:
        return Settings(_env_file=env_file, **overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = next((str(part) for part in first["loc"] if part != "experiment"), "").upper()
        where = f"{PREFIX}{name}: " if name else ""
        raise ConfigurationError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error


# Read by the test tools and the Makefile, not by the service.
FOREIGN = {"TTCL_TEST_VLLM", "TTCL_VLLM_PYTHON"}


def refuse_unknown(env_file: Path | None, prefix: str, names: Iterable[str]) -> None:
    """Raises `ConfigurationError` for a variable with this prefix that is none of these."""
    known = {f"{prefix}{name}".upper() for name in names} | FOREIGN
    named = {name: "the environment" for name in os.environ if name.upper().startswith(prefix)}
    for line in _lines(env_file):
        if line.error or (line.key is not None and line.value is None):
            # No more of what it says: it may be the rest of a password.
            name = re.split(r"[\s=]", line.original.string.strip(), maxsplit=1)[0]
            where = f"{env_file}, line {line.original.line}"
            if name.upper() in known:
                where += f", {name}"
            raise ConfigurationError(f"{where}: not NAME=VALUE")
        if line.key is not None:
            named.setdefault(line.key, str(env_file))
    for name, source in sorted(named.items()):
        if name.upper().startswith(prefix) and name.upper() not in known:
            raise ConfigurationError(
                f"{name} in {source} is not a setting; docs/settings.md has them all"
            )


def _lines(env_file: Path | None) -> list[Binding]:
    if env_file is None or not env_file.exists():
        return []
    try:
        with env_file.open(encoding="utf-8") as stream:
            return list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{env_file} can't be read: {error}") from error
