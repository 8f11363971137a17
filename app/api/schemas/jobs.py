"""What the endpoints of jobs take and give."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from app.api.schemas.common import AT, EPISODE_ID, ResponseModel, Timestamp, example
from app.api.schemas.rules import Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.jobs import JobRecord, JobState


class PauseBody(Write):
    model_config = example(namespace="default", actor="kim", reason="maintenance")

    namespace: str | None = Field(
        None, pattern=NAMESPACE_PATTERN, description="Unset: learning of every namespace"
    )


class Job(ResponseModel):
    model_config = example(
        object="job",
        id=7,
        episode=EPISODE_ID,
        namespace="support",
        state="failed",
        attempts=3,
        last_error="the model server did not answer",
        not_before=AT,
        created_at=AT,
        updated_at=AT,
    )

    object: Literal["job"] = "job"
    id: int
    episode: str
    namespace: str
    state: JobState
    attempts: int
    last_error: str | None
    not_before: Timestamp
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, job: JobRecord, /, **others: Any) -> Self:
        return super().of(job, episode=job.episode_id, **others)


class Pauses(ResponseModel):
    model_config = example(object="pauses", all=False, namespaces=["support"])

    object: Literal["pauses"] = "pauses"
    all: bool
    namespaces: list[str]
