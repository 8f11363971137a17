"""`POST /v1/feedback`: what became of an answer, by the id of its episode."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from app.api.dependencies import Client, State
from app.api.schemas.common import Feedback, example, refuses
from app.api.schemas.rules import NO_NUL
from app.exceptions import InvalidRequest, NotFound
from app.wiring.container import AppState
from rules_store.errors import UnknownEpisode
from rules_store.models.episodes import Episode
from rules_store.models.evidence import Outcome, Signal
from rules_store.models.feedback import FeedbackSource, NewFeedback
from rules_store.models.keys import Permission

# Whoever sends JSON to chat without saying so sends feedback so too.
router = APIRouter(tags=["chat"], strict_content_type=False)

SIGNALS = ("score", "label", "verified")
IDEMPOTENCY_HEADER = "Idempotency-Key"

IdempotencyKey = Annotated[
    str | None,
    Header(alias=IDEMPOTENCY_HEADER, min_length=1, max_length=200, description="As `key`"),
]


class FeedbackBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", **example(episode_id="ep_0123456789abcdef", score=1.0, key="ticket-42")
    )

    episode_id: str = Field(
        min_length=1, max_length=100, pattern=NO_NUL, description="Of X-TTCL-Episode"
    )
    score: float | None = Field(None, ge=0, le=1, strict=True, allow_inf_nan=False)
    label: str | None = Field(
        None, min_length=1, max_length=4000, description="The right answer, as somebody knows it"
    )
    verified: StrictBool | None = Field(
        None, description="A verifier's result: whether the answer was right"
    )
    comment: str | None = Field(None, max_length=4000)
    key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Your own: sent twice for an episode, it is counted once",
    )

    @model_validator(mode="after")
    def _some_signal(self) -> FeedbackBody:
        if all(getattr(self, name) is None for name in SIGNALS):
            raise ValueError(f"give at least one of {', '.join(SIGNALS)}")
        return self


@router.post(
    "/v1/feedback",
    status_code=201,
    summary="Say how good an answer was",
    responses=refuses(404, 409, 429),
)
async def give_feedback(
    body: FeedbackBody,
    state: State,
    caller: Client,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Feedback:
    """The feedback as it is stored; under a `key` used before for this episode, the first one."""
    allowance = state.meter.admit(caller)
    if body.key is not None and idempotency_key not in (None, body.key):
        raise InvalidRequest(f"key: differs from the header {IDEMPOTENCY_HEADER}", param="key")
    episode = await _episode(state, caller, body.episode_id)
    sent = body.model_dump(exclude={"episode_id", "key"})
    new = NewFeedback(**sent, key=body.key or idempotency_key)
    # Of whom nothing is learned, no evidence is taken either.
    outcome = None
    if caller.may(Permission.LEARN):
        outcome = await _outcome(state, episode, new)
    given = await state.store.evidence.add_feedback(body.episode_id, new, outcome)
    if allowance is not None:
        response.headers.update(allowance.headers())
    return Feedback.of(given)


async def _outcome(state: AppState, episode: Episode, new: NewFeedback) -> Outcome | None:
    """What the strongest signal of a feedback says about the answer; None where it says nothing
    that can be read."""
    if new.source is FeedbackSource.VERIFIER:
        return Outcome(Signal.VERIFIER, float(bool(new.verified)))
    if new.source is FeedbackSource.CLIENT:
        return None if new.score is None else Outcome(Signal.CLIENT, new.score)
    if episode.answer is None or new.label is None:
        return None
    value = await state.judge.label(episode.question, episode.answer, new.label)
    return None if value is None else Outcome(Signal.LABEL, value)


async def _episode(state: AppState, caller: Client, episode_id: str) -> Episode:
    """An episode of another's namespace is none. Raises `NotFound`."""
    try:
        episode = await state.store.episodes.get(episode_id)
        if caller.reaches(episode.namespace):
            return episode
    except UnknownEpisode:
        pass
    raise NotFound(
        f"There is no episode '{episode_id}'", param="episode_id", code="episode_not_found"
    )
