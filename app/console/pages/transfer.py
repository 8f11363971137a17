"""Rules and examples out of the service and into it, as JSON lines."""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response

from app.api import examples_jsonl, jsonl, rules_jsonl
from app.api.dependencies import unknown_namespace
from app.api.errors import from_store
from app.console.access import (
    At,
    Id,
    SignedInRequest,
    Text,
    Uploaded,
    among,
    console_router,
)
from app.console.rendering import HEADERS
from app.exceptions import InvalidRequest
from rules_store.errors import StoreError
from rules_store.models.examples import ExampleFilter, Trust
from rules_store.models.rules import RuleFilter, RuleState

router = console_router()

KINDS = {"rules": "rules", "examples": "examples"}


@router.get("/transfer")
async def transfer(desk: At, namespace: Text = "", kind: Text = "rules") -> Response:
    return await _page(desk, {"namespace": namespace, "kind": kind})


@router.get("/export/{kind}")
async def export(kind: Id, desk: At, namespace: Text = "", state: Text = "") -> Response:
    """A file with every rule or example, with its vectors. Raises `NotFound`."""
    store = desk.state.store
    if namespace and not await store.namespaces.exists(namespace):
        raise unknown_namespace(namespace)
    chosen: dict[str, Any] = {
        "namespace": namespace or None,
        "namespaces": desk.within,
        "state": among(RuleState, state),
    }
    if kind == "examples":
        lines = examples_jsonl.export_lines(store, ExampleFilter(**chosen), vectors=True)
    else:
        kind = "rules"
        lines = rules_jsonl.export_lines(store, RuleFilter(**chosen), vectors=True)
    name = f"{namespace or 'all'}-{kind}.jsonl"
    response = jsonl.download(lines, name)
    response.headers.update(HEADERS)
    return response


@router.post("/transfer")
async def take_in(desk: At, form: Uploaded) -> Response:
    """What the file would do, or does."""
    state, dry = desk.state, not form.get("apply")
    try:
        content = form.fields.get("lines", "").encode()
        if not content.strip():
            raise InvalidRequest("Choose a file, or paste its lines", param="lines")
        reason = form.get("reason") if dry else form.reason
        order = jsonl.Order(
            form.get("namespace") or None, dry, desk.actor, reason, desk.caller.reaches
        )
        if form.get("kind") == "examples":
            report: Any = await examples_jsonl.import_lines(
                state.store, state.embedder, content, order, trust=Trust.LABEL
            )
        else:
            report = await rules_jsonl.import_lines(
                state.store, state.embedder, content, order, trust=bool(form.get("trust"))
            )
    except (StoreError, InvalidRequest) as error:
        known = from_store(error) if isinstance(error, StoreError) else error
        desk.problem(known.message)
        return await _page(desk, form.fields, status=known.status)
    return await _page(desk, form.fields, report=report)


async def _page(
    desk: SignedInRequest, typed: dict[str, str], *, status: int = 200, report: Any = None
) -> Response:
    return desk.page(
        "transfer.html",
        status=status,
        typed=typed,
        kinds=KINDS,
        namespaces=await desk.namespaces(),
        report=report,
    )
