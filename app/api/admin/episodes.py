"""`/admin/v1/episodes` and `/admin/v1/stats`: what happened."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.admin.common import Cursor, Limit, Namespace, known_namespace
from app.api.dependencies import AdminRead, State
from app.api.feedback import feedback_shape
from app.api.schemas.common import gives, lists
from app.api.schemas.rules import Episode, EpisodeWithTrace, Stats, episode_shape, list_shape
from rules_store.models.episodes import EpisodeFilter, EpisodeStatus

router = APIRouter(tags=["episodes"])


@router.get("/episodes", summary="List episodes, newest first", responses=lists(Episode))
async def list_episodes(
    state: State,
    caller: AdminRead,
    namespace: Namespace = None,
    status: EpisodeStatus | None = None,
    mode: Annotated[str | None, Query(pattern="^(steer|explore)$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    await known_namespace(state, namespace)
    where = EpisodeFilter(
        namespace=namespace, namespaces=caller.namespaces, status=status, mode=mode
    )
    page = await state.store.episodes.list(where, limit=limit, cursor=cursor)
    return list_shape(page, [episode_shape(episode, full=False) for episode in page.items])


@router.get(
    "/episodes/{episode_id}",
    summary="One episode with its full trace",
    responses=gives(EpisodeWithTrace),
)
async def get_episode(episode_id: str, state: State, _: AdminRead) -> dict[str, Any]:
    shape = episode_shape(await state.store.episodes.get(episode_id), full=True)
    feedback = await state.store.evidence.feedback_of(episode_id)
    return {**shape, "feedback": [feedback_shape(each) for each in feedback]}


@router.get(
    "/stats",
    summary="Counts of rules, episodes and jobs, and the index against SQL",
    responses=gives(Stats),
)
async def stats(state: State) -> dict[str, Any]:
    return {
        "object": "stats",
        **asdict(await state.store.stats()),
        "index": asdict(await state.store.parity()),
    }
