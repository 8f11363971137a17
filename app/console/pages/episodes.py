"""Episodes: the list, and one request's whole story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import HTMLResponse

from app.console.access import At, Id, Text, console_router
from app.console.episode_view import CASES, evidence_of
from rules_store.models.episodes import EpisodeFilter, EpisodeStatus
from rules_store.models.examples import ExampleFilter

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
async def show(episode_id: Id, desk: At) -> HTMLResponse:
    store = desk.state.store
    episode = await store.episodes.get(episode_id)
    of_it = ExampleFilter(namespace=episode.namespace, source_episode=episode_id)
    return desk.page(
        "episode.html",
        episode=episode,
        trace=episode.trace,
        evidence=evidence_of(episode),
        cases=CASES,
        feedback=await store.evidence.feedback_of(episode_id),
        made=await store.examples.list(of_it, limit=EXAMPLES),
    )
