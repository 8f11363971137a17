"""The console at `/console`: server-rendered pages over the same functions as the admin API."""

from __future__ import annotations

from fastapi import FastAPI

from app.access.throttle import Throttle
from app.console.access import Console
from app.console.pages import (
    conflicts,
    effect,
    episodes,
    events,
    example,
    examples,
    explain,
    files,
    jobs,
    keys,
    login,
    namespaces,
    not_found,
    overview,
    playground,
    prune,
    quarantine,
    rollback,
    rule,
    rules,
    settings,
    transfer,
)
from app.console.rendering import Pages

PARTS = (
    files,
    login,
    overview,
    playground,
    effect,
    rules,
    rule,
    examples,
    example,
    conflicts,
    quarantine,
    episodes,
    namespaces,
    rollback,
    settings,
    transfer,
    keys,
    events,
    jobs,
    prune,
    explain,
    not_found,
)


def install(app: FastAPI) -> None:
    """Adds the pages, and what they share, to the application."""
    app.state.console = Console(Pages(), Throttle())
    for part in PARTS:
        app.include_router(part.router)
