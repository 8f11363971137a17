"""Rules and examples that are held back until somebody decides."""

from __future__ import annotations

from fastapi.responses import HTMLResponse

from app.console.access import At, Text, console_router
from rules_store.models.examples import ExampleFilter
from rules_store.models.rules import RuleFilter, RuleState

router = console_router()

PAGE = 30
EXAMPLES = 20


@router.get("/quarantine")
async def quarantine(desk: At, namespace: Text = "", cursor: Text = "") -> HTMLResponse:
    chosen = namespace or None
    where = RuleFilter(namespace=chosen, namespaces=desk.within, state=RuleState.QUARANTINED)
    page = await desk.state.store.rules.list(where, limit=PAGE, cursor=cursor or None)
    held = ExampleFilter(namespace=chosen, namespaces=desk.within, state=RuleState.QUARANTINED)
    return desk.page(
        "quarantine.html",
        page=page,
        examples=await desk.state.store.examples.list(held, limit=EXAMPLES),
        namespace=namespace,
        cursor=cursor,
        filters={"namespace": namespace},
        namespaces=await desk.namespaces(),
    )
