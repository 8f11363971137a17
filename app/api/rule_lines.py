"""One rule as a JSON line: how it is written and how it is read."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.api.schemas.rules import MAX_RULE_CHARS, Moment, clean
from app.settings import NAMESPACE_PATTERN
from rules_store.database import json_codec
from rules_store.errors import InvalidVector
from rules_store.index.rule_index import unit
from rules_store.models.rules import Polarity, Rule, RuleState, Vector, Vectors
from rules_store.operations.exchange import Exported
from rules_store.operations.rule_writes import MOST_LEARNED, new_rule_id

_KEPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{7,63}\Z")


class LineVectors(BaseModel):
    """Little-endian float32 in base64."""

    text: str | None = Field(None, max_length=100_000)
    trigger: str | None = Field(None, max_length=100_000)


class RuleLine(BaseModel):
    """One rule. Fields that are not named here are passed over."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Kept where it begins with a letter or digit and has 8 characters or more",
    )
    namespace: str | None = Field(None, pattern=NAMESPACE_PATTERN)
    polarity: Polarity
    state: RuleState = RuleState.ACTIVE
    text: str = Field(min_length=1, max_length=MAX_RULE_CHARS)
    trigger: str = Field("", max_length=500)
    domain: str = Field("default", min_length=1, max_length=64)
    frequency: int = Field(1, ge=1, le=MOST_LEARNED)
    source_episode: str | None = Field(None, max_length=64)
    reason: str | None = Field(None, max_length=2000)
    created_at: Moment | None = None
    embedding_model: str | None = Field(None, max_length=256)
    vectors: LineVectors | None = None

    _one_line = field_validator("text", "trigger")(lambda cls, value: clean(value))

    @field_validator("domain", "source_episode", "reason")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        return None if value is None else json_codec.clean(value)

    @field_validator("text")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be blank")
        return value

    def as_rule(self, namespace: str) -> Rule:
        made = (self.created_at or datetime.now(UTC)).astimezone(UTC)
        return Rule(
            # A shorter one could be part of a word where rules are looked for in traces.
            id=self.id if self.id and _KEPT.match(self.id) else new_rule_id(),
            namespace=namespace,
            polarity=self.polarity,
            state=self.state,
            text=self.text,
            trigger=self.trigger,
            domain=self.domain,
            frequency=self.frequency,
            exposures=0,
            source_episode=self.source_episode,
            version=1,
            reason=self.reason,
            created_at=made,
            updated_at=made,
        )


def written(item: Exported, model: str) -> bytes:
    """With a line feed at its end."""
    rule = item.rule
    shape: dict[str, Any] = {
        "id": rule.id,
        "namespace": rule.namespace,
        "polarity": rule.polarity.value,
        "state": rule.state.value,
        "text": rule.text,
        "trigger": rule.trigger,
        "domain": rule.domain,
        "frequency": rule.frequency,
        "exposures": rule.exposures,
        "source_episode": rule.source_episode,
        "reason": rule.reason,
        "created_at": rule.created_at.isoformat(),
    }
    if item.vectors is not None and item.vectors.text is not None:
        shape["embedding_model"] = model
        shape["vectors"] = {
            "text": _packed(item.vectors.text),
            "trigger": _packed(item.vectors.trigger),
        }
    return orjson.dumps(shape) + b"\n"


def _packed(vector: Vector | None) -> str | None:
    return None if vector is None else base64.b64encode(vector.astype("<f4").tobytes()).decode()


def parse(line: bytes) -> RuleLine:
    """Raises ValueError, ValidationError."""
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    return RuleLine.model_validate(content)


def unpacked(line: RuleLine, model: str, dimension: int | None) -> Vectors:
    """The line's unit vectors. Raises ValueError.

    Those of another embedding model are passed over; so are all while no `dimension` is known.
    """
    if line.vectors is None or line.embedding_model != model or dimension is None:
        return Vectors()
    read: list[Vector | None] = []
    for name, packed in (("text", line.vectors.text), ("trigger", line.vectors.trigger)):
        try:
            raw = None if packed is None else base64.b64decode(packed, validate=True)
            vector = None if raw is None else np.frombuffer(raw, dtype="<f4")
            read.append(None if vector is None else unit(vector, dimension))
        except (binascii.Error, InvalidVector, ValueError) as error:
            raise ValueError(f"vectors.{name}: {error}") from None
    return Vectors(text=read[0], trigger=read[1] if line.trigger else None)
