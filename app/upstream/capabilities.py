"""What a model turned out to be able to do; learned from real calls, and forgotten again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain import json_text
from app.exceptions import UpstreamError

KEPT_FOR = 3600.0
"""Seconds after which a refusal is forgotten: the server may have been changed since."""
SYSTEM_ROLE = "system role"
PATTERNS, SCHEMAS = "json_schema patterns", "json_schema"
TOKENIZER = "tokenizer"
LIMIT = "max_tokens"
OTHER_LIMIT = "max_completion_tokens"


class Capabilities:
    """Of one model: what it turned out to refuse, and what it gives.

    Fields by their names in a request, and beside them the system role and the levels of a
    structured answer (json_schema with patterns, without, or none: then the prompt asks for JSON).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[str, float] = {}
        self._logprobs: bool | None = None
        self._tokenizer: bool | None = None
        self.thinks = False
        """Whether it thought before it answered, the last time that anybody looked."""

    def refuses(self, name: str) -> bool:
        at = self._refused.get(name)
        return at is not None and self._clock() - at < KEPT_FOR

    def refused(self) -> set[str]:
        return {name for name in self._refused if self.refuses(name)}

    def refuse(self, name: str) -> None:
        self._refused[name] = self._clock()

    @property
    def logprobs(self) -> bool | None:
        """Whether it gives log-probabilities; None while nobody knows."""
        return False if self.refuses("logprobs") else self._logprobs

    @property
    def tokenizer(self) -> bool | None:
        """Whether its server counts tokens; None while nobody knows."""
        return False if self.refuses(TOKENIZER) else self._tokenizer

    def note_tokenizer(self) -> None:
        self._tokenizer = True

    def note_logprobs(self, given: bool) -> None:
        """That an answer for which they were asked had them, or not."""
        if given:
            self._logprobs = True
        elif self._logprobs is None:
            self.refuse("logprobs")

    @property
    def schema_level(self) -> int:
        """2: json_schema with patterns, 1: json_schema without, 0: none."""
        return 0 if self.refuses(SCHEMAS) else 1 if self.refuses(PATTERNS) else 2

    def refuse_schema(self, level: int) -> None:
        self.refuse(PATTERNS if level == 2 else SCHEMAS)

    def as_dict(self) -> dict[str, Any]:
        return {
            "logprobs": self.logprobs,
            "tokenizer": self.tokenizer,
            "priority": not self.refuses("priority"),
            "json_schema": ("none", "without patterns", "full")[self.schema_level],
            "thinks": self.thinks,
            "refused": sorted(self.refused()),
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
            rows = json_text.loads(content)["data"]
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
