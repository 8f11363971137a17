"""The list of examples: search, filters, pages, changes to many at once; and a new one, written by
hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.responses import Response

from app.api.admin.examples import create_example
from app.api.errors import from_store
from app.api.schemas.common import validated
from app.api.schemas.examples import ExampleCreate
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
from rules_store.models.examples import ExampleFilter, Trust
from rules_store.models.rules import RuleState

router = console_router()

PAGE = 50
HERE = "/console/examples"


@dataclass(frozen=True, slots=True)
class Search(ItemSearch):
    trust: Text = ""
    episode: Text = ""

    def filter(self, within: frozenset[str] | None) -> ExampleFilter:
        """Raises `InvalidRequest`."""
        return ExampleFilter(
            trust=among(Trust, self.trust),
            source_episode=self.episode or None,
            **self.chosen(within),
        )


@router.get("/examples")
async def list_examples(desk: At, search: Annotated[Search, Depends()]) -> Response:
    return await _page(desk, search)


@router.post("/examples")
async def add(desk: At, form: Posted) -> Response:
    try:
        body = validated(
            ExampleCreate,
            namespace=form.get("namespace"),
            question=form.get("question"),
            answer=form.get("answer"),
            label=form.get("label") or None,
            actor=desk.actor,
            reason=form.reason,
        )
        written = await create_example(body, desk.state, desk.caller)
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, Search(), status=known.status, typed=form)
    held = written.state is RuleState.QUARANTINED
    return desk.go(
        f"{HERE}/{written.id}",
        f"Held back until you release it: {words.because(written.reason or 'no reason')}."
        if held
        else "It is recalled from now on.",
    )


@router.post("/examples/bulk")
async def bulk(desk: At, form: Posted) -> Response:
    return await move_picked(desk, form, desk.state.store.examples, page=HERE, noun="example")


async def _page(
    desk: SignedInRequest, search: Search, *, status: int = 200, typed: Form | None = None
) -> Response:
    return await list_page(
        desk,
        desk.state.store.examples,
        search.filter(desk.within),
        search,
        "examples.html",
        size=PAGE,
        status=status,
        typed=typed,
    )
