"""`GET /`: what answers here, and where its parts are."""

from __future__ import annotations

from fastapi import APIRouter

from app import __version__
from app.api.schemas.common import Service

router = APIRouter(tags=["operation"])

PLACES = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "models": "/v1/models",
    "feedback": "/v1/feedback",
    "admin": "/admin/v1",
    "console": "/console",
    "health": "/healthz",
    "readiness": "/readyz",
    "metrics": "/metrics",
    "documentation": "/docs",
    "openapi": "/openapi.json",
}


@router.get("/", summary="What this is, and where its parts are")
async def about() -> Service:
    return Service(version=__version__, places=PLACES)
