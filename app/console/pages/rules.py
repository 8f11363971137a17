"""The list of rules: search, filters, pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import HTMLResponse

from app.console.access import LIFTS, At, Text, among, console_router
from rules_store.models.rules import Polarity, RuleFilter, RuleSort, RuleState

router = console_router()

PAGE = 30


@dataclass(frozen=True, slots=True)
class Search:
    """What the list's form sends. An empty field is no filter."""

    q: Text = ""
    namespace: Text = ""
    polarity: Text = ""
    state: Text = ""
    lift: Text = ""
    sort: Text = RuleSort.NEWEST.value
    cursor: Text = ""

    @property
    def filter(self) -> RuleFilter:
        least, most = LIFTS.get(self.lift, (None, None))
        return RuleFilter(
            min_lift=least,
            max_lift=most,
            namespace=self.namespace or None,
            polarity=among(Polarity, self.polarity),
            state=among(RuleState, self.state),
            text=self.q.strip() or None,
        )


@router.get("/rules")
async def list_rules(desk: At, search: Annotated[Search, Depends()]) -> HTMLResponse:
    sort = among(RuleSort, search.sort) or RuleSort.NEWEST
    page = await desk.state.store.rules.list(
        search.filter, sort=sort, limit=PAGE, cursor=search.cursor or None
    )
    return desk.page(
        "rules.html",
        page=page,
        standings=await desk.state.store.evidence.standings_of([rule.id for rule in page.items]),
        lifts=list(LIFTS),
        search=search,
        filters={
            "q": search.q,
            "namespace": search.namespace,
            "polarity": search.polarity,
            "state": search.state,
            "lift": search.lift,
            "sort": search.sort,
        },
        namespaces=await desk.state.store.namespaces.names(),
        polarities=list(Polarity),
        states=list(RuleState),
        sorts=list(RuleSort),
    )
