"""What the endpoints of jobs take and give."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from app.api.schemas.common import (
    EpisodeId,
    KeyId,
    NamespaceName,
    ResponseModel,
    Timestamp,
    example,
)
from app.api.schemas.rules import Write
from app.settings import NAMESPACE_PATTERN
from rules_store.models.jobs import JobKind, JobRecord, JobState


class PauseBody(Write):
    model_config = example(namespace="default", actor="kim", reason="maintenance")

    namespace: str | None = Field(
        None, pattern=NAMESPACE_PATTERN, description="Unset: learning of every namespace"
    )


class Job(ResponseModel):
    object: Literal["job"] = "job"
    id: int = Field(examples=[7])
    kind: JobKind = Field(
        description="What it learns from: the episode, or feedback on it", examples=["episode"]
    )
    episode: EpisodeId
    namespace: NamespaceName
    state: JobState = Field(examples=["failed"])
    attempts: int = Field(examples=[3])
    lost: int = Field(
        description="Tries whose process ended before them: no attempts, but with the second one "
        "the job is set aside",
        examples=[0],
    )
    last_error: str | None = Field(examples=["the model server did not answer"])
    not_before: Timestamp
    created_at: Timestamp
    updated_at: Timestamp
    key_id: KeyId

    @classmethod
    def of(cls, job: JobRecord, /, **others: Any) -> Self:
        return super().of(job, episode=job.episode_id, **others)


class Pauses(ResponseModel):
    object: Literal["pauses"] = "pauses"
    all: bool = Field(examples=[False])
    namespaces: list[str] = Field(examples=[["support"]])
