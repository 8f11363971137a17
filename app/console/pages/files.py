"""The console's style sheet and script."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import Request
from fastapi.responses import Response

from app.console.access import console_router
from app.exceptions import NotFound

router = console_router()

KINDS = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
}


@router.get("/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    """Raises `NotFound`. The browser asks again each time; an unchanged file is a 304."""
    if name not in KINDS:
        raise NotFound(f"There is no file '{name}'")
    body = files("app.console").joinpath("static", name).read_bytes()
    headers = {
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=KINDS[name], headers=headers)
