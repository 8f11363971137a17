"""The base of what the API answers, and the answers that are of no one subject.

An entity is one model: `of` makes it of what the store holds, FastAPI serialises it as the
endpoint's return type says, and it documents itself, with an example.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from rules_store.models.feedback import FeedbackSource

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]
Timestamp = Annotated[datetime, PlainSerializer(datetime.isoformat, return_type=str)]

AT = "2026-01-31T12:00:00+00:00"
EPISODE_ID = "ep_0123456789abcdef0123456789abcdef"
RULE_ID = "rule_0123456789abcdef01234567"
RULE_TEXT = "Check a subtraction by adding the parts back together."
JSON_LINES = "application/x-ndjson"


def example(**value: Any) -> ConfigDict:
    """Without nulls: FastAPI drops them from examples."""
    return ConfigDict(json_schema_extra={"examples": [value]})


class ResponseModel(BaseModel):
    model_config = ConfigDict(
        from_attributes=True, json_schema_serialization_defaults_required=True
    )

    @classmethod
    def of(cls, value: Any, /, **others: Any) -> Self:
        """Each field is one of `others`, or else the attribute of that name of `value`."""
        found = {
            name: getattr(value, name)
            for name in cls.model_fields
            if name not in others and hasattr(value, name)
        }
        return cls(**found, **others)


def example_of(model: type[ResponseModel]) -> dict[str, Any]:
    extra: Any = model.model_config["json_schema_extra"]
    found: dict[str, Any] = extra["examples"][0]
    return found


def _example_of_list(schema: dict[str, Any], listing: type[Any]) -> None:
    for model in listing.__pydantic_generic_metadata__["args"]:
        one = {"object": "list", "data": [example_of(model)], "next_cursor": "cnVsZTo0MQ"}
        schema["examples"] = [{**one, "total": 51}]


class ListOf(ResponseModel, Generic[T]):
    """One page. `total` is exact; `next_cursor` is null on the last page."""

    model_config = ConfigDict(json_schema_extra=_example_of_list)

    object: Literal["list"] = "list"
    data: list[T]
    next_cursor: str | None
    total: int

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return f"{params[0].__name__}List"


def refuses(*statuses: int) -> Responses:
    """Refusals that `app.api.openapi` does not see by itself, for a route's `responses`."""
    return {status: {} for status in statuses}


def text(media_type: str, sample: str, *, description: str) -> Responses:
    """An answer that is no JSON document."""
    content = {media_type: {"schema": {"type": "string"}, "example": sample}}
    return {200: {"description": description, "content": content}}


class ErrorDetail(ResponseModel):
    message: str = Field(description="A sentence for people")
    type: str
    param: str | None = Field(description="The field that is wrong, where it is one")
    code: str | None = Field(description="A word for programs")


class Error(ResponseModel):
    """The one shape of every error, on every path."""

    error: ErrorDetail


class Cost(ResponseModel):
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TTCLTold(ResponseModel):
    """What the gateway did for this answer."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    mode: str
    namespace: str
    episode: str | None
    rules: list[dict[str, Any]] = Field(description="Injected rules, in their order")
    exploration: dict[str, Any] | None = None
    cost: Cost
    degraded: list[str] | None = Field(description="What had to be left out")


_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1769860800,
    "model": "SmolLM2-135M-Instruct",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "84"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 38, "completion_tokens": 4, "total_tokens": 42},
    "ttcl": {
        "mode": "steer",
        "namespace": "default",
        "episode": EPISODE_ID,
        "rules": [{"id": RULE_ID, "polarity": "positive", "similarity": 0.71}],
        "cost": {"calls": 1, "prompt_tokens": 38, "completion_tokens": 4, "total_tokens": 42},
        "degraded": ["episode_not_recorded"],
    },
}


STREAMED = """\
data: {"id": "chatcmpl-0123", "object": "chat.completion.chunk", "choices": [{"index": 0, \
"delta": {"content": "84"}, "finish_reason": null}]}

data: [DONE]

"""
TOLD_HEADERS = {
    "X-TTCL-Mode": "off, steer or explore",
    "X-TTCL-Episode": "Id of the episode; absent in mode off",
    "X-TTCL-Rules": "Ids of the injected rules, by commas",
    "X-TTCL-Degraded": "What had to be left out, as far as it was known",
}


class ChatCompletion(ResponseModel):
    """OpenAI's, as the model server gives it, with `ttcl` but in mode `off`."""

    model_config = ConfigDict(
        extra="allow", json_schema_serialization_defaults_required=False, **example(**_ANSWER)
    )

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    ttcl: TTCLTold | None = None


class Model(ResponseModel):
    model_config = ConfigDict(
        json_schema_serialization_defaults_required=False,
        **example(
            id="SmolLM2-135M-Instruct",
            object="model",
            created=1769860800,
            owned_by="ttcl",
            max_model_len=8192,
        ),
    )

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None = None


class Models(ResponseModel):
    model_config = example(object="list", data=[example_of(Model)])

    object: Literal["list"] = "list"
    data: list[Model]


class Feedback(ResponseModel):
    model_config = example(
        object="feedback",
        id="fb_0123456789abcdef",
        episode_id=EPISODE_ID,
        namespace="default",
        source="verifier",
        score=1.0,
        label="84",
        verified=True,
        comment="Right at once",
        key="ticket-42",
        created_at=AT,
    )

    object: Literal["feedback"] = "feedback"
    id: str
    episode_id: str
    namespace: str
    source: FeedbackSource = Field(description="The strongest signal that was given")
    score: float | None
    label: str | None
    verified: bool | None
    comment: str | None
    key: str | None
    created_at: Timestamp


class Health(ResponseModel):
    model_config = example(status="ok")

    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    model_config = example(
        status="degraded",
        degraded=["embedder"],
        checks={
            "upstream": {"ok": True, "models": ["SmolLM2-135M-Instruct"], "capabilities": {}},
            "database": {"ok": True},
            "index": {
                "ok": True,
                "indexed": 12,
                "stored": 12,
                "without_embedding": 0,
                "events_behind": 0,
            },
            "embedder": {"ok": False, "model": "all-MiniLM-L6-v2", "reason": "loading"},
        },
    )

    status: Literal["ready", "degraded", "unavailable"]
    degraded: list[str] = Field(description="Names of the checks that are not ok")
    checks: dict[str, dict[str, Any]]
