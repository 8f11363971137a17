"""The OpenAI wire types that this gateway reads. Only what it must understand is typed; every
other field is kept and forwarded as it came."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.domain.trajectory import Mode, Task
from app.exceptions import InvalidRequest
from app.settings import NAMESPACE_PATTERN
from rules_store.models.namespaces import MOST_EXAMPLES

MAX_DEPTH = 200
"""Levels of a request's JSON. orjson reads 1024 but writes 254, and the job and the trace of an
episode put a few around the request's own."""

MODE_SUFFIXES = {f"+{mode.value}": mode for mode in Mode}


class TTCLOptions(BaseModel):
    """The body's `ttcl` object: everything a request can say to the gateway itself."""

    model_config = ConfigDict(extra="forbid")

    mode: Mode | None = None
    namespace: str | None = Field(None, pattern=NAMESPACE_PATTERN)
    task: Task = Task.AUTO
    domain: str | None = Field(None, max_length=64)
    learn: bool | None = Field(None, strict=True)
    max_positive: int | None = Field(None, ge=0, le=30, strict=True)
    max_negative: int | None = Field(None, ge=0, le=30, strict=True)
    max_examples: int | None = Field(None, ge=0, le=MOST_EXAMPLES, strict=True)


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A chat request. Types are checked, ranges are the upstream's business."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "model": "SmolLM2-135M-Instruct",
                    "messages": [{"role": "user", "content": "What is 12 times 7?"}],
                    "ttcl": {"mode": "steer", "namespace": "default"},
                }
            ]
        },
    )

    model: str = Field(min_length=1, max_length=512)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None
    ttcl: TTCLOptions | None = Field(None, strict=False)

    @property
    def answer_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or 0


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request body. Raises `InvalidRequest`."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object", code="invalid_json")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deeper_than(body, MAX_DEPTH):
        raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels")
    return body


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        containers = [v for v in level if isinstance(v, dict | list)]
        if not containers:
            return False
        level = [item for c in containers for item in (c.values() if isinstance(c, dict) else c)]
    return any(isinstance(value, dict | list) for value in level)


def parse_chat(body: dict[str, Any]) -> ChatRequest:
    """Raises `InvalidRequest` naming the first wrong field."""
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from error


def invalid(error: ValidationError) -> InvalidRequest:
    """The first problem of a validation as an error that names its field."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = param_name(first["loc"]) or "body"
    missing = first["type"] == "missing"
    message = f"Missing required parameter: '{param}'" if missing else f"{param}: {first['msg']}"
    return InvalidRequest(
        message, param=param, code="missing_required_parameter" if missing else "invalid_value"
    )


def param_name(location: tuple[int | str, ...]) -> str:
    """`("messages", 0, "content", "str")` as `messages[0].content`: union tags are left out."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part in ("str", "int", "float", "bool", "none") or part[:5] in ("list[", "dict["):
            break
        else:
            name += f".{part}" if name else part
    return name


def split_model(name: str) -> tuple[str, Mode | None]:
    """`"base+off"` as `("base", Mode.OFF)`; a name without a mode as it is."""
    for suffix, mode in MODE_SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), mode
    return name, None
