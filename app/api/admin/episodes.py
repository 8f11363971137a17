"""`/admin/v1/episodes` and `/admin/v1/stats`: what happened."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.admin.common import Cursor, Limit, Namespace, known_namespace
from app.api.dependencies import AdminRead, State
from app.api.schemas.common import ListOf
from app.api.schemas.rules import Episode, EpisodeWithTrace, Stats
from rules_store.models.episodes import EpisodeFilter, EpisodeStatus

router = APIRouter(tags=["episodes"])


@router.get("/episodes", summary="List episodes, newest first")
async def list_episodes(
    state: State,
    caller: AdminRead,
    namespace: Namespace = None,
    status: EpisodeStatus | None = None,
    mode: Annotated[str | None, Query(pattern="^(steer|explore)$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[Episode]:
    await known_namespace(state, namespace)
    where = EpisodeFilter(
        namespace=namespace, namespaces=caller.namespaces, status=status, mode=mode
    )
    page = await state.store.episodes.list(where, limit=limit, cursor=cursor)
    return ListOf[Episode].of(page, data=[Episode.listed(episode) for episode in page.items])


@router.get("/episodes/{episode_id}", summary="One episode with its full trace")
async def get_episode(episode_id: str, state: State, _: AdminRead) -> EpisodeWithTrace:
    episode = await state.store.episodes.get(episode_id)
    return EpisodeWithTrace.of(episode, feedback=await state.store.evidence.feedback_of(episode_id))


@router.get("/stats", summary="Counts of all that is stored, and the index against SQL")
async def stats(state: State) -> Stats:
    return Stats.of(await state.store.stats(), index=await state.store.parity())
