"""The console at `/console`: server-rendered pages over the same functions as the admin API."""

from __future__ import annotations

from fastapi import FastAPI

from app.access.throttle import Throttle
from app.console.access import Console
from app.console.pages import (
    conflicts,
    episodes,
    example,
    examples,
    explain,
    files,
    jobs,
    login,
    namespaces,
    not_found,
    overview,
    prune,
    quarantine,
    rollback,
    rule,
    rules,
)
from app.console.rendering import Pages
from app.console.sessions import Sessions

PARTS = (
    files,
    login,
    overview,
    rules,
    rule,
    examples,
    example,
    conflicts,
    quarantine,
    episodes,
    namespaces,
    rollback,
    jobs,
    prune,
    explain,
    not_found,
)


def install(app: FastAPI) -> None:
    """Adds the pages, and what they share, to the application."""
    app.state.console = Console(Pages(), Sessions(), Throttle())
    for part in PARTS:
        app.include_router(part.router)
