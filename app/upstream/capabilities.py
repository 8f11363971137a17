"""What a model server turned out to be able to do; learned once, from real calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.exceptions import UpstreamError


@dataclass(slots=True)
class Capabilities:
    """Found out by use and kept for the life of the process. None: not yet known."""

    logprobs: bool | None = None
    tokenizer: bool | None = None
    stream_usage: bool = True
    """Whether `stream_options` may be sent."""
    priority: bool = True
    """Whether `priority` may be sent; only ever to a vLLM."""
    schema_level: int = 2
    """2: json_schema with patterns, 1: json_schema without, 0: none (the prompt asks for JSON)."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "logprobs": self.logprobs,
            "tokenizer": self.tokenizer,
            "priority": self.priority,
            "json_schema": ("none", "without patterns", "full")[self.schema_level],
        }


@dataclass(frozen=True, slots=True)
class ModelInfo:
    id: str
    owned_by: str
    created: int
    context_length: int | None
    """Tokens of prompt and answer together; None when the server does not say."""
    told: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    """All that the server says of it."""

    @classmethod
    def parse_list(cls, content: bytes, only: str | None) -> dict[str, ModelInfo]:
        """Models by id from the body of GET /models. Raises `UpstreamError`."""
        try:
            rows = orjson.loads(content)["data"]
            found = {info.id: info for info in map(cls._parse, rows)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UpstreamError("the model server's list of models can't be read") from error
        if only is None:
            return found
        return {only: found.get(only, cls(only, "upstream", 0, None))}

    @classmethod
    def _parse(cls, row: dict[str, Any]) -> ModelInfo:
        meta = row.get("meta")
        # vLLM says max_model_len; llama.cpp says meta.n_ctx (what a slot holds).
        context = row.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else 0)
        created = row.get("created")
        return cls(
            id=str(row["id"]),
            owned_by=str(row.get("owned_by") or "upstream"),
            created=int(created) if isinstance(created, int | float) else 0,
            context_length=int(context) if isinstance(context, int | float) and context else None,
            told=row,
        )


_OVERFLOW = re.compile(
    r"context[ _-]?(length|size|window)|maximum context|max_model_len|exceeds? the (available )?"
    r"context|maximum model length",
    re.IGNORECASE,
)


def is_context_overflow(error: UpstreamError) -> bool:
    """Whether a 4xx says that prompt and answer do not fit the model's context."""
    return error.code == "context_length_exceeded" or bool(_OVERFLOW.search(error.message))


def without_patterns(schema: Any) -> Any:
    """The same JSON schema less every `pattern` and `maxLength`, which some servers refuse."""
    if isinstance(schema, dict):
        return {
            key: without_patterns(value)
            for key, value in schema.items()
            if key not in ("pattern", "maxLength", "minLength")
        }
    if isinstance(schema, list):
        return [without_patterns(item) for item in schema]
    return schema
