"""Addresses of the console that lead nowhere. Comes last: it takes what no other page took."""

from __future__ import annotations

from fastapi.responses import Response

from app.console.access import HOME, At, console_router
from app.console.rendering import redirect
from app.exceptions import NotFound

router = console_router()


@router.get("/{rest:path}")
async def lost(rest: str, desk: At) -> Response:
    """Raises `NotFound`."""
    if not rest:
        return redirect(HOME)
    raise NotFound("There is no such page")
