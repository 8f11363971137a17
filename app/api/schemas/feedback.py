"""What clients send as feedback."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from app.api.schemas.common import example
from app.api.schemas.rules import NO_NUL

SIGNALS = ("score", "label", "verified", "correction")
MOST_ITEMS = 1000
LONGEST_LABEL = 4000
LONGEST_CORRECTION = 32_000
LONGEST_COMMENT = 4000
NOT_BLANK = r"\S"


class FeedbackBody(BaseModel):
    """About one answer. What it says is evidence for or against what steered the answer; a right
    answer, or the right one instead of a wrong one, becomes an example."""

    model_config = ConfigDict(
        extra="forbid", **example(episode_id="ep_0123456789abcdef", label="84", key="ticket-42")
    )

    episode_id: str | None = Field(
        None, min_length=1, max_length=100, pattern=NO_NUL, description="Of X-TTCL-Episode"
    )
    request_id: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        pattern=NO_NUL,
        description="In place of it: the X-Request-ID that the client gave its request",
    )
    score: float | None = Field(None, ge=0, le=1, strict=True, allow_inf_nan=False)
    label: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_LABEL,
        pattern=NOT_BLANK,
        description="The right answer, as somebody knows it",
    )
    verified: StrictBool | None = Field(
        None, description="A verifier's result: whether the answer was right"
    )
    correction: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_CORRECTION,
        pattern=NOT_BLANK,
        description="A better answer in full, for open tasks",
    )
    outdated: StrictBool = Field(
        False, description="True: the answer is right no more, and its examples are retired"
    )
    comment: str | None = Field(None, max_length=LONGEST_COMMENT)
    key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Your own: sent twice for an episode, it is counted once",
    )

    @model_validator(mode="after")
    def _about_one_answer(self) -> FeedbackBody:
        if (self.episode_id is None) == (self.request_id is None):
            raise ValueError("give exactly one of episode_id, request_id")
        if not self.outdated and all(getattr(self, name) is None for name in SIGNALS):
            raise ValueError(f"give at least one of {', '.join(SIGNALS)}, outdated")
        return self


class FeedbackBatchBody(BaseModel):
    """At most 1,000 items, each as the body of `POST /v1/feedback`."""

    model_config = ConfigDict(
        extra="forbid",
        **example(
            items=[
                {"request_id": "ticket-41", "label": "card_arrival"},
                {"episode_id": "ep_0123456789abcdef", "verified": True},
            ]
        ),
    )

    items: list[Any] = Field(min_length=1, max_length=MOST_ITEMS)
