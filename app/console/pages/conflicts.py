"""Examples that contradict each other, side by side, until somebody says which one is right."""

from __future__ import annotations

from fastapi.responses import HTMLResponse

from app.console.access import At, Text, console_router

router = console_router()

PAGE = 20


@router.get("/conflicts")
async def conflicts(desk: At, namespace: Text = "", cursor: Text = "") -> HTMLResponse:
    page = await desk.state.store.examples.conflicts(
        namespace or None, within=desk.within, limit=PAGE, cursor=cursor or None
    )
    return desk.page(
        "conflicts.html",
        page=page,
        namespace=namespace,
        cursor=cursor,
        filters={"namespace": namespace},
        namespaces=await desk.namespaces(),
    )
