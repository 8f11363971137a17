"""The list of rules: search, filters, pages, changes to many at once; and a new one, written by
hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import Response

from app.api.admin.rules import create_rule
from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.rules import RuleCreate
from app.console import words
from app.console.access import (
    LIFTS,
    At,
    Form,
    Posted,
    SignedInRequest,
    Text,
    among,
    console_router,
)
from app.console.lists import MOVES, dates, move_picked
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError
from rules_store.models.rules import Polarity, RuleFilter, RuleSort, RuleState

router = console_router()

PAGE = 30
HERE = "/console/rules"


@dataclass(frozen=True, slots=True)
class Search:
    """What the list's form sends. An empty field is no filter."""

    q: Text = ""
    namespace: Text = ""
    polarity: Text = ""
    state: Text = ""
    lift: Text = ""
    since: Text = ""
    until: Text = ""
    sort: Text = RuleSort.NEWEST.value
    cursor: Text = ""

    def filter(self, within: frozenset[str] | None) -> RuleFilter:
        """Raises `InvalidRequest`."""
        least, most = LIFTS.get(self.lift, (None, None))
        made = dates(self.since, self.until)
        return RuleFilter(
            min_lift=least,
            max_lift=most,
            namespace=self.namespace or None,
            namespaces=within,
            polarity=among(Polarity, self.polarity),
            state=among(RuleState, self.state),
            text=self.q.strip() or None,
            created_after=made.since,
            created_before=made.until,
        )


@router.get("/rules")
async def list_rules(desk: At, search: Annotated[Search, Depends()]) -> Response:
    return await _page(desk, search)


@router.post("/rules")
async def add(desk: At, form: Posted) -> Response:
    try:
        body = validated(
            RuleCreate,
            namespace=form.get("namespace"),
            polarity=form.get("polarity"),
            text=form.get("text"),
            trigger=form.get("trigger"),
            actor=desk.actor,
            reason=form.reason,
        )
        written = await create_rule(body, desk.state, desk.caller)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, Search(), status=known.status, typed=form)
    doubts = ", ".join(words.because(each) for each in written.warnings)
    return desk.go(
        f"{HERE}/{written.id}",
        f"In use from now on. A check says of it, though: {doubts}."
        if doubts
        else "Requests that it fits get it from now on.",
    )


@router.post("/rules/bulk")
async def bulk(desk: At, form: Posted) -> Response:
    return await move_picked(desk, form, desk.state.store.rules, page=HERE, noun="rule")


async def _page(
    desk: SignedInRequest, search: Search, *, status: int = 200, typed: Form | None = None
) -> Response:
    store = desk.state.store
    sort = among(RuleSort, search.sort) or RuleSort.NEWEST
    page = await store.rules.list(
        search.filter(desk.within), sort=sort, limit=PAGE, cursor=search.cursor or None
    )
    filters = asdict(search)
    del filters["cursor"]
    return desk.page(
        "rules.html",
        status=status,
        page=page,
        standings=await store.evidence.standings_of([rule.id for rule in page.items]),
        search=search,
        filters=filters,
        namespaces=await desk.namespaces(),
        sort=sort.value,
        moves=MOVES,
        typed=typed.fields if typed else None,
        first=desk.state.settings.namespace,
    )
