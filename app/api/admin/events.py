"""`/admin/v1/events`: the log of every change, by whom and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api.admin.common import Cursor, Limit, Namespace
from app.api.dependencies import AdminRead, State
from app.api.schemas.common import ListOf
from app.api.schemas.namespaces import LARGEST_ID
from app.api.schemas.rules import NO_NUL, Event, Moment
from rules_store.models.events import EventFilter
from rules_store.models.namespaces import MAX_ACTOR_CHARS

router = APIRouter(tags=["events"])

Text = Annotated[str | None, Query(max_length=MAX_ACTOR_CHARS, pattern=NO_NUL)]
EventId = Annotated[int | None, Query(ge=0, le=LARGEST_ID)]


@router.get("/events", summary="List events, newest first")
async def list_events(
    state: State,
    caller: AdminRead,
    namespace: Namespace = None,
    rule_id: Text = None,
    example_id: Text = None,
    kind: Annotated[
        str | None,
        Query(
            max_length=100,
            pattern=r"^[a-z_.]+$",
            description="One kind, or with a dot at its end all that begin so: `rule.`, `example.`",
        ),
    ] = None,
    actor: Text = None,
    since_event: EventId = None,
    until_event: EventId = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[Event]:
    # Of a namespace that was deleted, the event of its deletion is still there.
    where = EventFilter(
        namespace=namespace,
        rule_id=rule_id,
        example_id=example_id,
        kind=kind,
        actor=actor,
        since_event=since_event,
        until_event=until_event,
        since=since,
        until=until,
        within=caller.namespaces,
    )
    page = await state.store.history.events(where, limit=limit, cursor=cursor)
    return ListOf[Event].of(page, data=[Event.listed(each) for each in page.items])


@router.get("/events/{event_id}", summary="One event, with the whole of its texts")
async def get_event(
    event_id: Annotated[int, Path(ge=1, le=LARGEST_ID)], state: State, caller: AdminRead
) -> Event:
    return Event.of(await state.store.history.event(event_id, within=caller.namespaces))
