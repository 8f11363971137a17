"""The OpenAI wire types that this gateway reads. Only what it must understand is typed; every
other field is kept and forwarded as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from app.access.tenants import FairSlots
from app.domain import json_text
from app.domain.json_text import MOST_VALUES
from app.domain.trajectory import Mode, Task
from app.exceptions import InvalidRequest
from app.settings import NAMESPACE_PATTERN
from rules_store.models.namespaces import MOST_EXAMPLES

LARGE = 262_144
"""Bytes from which a body is read in a thread."""

INCLUDE_TTCL = "include_ttcl"
"""Of `stream_options`."""

NEEDED = {"model", "messages", "ttcl"}
"""Fields without which nothing can be steered."""

MODE_SUFFIXES = {f"+{mode.value}": mode for mode in Mode}


class TTCLOptions(BaseModel):
    """The body's `ttcl` object: everything a request can say to the gateway itself."""

    model_config = ConfigDict(extra="forbid")

    mode: Mode | None = None
    namespace: str | None = Field(None, pattern=NAMESPACE_PATTERN)
    task: Task = Task.AUTO
    domain: str | None = Field(None, max_length=64)
    learn: bool | None = Field(None, strict=True)
    chore: bool | None = Field(
        None,
        strict=True,
        description="Whether this is a chore of the client (a title, tags, a search query), to be "
        "neither steered nor learned from; unset: it is recognised",
    )
    max_positive: int | None = Field(None, ge=0, le=30, strict=True)
    max_negative: int | None = Field(None, ge=0, le=30, strict=True)
    max_examples: int | None = Field(None, ge=0, le=MOST_EXAMPLES, strict=True)


class ChatMessage(BaseModel):
    """What of a message is looked at; its types are the upstream's business."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[Any, WithJsonSchema({"type": "string"})] = None
    content: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "object"}},
                    {"type": "null"},
                ]
            }
        ),
    ] = None
    tool_calls: Any = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None
    include_ttcl: bool | None = Field(
        None, description="Whether the stream's last chunk carries the `ttcl` object"
    )


class ChatRequest(BaseModel):
    """A chat request as the gateway reads it. What it says goes upstream as it was written; a value
    of another type than these is the upstream's business (see `parse_chat`)."""

    model_config = ConfigDict(
        extra="allow",
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
    ttcl: TTCLOptions | None = None

    @property
    def answer_tokens(self) -> int:
        """Most tokens of the answer; 0 where there is no limit, which some write as -1."""
        return max(0, self.max_completion_tokens or self.max_tokens or 0)


async def parse_body(raw: bytes, turns: FairSlots) -> dict[str, Any]:
    """As `parse_json`; a large one in a thread, when it is its turn, so that others are answered
    meanwhile: each step of it stops all threads for a moment, and several would do so in a row."""
    if len(raw) < LARGE:
        return parse_json(raw)
    async with turns.slot():
        return await asyncio.to_thread(parse_json, raw)


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request body, counted before it is read. Raises `InvalidRequest`."""
    if json_text.has_more_values(raw, MOST_VALUES):
        raise InvalidRequest(f"The body has more than {MOST_VALUES} values", code="too_many_values")
    try:
        body = json_text.loads(raw)
    except json_text.TooDeep as error:
        raise InvalidRequest(f"The body is {error}") from error
    except ValueError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object", code="invalid_json")
    return body


def parse_options(body: Mapping[str, Any]) -> TTCLOptions:
    """What a body says to the gateway itself. Raises `InvalidRequest` naming the wrong field."""
    given = body.get("ttcl")
    if given is None:
        return TTCLOptions()
    try:
        return TTCLOptions.model_validate(given)
    except ValidationError as error:
        raise invalid(error, "ttcl") from error


def sent_fields(body: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """The fields of a body less those that are for the gateway, and whether the `ttcl` object is
    wanted in a stream, where that is said. Raises `InvalidRequest`."""
    sent = {name: value for name, value in body.items() if name != "ttcl"}
    options = sent.get("stream_options")
    if not isinstance(options, dict) or INCLUDE_TTCL not in options:
        return sent, None
    wanted = options[INCLUDE_TTCL]
    if wanted is not None and not isinstance(wanted, bool):
        param = f"stream_options.{INCLUDE_TTCL}"
        raise InvalidRequest(f"{param}: must be true or false", param=param, code="invalid_value")
    rest = {name: value for name, value in options.items() if name != INCLUDE_TTCL}
    if rest:
        sent["stream_options"] = rest
    else:
        del sent["stream_options"]
    return sent, wanted


def parse_chat(body: Mapping[str, Any]) -> tuple[ChatRequest, tuple[str, ...]]:
    """The request as steering and the loop read it, and the names of the fields that they can't
    read, which are unset in it. Without a model's name and messages nothing can be steered: then
    `InvalidRequest` names the field."""
    try:
        return ChatRequest.model_validate(body), ()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        unread = {str(problem["loc"][0]) for problem in problems}
        if unread & NEEDED:
            raise invalid(error) from error
        kept = {name: value for name, value in body.items() if name not in unread}
        return ChatRequest.model_validate(kept), tuple(sorted(unread))


def unread_chat(model: str, *, stream: bool) -> ChatRequest:
    """A request that is passed on whatever it says."""
    return ChatRequest.model_construct(model=model, messages=[], stream=stream)


def invalid(error: ValidationError, *within: str) -> InvalidRequest:
    """The first problem with a field that is needed, as an error that names it."""
    problems = error.errors(include_url=False, include_input=False)
    needed = [each for each in problems if NEEDED.intersection(map(str, each["loc"][:1]))]
    first = (needed or problems)[0]
    first["loc"] = (*within, *first["loc"])
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
