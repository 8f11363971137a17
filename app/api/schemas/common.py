"""The base of what the API answers, and the answers that are of no one subject.

An entity is one model: `of` makes it of what the store holds, FastAPI serialises it as the
endpoint's return type says, and it documents itself: each field has its example, none of them null,
since FastAPI drops nulls from examples.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from app.chat.request import param_name
from app.domain.bounds import LONGEST_LISTED
from app.exceptions import InvalidRequest
from rules_store.models.examples import Given
from rules_store.models.feedback import Feedback as StoredFeedback
from rules_store.models.feedback import FeedbackSource

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Responses = dict[int | str, dict[str, Any]]

AT = "2026-01-31T12:00:00+00:00"
EPISODE_ID = "ep_0123456789abcdef0123456789abcdef"
EXAMPLE_ID = "example_0123456789abcdef01234567"
RULE_ID = "rule_0123456789abcdef01234567"
RULE_TEXT = "Check a subtraction by adding the parts back together."

Timestamp = Annotated[
    datetime, PlainSerializer(datetime.isoformat, return_type=str), Field(examples=[AT])
]
NamespaceName = Annotated[str, Field(examples=["support"])]
RuleId = Annotated[str, Field(examples=[RULE_ID])]
EpisodeId = Annotated[str, Field(examples=[EPISODE_ID])]
KeyId = Annotated[
    str | None,
    Field(
        description="On whose behalf: the id of an API key, `environment-1` for the first of "
        "TTCL_API_KEYS, `admin`, `anyone`; null where it was not noted",
        examples=["key_0123456789abcdef"],
    ),
]
ModelId = Annotated[str, Field(examples=["SmolLM2-135M-Instruct"])]
Actor = Annotated[str, Field(examples=["kim"])]


def shortened(row: dict[str, Any], *names: str) -> tuple[dict[str, Any], list[str]]:
    """`row` with what is long of these texts cut to their beginning, and the names of those."""
    cut = [name for name in names if len(row.get(name) or "") > LONGEST_LISTED]
    return row | {name: f"{row[name][: LONGEST_LISTED - 1]}\u2026" for name in cut}, cut


def example(**value: Any) -> ConfigDict:
    """Of a request's body."""
    return ConfigDict(json_schema_extra={"examples": [value]})


def example_of(model: type[BaseModel]) -> dict[str, Any]:
    """The examples of its fields, or their defaults."""
    return {
        name: field.examples[0] if field.examples else field.default
        for name, field in model.model_fields.items()
        if field.examples or not field.is_required()
    }


def _with_example(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """One example of the whole in place of one of each field; an answer has no defaults."""
    for field in schema["properties"].values():
        field.pop("examples", None)
        field.pop("default", None)
    if found := example_of(model):
        schema["examples"] = [found]


class ResponseModel(BaseModel):
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_with_example,
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


def _with_example_of_list(schema: dict[str, Any], listing: type[Any]) -> None:
    _with_example(schema, listing)
    (model,) = listing.__pydantic_generic_metadata__["args"]
    schema["examples"][0]["data"] = [example_of(model)]


class ListOf(ResponseModel, Generic[T]):
    """One page. `total` is exact; `next_cursor` is null on the last page."""

    model_config = ConfigDict(json_schema_extra=_with_example_of_list)

    object: Literal["list"] = "list"
    data: list[T]
    next_cursor: str | None = Field(examples=["cnVsZTo0MQ"])
    total: int = Field(examples=[51])

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
    code: str | int | None = Field(
        description="A word for programs; some model servers say a number"
    )


class Error(ResponseModel):
    """The one shape of every error, on every path."""

    error: ErrorDetail


class Cost(ResponseModel):
    calls: int = Field(examples=[1])
    prompt_tokens: int = Field(examples=[38])
    completion_tokens: int = Field(examples=[4])
    total_tokens: int = Field(examples=[42])


class TTCLTold(ResponseModel):
    """What the gateway did for this answer."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    mode: str = Field(examples=["steer"])
    namespace: NamespaceName
    episode: str | None = Field(examples=[EPISODE_ID])
    rules: list[dict[str, Any]] = Field(
        description="Injected rules, in their order",
        examples=[[{"id": RULE_ID, "polarity": "positive", "similarity": 0.71}]],
    )
    examples: list[dict[str, Any]] = Field(
        description="Injected examples, nearest first",
        examples=[[{"id": EXAMPLE_ID, "trust": "label", "similarity": 0.83}]],
    )
    given: Given = Field(description="Which kinds of experience it got", examples=["both"])
    exploration: dict[str, Any] | None = None
    cost: Cost = Field(examples=[example_of(Cost)])
    degraded: list[str] | None = Field(
        description="What had to be left out", examples=[["episode_not_recorded"]]
    )


STREAMED = """\
data: {"id": "chatcmpl-0123", "object": "chat.completion.chunk", "choices": [{"index": 0, \
"delta": {"content": "84"}, "finish_reason": null}]}

data: [DONE]

"""
TOLD_HEADERS = {
    "X-TTCL-Mode": "off, steer or explore",
    "X-TTCL-Episode": "Id of the episode; absent in mode off",
    "X-TTCL-Rules": "Ids of the injected rules, by commas",
    "X-TTCL-Examples": "Ids of the injected examples, by commas",
    "X-TTCL-Degraded": "What had to be left out, as far as it was known",
}


class ChatCompletion(ResponseModel):
    """OpenAI's, as the model server gives it, with `ttcl` but in mode `off`."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=False)

    id: str = Field(examples=["chatcmpl-0123456789abcdef"])
    object: Literal["chat.completion"] = Field(examples=["chat.completion"])
    created: int = Field(examples=[1769860800])
    model: ModelId
    choices: list[dict[str, Any]] = Field(
        examples=[
            [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "84"},
                    "finish_reason": "stop",
                }
            ]
        ]
    )
    usage: dict[str, Any] | None = Field(
        None, examples=[{"prompt_tokens": 38, "completion_tokens": 4, "total_tokens": 42}]
    )
    ttcl: TTCLTold | None = Field(None, examples=[example_of(TTCLTold)])


class Model(ResponseModel):
    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    id: ModelId
    object: Literal["model"] = Field(examples=["model"])
    created: int = Field(examples=[1769860800])
    owned_by: str = Field(examples=["ttcl"])
    max_model_len: int | None = Field(None, examples=[8192])


class Models(ResponseModel):
    object: Literal["list"] = "list"
    data: list[Model] = Field(examples=[[example_of(Model)]])


class FeedbackEffect(ResponseModel):
    """What followed at once; what takes a call of the model follows later, in the background."""

    right: bool | None = Field(
        description="Whether the answer was right, as far as this feedback says", examples=[True]
    )
    example: str | None = Field(
        description="The example that it made or confirmed", examples=[EXAMPLE_ID]
    )
    example_state: str | None = Field(
        description="`candidate`: a right answer with its steps is looked for first; "
        "`quarantined`: a person has to look at it first",
        examples=["active"],
    )
    lesson: bool = Field(
        description="Whether rules will be distilled from right against wrong", examples=[False]
    )
    retired: list[str] = Field(description="Examples that it retired", examples=[[]])
    skipped: str | None = Field(
        description="Why it made no example, where it judged the answer",
        examples=["right_answer_unknown"],
    )


class Feedback(ResponseModel):
    object: Literal["feedback"] = "feedback"
    id: str = Field(examples=["fb_0123456789abcdef"])
    episode_id: EpisodeId
    namespace: NamespaceName
    source: FeedbackSource = Field(
        description="The strongest signal that was given", examples=["verifier"]
    )
    score: float | None = Field(examples=[1.0])
    label: str | None = Field(examples=["84"])
    verified: bool | None = Field(examples=[True])
    correction: str | None = Field(examples=["Twelve times seven is 84."])
    outdated: bool = Field(examples=[False])
    comment: str | None = Field(examples=["Right at once"])
    key: str | None = Field(examples=["ticket-42"])
    effect: FeedbackEffect = Field(examples=[example_of(FeedbackEffect)])
    created_at: Timestamp


class FeedbackRecord(Feedback):
    """As operators see it."""

    key_id: KeyId


class FeedbackItem(ResponseModel):
    """What became of one item of a batch: as if it had been sent alone."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    index: int = Field(description="Its place in the batch, from 0", examples=[0])
    status: int = Field(examples=[201])
    id: str | None = Field(None, examples=["fb_0123456789abcdef"])
    episode_id: str | None = Field(None, examples=[EPISODE_ID])
    effect: FeedbackEffect | None = Field(None, examples=[example_of(FeedbackEffect)])
    error: ErrorDetail | None = None

    @classmethod
    def taken(cls, index: int, given: StoredFeedback) -> FeedbackItem:
        effect = FeedbackEffect.of(given.effect)
        return cls(index=index, status=201, id=given.id, episode_id=given.episode_id, effect=effect)


class FeedbackBatch(ResponseModel):
    object: Literal["feedback.batch"] = "feedback.batch"
    taken: int = Field(examples=[1])
    refused: int = Field(examples=[0])
    data: list[FeedbackItem] = Field(examples=[[example_of(FeedbackItem)]])


class Service(ResponseModel):
    service: Literal["ttcl"] = "ttcl"
    description: str = "An OpenAI-compatible gateway whose answers are steered by learned rules"
    version: str = Field(examples=["1.0.0"])
    places: dict[str, str] = Field(
        description="Paths by what is there", examples=[{"chat": "/v1/chat/completions"}]
    )


class Health(ResponseModel):
    status: Literal["ok"] = "ok"


_CHECKS: dict[str, Any] = {
    "upstream": {"ok": True, "models": ["SmolLM2-135M-Instruct"], "capabilities": {}},
    "database": {"ok": True},
    "index": {
        "ok": True,
        "indexed": 12,
        "stored": 12,
        "without_embedding": 0,
        "examples_indexed": 40,
        "examples_stored": 40,
        "examples_without_embedding": 0,
        "events_behind": 0,
    },
    "embedder": {"ok": False, "model": "all-MiniLM-L6-v2", "reason": "loading"},
}


class Readiness(ResponseModel):
    status: Literal["ready", "degraded", "unavailable"] = Field(examples=["degraded"])
    degraded: list[str] = Field(
        description="Names of the checks that are not ok", examples=[["embedder"]]
    )
    checks: dict[str, dict[str, Any]] = Field(examples=[_CHECKS])


def validated(model: type[M], **fields: Any) -> M:
    """For what comes in another way than as a body of the API, with the same checks. Raises
    `InvalidRequest`, naming the field."""
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = param_name(tuple(first["loc"])) or "form"
        raise InvalidRequest(f"{param}: {first['msg']}", param=param) from error
