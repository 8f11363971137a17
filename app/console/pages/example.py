"""One example: what vouches for it, where it was shown, and what can be done with it."""

from __future__ import annotations

from fastapi.responses import Response

from app.api.admin.examples import vector_of
from app.api.schemas.common import validated
from app.api.schemas.examples import ExamplePatch
from app.console.access import At, Form, Id, Posted, SignedInRequest, Text, console_router
from app.console.changing import Action, Move, carry_out, moving
from app.loop.admission.examples import objections
from rules_store.models.examples import Example

router = console_router()

HISTORY = 30
SHOWN = 50
"""Requests that it was shown to, or withheld from."""


@router.get("/examples/{example_id}")
async def show(example_id: Id, desk: At, cursor: Text = "") -> Response:
    return await _page(desk, example_id, cursor=cursor or None)


@router.post("/examples/{example_id}/edit")
async def edit(example_id: Id, desk: At, form: Posted) -> Response:
    async def action() -> Example:
        body = validated(
            ExamplePatch,
            question=form.get("question"),
            answer=form.get("answer"),
            label=form.get("label") or None,
            domain=form.get("domain"),
            expires_at=_moment(form.get("expires_at")),
            actor=desk.actor,
            reason=form.reason,
            expected_version=form.number("expected_version"),
        )
        before = await desk.state.store.examples.get(example_id)
        vector = None
        if body.question is not None and body.question != before.question:
            vector = await vector_of(desk.state, body.question)
        return await desk.state.store.examples.patch(
            example_id,
            **body.changes(),
            vector=vector,
            expected_version=body.expected_version,
            change=body.change,
        )

    return await _act(desk, example_id, action, "Saved as version {version}.", form)


@router.post("/examples/{example_id}/retire")
async def retire(example_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.examples.retire
    return await _move(desk, example_id, move, "Retired: it is shown no more.", form)


@router.post("/examples/{example_id}/restore")
async def restore(example_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.examples.restore
    return await _move(desk, example_id, move, "Restored: it is recalled from now on.", form)


@router.post("/examples/{example_id}/quarantine")
async def quarantine(example_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.examples.quarantine
    return await _move(desk, example_id, move, "In quarantine: it is shown no more.", form)


@router.post("/examples/{example_id}/release")
async def release(example_id: Id, desk: At, form: Posted) -> Response:
    move = desk.state.store.examples.release
    return await _move(desk, example_id, move, "Released: it is recalled from now on.", form)


@router.post("/examples/{example_id}/settle")
async def settle(example_id: Id, desk: At, form: Posted) -> Response:
    """This one is right: those that contradict it retire."""

    async def action() -> Example:
        await desk.state.store.examples.settle(
            example_id,
            change=desk.change(form.reason),
            expected_version=form.number("expected_version"),
        )
        return await desk.state.store.examples.get(example_id)

    return await _act(desk, example_id, action, "Settled: what contradicts it is retired.", form)


async def _move(
    desk: SignedInRequest, example_id: str, move: Move, done: str, form: Form
) -> Response:
    return await _act(desk, example_id, moving(desk, example_id, move, form), done, form)


async def _act(
    desk: SignedInRequest, example_id: str, action: Action, done: str, form: Form
) -> Response:
    async def refused(status: int) -> Response:
        return await _page(desk, example_id, status=status, typed=form)

    page = f"/console/examples/{example_id}"
    return await carry_out(desk, action, form, page=page, done=done, refused=refused)


async def _page(
    desk: SignedInRequest,
    example_id: str,
    *,
    status: int = 200,
    typed: Form | None = None,
    cursor: str | None = None,
) -> Response:
    store = desk.state.store
    example = await store.examples.get(example_id)
    worth = await store.evidence.of_example(example_id, limit=SHOWN)
    return desk.page(
        "example.html",
        status=status,
        example=example,
        history=await store.examples.history(example_id, limit=HISTORY, cursor=cursor),
        worth=worth,
        rivals=await store.examples.rivals(example_id),
        warnings=objections(example.question, example.answer, example.label),
        typed=typed.fields if typed else None,
    )


def _moment(text: str) -> str | None:
    """What a date field sends, as the start of that day in UTC; anything else as it is."""
    return f"{text}T00:00:00Z" if len(text) == 10 else text or None
