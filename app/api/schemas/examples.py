"""Examples, their evidence and their conflicts: what comes in (unknown fields refused) and what
goes out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from app.api.schemas.common import (
    AT,
    EPISODE_ID,
    EXAMPLE_ID,
    NamespaceName,
    ResponseModel,
    Timestamp,
    example,
    example_of,
    shortened,
)
from app.api.schemas.curation import PruneBody
from app.api.schemas.rules import (
    LIFT,
    Domain,
    Event,
    Exposure,
    Lift,
    Link,
    Moment,
    Refused,
    Tally,
    VersionedWrite,
    Write,
    lift_of,
)
from app.settings import NAMESPACE_PATTERN
from rules_store.database.json_codec import storable
from rules_store.models.evidence import Evidence as StoredEvidence
from rules_store.models.evidence import Standing
from rules_store.models.examples import Example as StoredExample
from rules_store.models.examples import Trust
from rules_store.models.rules import RuleState
from rules_store.operations.curation import PrunePolicy
from rules_store.policy.lift import NOTHING

MAX_QUESTION_CHARS = 32_000
MAX_ANSWER_CHARS = 32_000
MAX_LABEL_CHARS = 4_000

OTHER_ID = "example_76543210fedcba9876543210"
QUESTION = "My card was charged twice for one coffee."
ANSWER = "transaction_charged_twice"


def _written(text: str) -> str:
    """As a database stores it. Raises ValueError."""
    if not text.strip():
        raise ValueError("must not be blank")
    return storable(text)


Question = Annotated[
    str, Field(min_length=1, max_length=MAX_QUESTION_CHARS), AfterValidator(_written)
]
Answer = Annotated[str, Field(min_length=1, max_length=MAX_ANSWER_CHARS), AfterValidator(_written)]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS), AfterValidator(_written)]
ExampleDomain = Annotated[Domain, AfterValidator(storable)]
ExampleId = Annotated[str, Field(examples=[EXAMPLE_ID])]


class ExampleCreate(Write):
    model_config = example(
        namespace="default",
        question=QUESTION,
        answer=ANSWER,
        label=ANSWER,
        actor="kim",
        reason="from the handbook",
    )

    namespace: str = Field(pattern=NAMESPACE_PATTERN)
    question: Question
    answer: Answer
    label: Label | None = Field(
        None, description="The short right answer; two labels for one question are a conflict"
    )
    domain: ExampleDomain = "default"
    state: RuleState = RuleState.ACTIVE
    trust: Trust = Field(Trust.LABEL, description="What vouches for the answer")
    source_episode: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[^\x00]*$")
    expires_at: Moment | None = Field(
        None, description="Unset: after the namespace's `example_days`, where it has such"
    )


class ExamplePatch(VersionedWrite):
    """What is left out stays as it is. A `label` or `expires_at` of null is taken away."""

    model_config = example(
        label=ANSWER, expected_version=2, actor="kim", reason="the intent was renamed"
    )

    question: Question | None = None
    answer: Answer | None = None
    label: Label | None = None
    domain: ExampleDomain | None = None
    expires_at: Moment | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        given = self.changes()
        if not given:
            raise ValueError("nothing to change: give question, answer, label, domain, expires_at")
        for name in ("question", "answer", "domain"):
            if name in given and given[name] is None:
                raise ValueError(f"{name}: must not be null")
        return self

    def changes(self) -> dict[str, Any]:
        """Only what was given."""
        return self.model_dump(
            exclude=set(VersionedWrite.model_fields), include=self.model_fields_set
        )


class Example(ResponseModel):
    object: Literal["example"] = "example"
    id: ExampleId
    namespace: NamespaceName
    state: RuleState = Field(examples=["active"])
    question: str = Field(description="The user's last turn", examples=[QUESTION])
    answer: str = Field(description="What is shown as the answer", examples=[ANSWER])
    label: str | None = Field(description="The short right answer", examples=[ANSWER])
    domain: str = Field(examples=["default"])
    trust: Trust = Field(description="What vouches for the answer", examples=["label"])
    exposures: int = Field(description="How often it was shown", examples=[17])
    source_episode: str | None = Field(examples=[EPISODE_ID])
    version: int = Field(examples=[2])
    reason: str | None = Field(description="Why it is in its state", examples=["looked at it"])
    verified_at: Timestamp
    expires_at: Timestamp | None = Field(description="Null: never", examples=[AT])
    created_at: Timestamp
    updated_at: Timestamp
    lift: Lift | None = Field(description="Null while there is no evidence", examples=[LIFT])
    cut: list[str] = Field(
        [],
        description="Texts shown by their beginning; GET /examples/{id} has the whole",
        examples=[["answer"]],
    )

    def listed(self) -> Self:
        """As one of many: long texts by their beginning."""
        texts, cut = shortened(
            {"question": self.question, "answer": self.answer}, "question", "answer"
        )
        return self.model_copy(update={**texts, "cut": cut})

    @classmethod
    def of(cls, stored: StoredExample, /, standing: Standing | None = None, **others: Any) -> Self:
        return super().of(stored, lift=lift_of(standing), **others)


class WrittenExample(Example):
    warnings: list[str] = Field(
        description="Checks that object to its texts; a new one waits in quarantine then",
        examples=[["personal_data"]],
    )


class ExampleWithHistory(Example):
    history: list[Event] = Field(description="Newest first", examples=[[example_of(Event)]])


class NearExample(Example):
    score: float = Field(description="The cosine of the two questions", examples=[0.83])


class Conflict(ResponseModel):
    """Two active examples of nearly the same question with different labels: neither is recalled
    until one of them is retired, reworded or quarantined."""

    object: Literal["conflict"] = "conflict"
    similarity: float = Field(description="The cosine of the two questions", examples=[0.97])
    one: Example = Field(examples=[example_of(Example)])
    other: Example = Field(examples=[{**example_of(Example), "id": OTHER_ID, "label": "refund"}])


class Settled(ResponseModel):
    object: Literal["settled"] = "settled"
    kept: Example = Field(examples=[example_of(Example)])
    retired: list[Example] = Field(examples=[[{**example_of(Example), "id": OTHER_ID}]])


class ExamplePruneBody(PruneBody):
    @model_validator(mode="after")
    def _no_similarity(self) -> Self:
        if self.policy is PrunePolicy.SIMILARITY:
            raise ValueError("policy: examples are pruned by fifo, age or utility")
        return self


class PrunedExample(Example):
    prune_reason: str = Field(examples=["among the oldest"])


class ExamplePrune(ResponseModel):
    object: Literal["prune"] = "prune"
    namespace: NamespaceName
    policy: PrunePolicy = Field(examples=["fifo"])
    dry_run: bool = Field(examples=[True])
    token: str = Field(
        description="For the real call: exactly these examples go, or none (409)",
        examples=["3f1c5a"],
    )
    active_before: int = Field(examples=[101])
    active_after: int = Field(examples=[100])
    total: int = Field(examples=[1])
    examples: list[PrunedExample] = Field(examples=[[example_of(PrunedExample)]])


class Held(ResponseModel):
    """A line that was taken in and waits in quarantine."""

    line: int = Field(examples=[2])
    reason: str = Field(examples=["personal_data: an e-mail address"])


class ExampleImport(ResponseModel):
    object: Literal["import"] = "import"
    dry_run: bool = Field(examples=[False])
    imported: int = Field(0, examples=[2])
    skipped: int = Field(
        0, description="The namespace has their question with this answer already", examples=[1]
    )
    refused: list[Refused] = Field([], examples=[[example_of(Refused)]])
    quarantined: list[Held] = Field(
        [],
        description="Of the imported, those with a secret or personal data",
        examples=[[example_of(Held)]],
    )
    evicted: list[str] = Field([], description="Examples retired to keep within the capacity")
    unembedded: int = Field(
        0, description="Written without vectors, which a running gateway brings"
    )


class ExampleEvidence(ResponseModel):
    object: Literal["evidence"] = "evidence"
    example_id: ExampleId
    lift: Lift | None = Field(examples=[LIFT])
    with_example: Tally = Field(examples=[example_of(Tally)])
    without_example: Tally = Field(examples=[{"hits": 7.0, "misses": 4.5, "mean": 0.59}])
    exposures: list[Exposure] = Field(description="Newest first", examples=[[example_of(Exposure)]])
    links: list[Link] = Field(examples=[[example_of(Link)]])

    @classmethod
    def of(cls, found: StoredEvidence, /, **others: Any) -> Self:
        standing = found.standing
        return super().of(
            found,
            lift=lift_of(standing),
            with_example=NOTHING if standing is None else standing.with_rule,
            without_example=NOTHING if standing is None else standing.without_rule,
            exposures=[Exposure.of(each) for each in found.exposures],
            links=[Link.of(each, id=each.other) for each in found.links],
            **others,
        )
