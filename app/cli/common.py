"""What the commands on the store share: where they print, and the store while they use it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.settings import Settings, load_settings
from rules_store.models.namespaces import MAX_ACTOR_CHARS
from rules_store.store import RuleStore

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)

AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")]
Namespace = Annotated[str | None, typer.Option(help="Only this namespace")]


def _actor(given: str) -> str:
    if not 0 < len(given) <= MAX_ACTOR_CHARS:
        raise typer.BadParameter(f"1 to {MAX_ACTOR_CHARS} characters")
    return given


Actor = Annotated[str, typer.Option(help="Who does it, for the event log", callback=_actor)]
Reason = Annotated[str, typer.Option(help="Why, for the event log")]


@asynccontextmanager
async def opened_store(settings: Settings | None = None) -> AsyncIterator[RuleStore]:
    """The store that a gateway of these settings would use."""
    from app.wiring.factories import build_embedder, open_store

    settings = settings or load_settings()
    # The embedder is only asked for its name; its model is never loaded.
    store = await open_store(settings, build_embedder(settings).name)
    try:
        yield store
    finally:
        await store.close()


def print_json(value: BaseModel | dict[str, Any]) -> None:
    """One line."""
    shown = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    sys.stdout.write(json.dumps(shown) + "\n")


def table(columns: str) -> Table:
    """An empty table; `columns` are separated by blanks, and an id is never broken."""
    made = Table(box=None, pad_edge=False)
    for column in columns.split():
        made.add_column(column, overflow="fold", no_wrap=column == "id")
    return made


def add_row(to: Table, *cells: object) -> None:
    """Cells are plain text: what a model wrote is no markup."""
    to.add_row(*(Text(str(cell)) for cell in cells))
