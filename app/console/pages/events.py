"""The log of every change: who, what, why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import HTMLResponse

from app.console.access import At, Text, console_router
from app.console.lists import dates
from app.console.words import EVENT_GROUPS
from rules_store.models.events import EventFilter
from rules_store.models.keys import ADMIN

router = console_router()

PAGE = 50


@dataclass(frozen=True, slots=True)
class Search:
    """What the list's form sends. An empty field is no filter."""

    namespace: Text = ""
    kind: Text = ""
    actor: Text = ""
    since: Text = ""
    until: Text = ""
    cursor: Text = ""


@router.get("/events")
async def events(desk: At, search: Annotated[Search, Depends()]) -> HTMLResponse:
    made = dates(search.since, search.until)
    where = EventFilter(
        within=desk.within,
        namespace=search.namespace or None,
        kind=search.kind if search.kind in EVENT_GROUPS else None,
        actor=search.actor.strip() or None,
        since=made.since,
        until=made.until,
    )
    page = await desk.state.store.history.events(where, limit=PAGE, cursor=search.cursor or None)
    filters = asdict(search)
    del filters["cursor"]
    return desk.page(
        "events.html",
        page=page,
        search=search,
        filters=filters,
        narrowed=any(filters.values()),
        groups=EVENT_GROUPS,
        namespaces=await desk.namespaces(),
        shared=ADMIN,
    )
