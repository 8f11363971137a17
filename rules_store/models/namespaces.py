"""Namespaces and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from rules_store.errors import InvalidSetting
from rules_store.models.examples import ExampleUse
from rules_store.models.rules import Pruning

MAX_ACTOR_CHARS = 128
"""As an event keeps it."""
MOST_COUNT = 10**12
MOST_RULES = 30
MOST_EXAMPLES = 32
MOST_RETENTION_DAYS = 36_500


class NamespaceSettings(BaseModel):
    """What one namespace does differently from the service; null follows the service. In a change,
    what is left out stays as it is."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )

    policy: Literal["gated", "paper"] | None = None
    learn: bool | None = None
    sample_rate: float | None = Field(
        None, ge=0, le=1, description="Share of steered requests that are learned from"
    )
    calls_per_hour: int | None = Field(None, ge=0, le=MOST_COUNT)
    tokens_per_hour: int | None = Field(None, ge=0, le=MOST_COUNT)
    capacity: int | None = Field(None, ge=1, le=MOST_COUNT, description="Active rules")
    pruning: Pruning | None = None
    max_positive: int | None = Field(None, ge=0, le=MOST_RULES)
    max_negative: int | None = Field(None, ge=0, le=MOST_RULES)
    similarity_floor: float | None = Field(None, ge=-1, le=1)
    chores: Literal["recognised", "all", "none"] | None = Field(
        None,
        description="Which requests are chores of a client, neither steered nor learned from: "
        "those recognised as such, all (of a client's task model, say) or none; a request can say "
        "it itself",
    )
    examples: ExampleUse | None = None
    max_examples: int | None = Field(None, ge=0, le=MOST_EXAMPLES)
    example_capacity: int | None = Field(None, ge=1, le=MOST_COUNT, description="Active examples")
    example_days: int | None = Field(
        None, ge=1, le=MOST_RETENTION_DAYS, description="Days that a new example is recalled"
    )
    confidential: bool | None = Field(
        None,
        description="Whether the model is asked to keep rules and examples to itself; null: no",
    )
    retention_days: int | None = Field(
        None,
        ge=1,
        le=MOST_RETENTION_DAYS,
        description="Older episodes, and examples that came of one and were last verified longer"
        " ago, are deleted",
    )

    @classmethod
    def read(cls, values: Mapping[str, Any], *, strict: bool = False) -> Self:
        """`strict`: a text or a truth value is no number. Raises InvalidSetting."""
        try:
            # As JSON: there a strict reading, too, takes an enum by its value.
            given = to_json(values, inf_nan_mode="constants")
            return cls.model_validate_json(given, strict=strict)
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidSetting(str(first["loc"][0]), first["msg"]) from error

    def changed(self, changes: Mapping[str, Any]) -> NamespaceSettings:
        """With these in place of its own; None goes back to the service's. Raises
        InvalidSetting."""
        return self.read({**dict(self), **changes}, strict=True)

    def as_json(self) -> dict[str, Any]:
        """What is set, as it is stored."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """As `as_json` wrote it; a later version's settings are passed over."""
        return cls.read({name: stored[name] for name in cls.model_fields if name in stored})


DEFAULTS = NamespaceSettings()


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    created_at: datetime
    frozen: bool = False
    """Nothing of it is learned from, and its rules can't be changed."""
    settings: NamespaceSettings = DEFAULTS


@dataclass(frozen=True, slots=True)
class NamespaceSummary:
    """A namespace with exact counts at one moment."""

    namespace: Namespace
    paused: bool
    """Its learning jobs wait, whether by its own pause or by that of all namespaces."""
    rules: dict[str, int] = field(default_factory=dict)
    """By state."""
    examples: dict[str, int] = field(default_factory=dict)
    """By state."""
    episodes: dict[str, int] = field(default_factory=dict)
    """By status."""
    jobs: dict[str, int] = field(default_factory=dict)
    """By state."""


@dataclass(frozen=True, slots=True)
class DeletedNamespace:
    name: str
    event: int
    rules: int
    examples: int
    episodes: int
    jobs: int
    events: int
