"""What prune, merge and explain take."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.schemas.common import RULE_ID, example
from app.api.schemas.rules import NO_NUL, Write
from app.chat.request import ChatMessage
from app.domain.trajectory import Message
from app.loop.steer.injector import question_of
from app.settings import NAMESPACE_PATTERN
from rules_store.models.namespaces import MOST_EXAMPLES
from rules_store.operations.curation import PruneOrder, PrunePolicy

MOST = 2**31 - 1
MOST_DAYS = 36_500
MOST_MERGED = 200


class PruneBody(Write):
    model_config = example(
        namespace="default", policy="fifo", max=100, dry_run=True, actor="kim", reason="too many"
    )

    namespace: str = Field(pattern=NAMESPACE_PATTERN)
    policy: PrunePolicy
    max: int | None = Field(
        None, ge=0, le=MOST, description="Active ones that stay; not for the policy age"
    )
    older_than_days: float | None = Field(
        None, ge=0, le=MOST_DAYS, description="For the policy age: older ones go"
    )
    dry_run: bool = False
    token: str | None = Field(
        None,
        max_length=100,
        description="Of a dry run: what it showed goes, or nothing (409)",
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        by_age = self.policy is PrunePolicy.AGE
        if by_age and (self.older_than_days is None or self.max is not None):
            raise ValueError("the policy age takes older_than_days, and no max")
        if not by_age and (self.max is None or self.older_than_days is not None):
            raise ValueError(f"the policy {self.policy.value} takes max, and no older_than_days")
        if self.dry_run and self.token is not None:
            raise ValueError("token: a dry run gives one and takes none")
        return self

    def order(self) -> PruneOrder:
        return PruneOrder(
            self.namespace, self.policy, keep=self.max, older_than_days=self.older_than_days
        )


class MergeBody(Write):
    model_config = example(
        into=RULE_ID,
        rules=["rule_76543210fedcba9876543210"],
        actor="kim",
        reason="they say the same",
    )

    into: str = Field(
        min_length=1, max_length=100, pattern=NO_NUL, description="Id of the rule that stays"
    )
    rules: list[Annotated[str, StringConstraints(pattern=NO_NUL)]] = Field(
        min_length=1, max_length=MOST_MERGED
    )
    expected_versions: dict[str, int] | None = Field(
        None, description="By rule id; refused with 409 when a rule has another version by now"
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({self.into, *self.rules}) != len(self.rules) + 1:
            raise ValueError("rules: name each rule once, and not the one that stays")
        if self.expected_versions and len(self.expected_versions) > MOST_MERGED + 1:
            raise ValueError("expected_versions: too many")
        return self


class ExplainBody(BaseModel):
    """A text, or a whole conversation; of that the last user turn is what rules are found by."""

    model_config = ConfigDict(
        extra="forbid",
        **example(namespace="default", text="I had 12 apples and ate 5. How many are left?"),
    )

    namespace: str = Field("default", pattern=NAMESPACE_PATTERN)
    text: str | None = Field(None, max_length=100_000)
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=1000)
    model: str | None = Field(
        None, max_length=256, description="Whose tokenizer and context count; unset: the first"
    )
    domain: str | None = Field(None, max_length=64)
    max_positive: int | None = Field(None, ge=0, le=30)
    max_negative: int | None = Field(None, ge=0, le=30)
    max_examples: int | None = Field(None, ge=0, le=MOST_EXAMPLES)
    limit: int = Field(
        20, ge=1, le=200, description="How many of the nearest rules, and examples, are judged"
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("text: give either text or messages")
        if not self.question().strip():
            raise ValueError("text: there is no question to find rules by")
        return self

    def conversation(self) -> list[Message]:
        if self.messages is None:
            return [{"role": "user", "content": self.text}]
        return [message.model_dump(exclude_unset=True) for message in self.messages]

    def question(self) -> str:
        return question_of(self.conversation())
