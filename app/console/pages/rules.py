"""The list of rules: search, filters, pages, changes to many at once; and a new one, written by
hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import Response

from app.api.admin.rules import create_rule
from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.rules import RuleCreate
from app.console import words
from app.console.access import (
    At,
    Form,
    Posted,
    SignedInRequest,
    Text,
    among,
    console_router,
)
from app.console.lists import ItemSearch, list_page, move_picked
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError
from rules_store.models.rules import Polarity, RuleFilter

router = console_router()

PAGE = 30
HERE = "/console/rules"


@dataclass(frozen=True, slots=True)
class Search(ItemSearch):
    polarity: Text = ""

    def filter(self, within: frozenset[str] | None) -> RuleFilter:
        """Raises `InvalidRequest`."""
        return RuleFilter(polarity=among(Polarity, self.polarity), **self.chosen(within))


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
    return await list_page(
        desk,
        desk.state.store.rules,
        search.filter(desk.within),
        search,
        "rules.html",
        size=PAGE,
        status=status,
        typed=typed,
    )
