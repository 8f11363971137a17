"""Episodes: the list, one request's whole story, and what its right answer was."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import HTMLResponse, Response

from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.feedback import FeedbackBody
from app.console.access import At, Form, Id, Posted, SignedInRequest, Text, console_router
from app.console.episode_view import CASES, evidence_of
from app.console.rendering import rules_and_examples, words
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError
from rules_store.models.episodes import EpisodeFilter, EpisodeStatus
from rules_store.models.examples import ExampleFilter
from rules_store.models.feedback import FeedbackEffect, NewFeedback
from rules_store.models.keys import ADMIN
from rules_store.models.rules import RuleState

router = console_router()

PAGE = 30
EXAMPLES = 10
MODES = ("steer", "explore")


@dataclass(frozen=True, slots=True)
class Search:
    """What the list's form sends. An empty field is no filter."""

    namespace: Text = ""
    status: Text = ""
    mode: Text = ""
    cursor: Text = ""

    @property
    def filter(self) -> EpisodeFilter:
        known = self.status in list(EpisodeStatus)
        return EpisodeFilter(
            namespace=self.namespace or None,
            status=EpisodeStatus(self.status) if known else None,
            mode=self.mode if self.mode in MODES else None,
        )


@router.get("/episodes")
async def list_episodes(desk: At, search: Annotated[Search, Depends()]) -> HTMLResponse:
    page = await desk.state.store.episodes.list(
        search.filter, limit=PAGE, cursor=search.cursor or None
    )
    return desk.page(
        "episodes.html",
        page=page,
        search=search,
        filters={
            "namespace": search.namespace,
            "status": search.status,
            "mode": search.mode,
        },
        namespaces=await desk.state.store.namespaces.names(),
        statuses=list(EpisodeStatus),
        modes=MODES,
    )


@router.get("/episodes/{episode_id}")
async def show(episode_id: Id, desk: At) -> Response:
    return await _page(desk, episode_id)


@router.post("/episodes/{episode_id}/teach")
async def teach(episode_id: Id, desk: At, form: Posted) -> Response:
    """What `POST /v1/feedback` does with the same words."""
    episode = await desk.state.store.episodes.get(episode_id)
    try:
        body = validated(
            FeedbackBody,
            episode_id=episode_id,
            label=form.get("label") or None,
            correction=form.get("correction") or None,
            verified=VERDICTS.get(form.get("verdict")),
            outdated=form.get("verdict") == "outdated",
            comment=f"{desk.session.actor}: {form.reason}",
            key=form.get("key") or None,
        )
        new = NewFeedback(**body.model_dump(exclude={"episode_id", "request_id"}))
        given = await desk.state.feedback.take(episode, new, learn=True, key_id=ADMIN)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, episode_id, status=known.status, typed=form)
    return desk.go(f"/console/episodes/{episode_id}", _followed(given.effect))


VERDICTS = {"right": True, "wrong": False}
SKIPPED = {
    "right_answer_unknown": "nobody has said what is right",
    "examples_off": "the namespace keeps none",
    "learning_off": "the namespace does not learn",
}


def _followed(effect: FeedbackEffect) -> str:
    """What followed from a feedback, as a sentence or several."""
    said = ["Taken."]
    if effect.example is not None:
        held = effect.example_state not in (None, RuleState.ACTIVE)
        said.append(f"It made an example{f' ({effect.example_state})' if held else ''}.")
    elif effect.skipped is not None and effect.skipped != "outdated":
        why = SKIPPED.get(effect.skipped, words(effect.skipped))
        said.append(f"It made no example: {why}.")
    if effect.lesson:
        said.append("A rule may follow from it.")
    if effect.retired:
        said.append(f"{rules_and_examples(0, len(effect.retired))} retired.")
    return " ".join(said)


async def _page(
    desk: SignedInRequest, episode_id: str, *, status: int = 200, typed: Form | None = None
) -> Response:
    store = desk.state.store
    episode = await store.episodes.get(episode_id)
    of_it = ExampleFilter(namespace=episode.namespace, source_episode=episode_id)
    return desk.page(
        "episode.html",
        status=status,
        episode=episode,
        trace=episode.trace,
        evidence=evidence_of(episode),
        cases=CASES,
        feedback=await store.evidence.feedback_of(episode_id),
        made=await store.examples.list(of_it, limit=EXAMPLES),
        typed=typed.fields if typed else {},
        key=f"console-{secrets.token_hex(8)}",
    )
