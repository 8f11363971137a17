"""What answers look like, for the OpenAPI document: shapes with an example each.

No answer is validated or rebuilt at run time; `tests/app/api/test_openapi.py` holds the answers of
a running gateway against these.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rules_store.models.feedback import FeedbackSource

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]

AT = "2026-01-31T12:00:00+00:00"
EPISODE_ID = "ep_0123456789abcdef0123456789abcdef"
RULE_ID = "rule_0123456789abcdef01234567"
RULE_TEXT = "Check a subtraction by adding the parts back together."
JSON_LINES = "application/x-ndjson"


def example(**value: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class Shape(BaseModel):
    """Base of all that an answer is made of; `app.api.openapi` documents its subclasses."""


def example_of(shape: type[Shape]) -> dict[str, Any]:
    extra: Any = shape.model_config["json_schema_extra"]
    found: dict[str, Any] = extra["examples"][0]
    return found


def _example_of_list(schema: dict[str, Any], listing: type[Any]) -> None:
    for shape in listing.__pydantic_generic_metadata__["args"]:
        one = {"object": "list", "data": [example_of(shape)], "next_cursor": None, "total": 1}
        schema["examples"] = [one]


class ListOf(Shape, Generic[T]):
    """One page. `total` is exact; `next_cursor` is null on the last page."""

    model_config = ConfigDict(json_schema_extra=_example_of_list)

    object: Literal["list"]
    data: list[T]
    next_cursor: str | None
    total: int

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return f"{params[0].__name__}List"


def gives(
    shape: type[Shape],
    *,
    status: int = 200,
    description: str = "Done",
    also: tuple[int, ...] = (),
) -> Responses:
    """`also`: refusals that `app.api.openapi` does not see by itself."""
    documented = {"model": shape, "description": description}
    return {status: documented, **{refusal: {} for refusal in also}}


def lists(shape: type[Shape]) -> Responses:
    page = ListOf[shape]  # type: ignore[valid-type]
    return gives(page, description="One page")


def text(media_type: str, sample: str, *, description: str) -> Responses:
    """An answer that is no JSON document."""
    content = {media_type: {"schema": {"type": "string"}, "example": sample}}
    return {200: {"description": description, "content": content}}


class ErrorDetail(Shape):
    message: str = Field(description="A sentence for people")
    type: str
    param: str | None = Field(description="The field that is wrong, where it is one")
    code: str | None = Field(description="A word for programs")


class Error(Shape):
    """The one shape of every error, on every path."""

    error: ErrorDetail


class Cost(Shape):
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TTCLTold(Shape):
    """What the gateway did for this answer."""

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
            "logprobs": None,
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
        "exploration": None,
        "degraded": None,
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


class ChatCompletion(Shape):
    """OpenAI's, as the model server gives it, with `ttcl` but in mode `off`."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_ANSWER]})

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    ttcl: TTCLTold | None = None


_MODEL: dict[str, Any] = {
    "id": "SmolLM2-135M-Instruct",
    "object": "model",
    "created": 1769860800,
    "owned_by": "ttcl",
    "max_model_len": 8192,
}


class Model(Shape):
    model_config = example(**_MODEL)

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None = None


class Models(Shape):
    model_config = example(object="list", data=[_MODEL])

    object: Literal["list"]
    data: list[Model]


class Feedback(Shape):
    model_config = example(
        object="feedback",
        id="fb_0123456789abcdef",
        episode_id=EPISODE_ID,
        namespace="default",
        source="client",
        score=1.0,
        label=None,
        verified=None,
        comment="Right at once",
        key="ticket-42",
        created_at=AT,
    )

    object: Literal["feedback"]
    id: str
    episode_id: str
    namespace: str
    source: FeedbackSource = Field(description="The strongest signal that was given")
    score: float | None
    label: str | None
    verified: bool | None
    comment: str | None
    key: str | None
    created_at: str


class Health(Shape):
    model_config = example(status="ok")

    status: Literal["ok"]


class Readiness(Shape):
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
