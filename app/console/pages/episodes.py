"""Episodes: the list, one request's whole story, and what its right answer was."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import HTMLResponse, Response

from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.feedback import FeedbackBody
from app.console import words
from app.console.access import (
    At,
    Form,
    Id,
    Posted,
    SignedInRequest,
    Text,
    among,
    console_router,
)
from app.console.episode_view import CASES, evidence_of
from app.console.lists import dates
from app.console.rendering import rules_and_examples
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError
from rules_store.models.episodes import PLAYGROUND, EpisodeFilter, EpisodeStatus, Verdict
from rules_store.models.examples import ExampleFilter
from rules_store.models.feedback import FeedbackEffect, NewFeedback
from rules_store.models.rules import RuleState

router = console_router()

PAGE = 40
EXAMPLES = 10
FEEDBACK = {"good": "found right", "bad": "found wrong", "any": "any"}


@dataclass(frozen=True, slots=True)
class Search:
    """What the list's form sends. An empty field is no filter."""

    q: Text = ""
    namespace: Text = ""
    status: Text = ""
    mode: Text = ""
    feedback: Text = ""
    since: Text = ""
    until: Text = ""
    cursor: Text = ""

    def filter(self, within: frozenset[str] | None) -> EpisodeFilter:
        """Raises `InvalidRequest`."""
        made = dates(self.since, self.until)
        return EpisodeFilter(
            namespace=self.namespace or None,
            namespaces=within,
            status=among(EpisodeStatus, self.status),
            mode=self.mode if self.mode in words.MODES else None,
            text=self.q.strip() or None,
            feedback=among(Verdict, self.feedback),
            created_after=made.since,
            created_before=made.until,
        )


@router.get("/episodes")
async def list_episodes(desk: At, search: Annotated[Search, Depends()]) -> HTMLResponse:
    store = desk.state.store
    page = await store.episodes.list(
        search.filter(desk.within), limit=PAGE, cursor=search.cursor or None
    )
    filters = asdict(search)
    del filters["cursor"]
    return desk.page(
        "episodes.html",
        page=page,
        feedback=await store.evidence.feedback_of_each([each.id for each in page.items]),
        search=search,
        filters=filters,
        narrowed=any(filters.values()),
        namespaces=await desk.namespaces(),
        judged=FEEDBACK,
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
            comment=f"{desk.actor}: {form.reason}",
            key=form.get("key") or None,
        )
        new = NewFeedback(**body.model_dump(exclude={"episode_id", "request_id"}))
        given = await desk.state.feedback.take(episode, new, learn=True, key_id=desk.caller.name)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, episode_id, status=known.status, typed=form)
    return desk.go(f"/console/episodes/{episode_id}", followed(given.effect))


@router.post("/episodes/{episode_id}/judge")
async def judge(episode_id: Id, desk: At, form: Posted) -> Response:
    """A thumb, or the right answer: what `POST /v1/feedback` does with the same words."""
    episode = await desk.state.store.episodes.get(episode_id)
    body = validated(
        FeedbackBody,
        episode_id=episode_id,
        score=THUMBS.get(form.get("thumb")),
        label=form.get("label") or None,
        correction=form.get("correction") or None,
        comment=f"{desk.actor}, in the console",
        key=form.get("key") or None,
    )
    new = NewFeedback(**body.model_dump(exclude={"episode_id", "request_id"}))
    given = await desk.state.feedback.take(episode, new, learn=True, key_id=desk.caller.name)
    page = f"/console/episodes/{episode_id}"
    if form.get("back") == PLAYGROUND:
        page = f"/console/playground?episode={episode_id}#result"
    return desk.go(page, followed(given.effect))


THUMBS = {"up": 1.0, "down": 0.0}
VERDICTS = {"right": True, "wrong": False}


def followed(effect: FeedbackEffect) -> str:
    """What followed from a feedback, as a sentence or several."""
    said = ["Taken."]
    if effect.example is not None:
        state = effect.example_state or RuleState.ACTIVE.value
        held = "" if state == RuleState.ACTIVE else f", {words.STATES.get(state, state)}"
        said.append(f"It is kept as an example{held}.")
    elif effect.skipped is not None and effect.skipped != "outdated":
        said.append(f"It made no example: {words.because(effect.skipped)}.")
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
