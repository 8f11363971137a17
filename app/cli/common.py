"""What the commands share: where they print, and the store while they use it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.settings import load_settings
from app.wiring.factories import opened_store
from rules_store.models.namespaces import MAX_ACTOR_CHARS
from rules_store.store import RuleStore

T = TypeVar("T")

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


def with_store(work: Callable[[RuleStore], Coroutine[Any, Any, T]]) -> T:
    """What `work` gives on the store that a gateway of these settings would use."""

    async def run() -> T:
        async with opened_store(load_settings()) as store:
            return await work(store)

    return asyncio.run(run())


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


def lines(*texts: str) -> None:
    """As they are: no markup, nothing broken."""
    for text in texts:
        out.print(text, markup=False, soft_wrap=True)


def shortened(text: str, most: int = 60) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
