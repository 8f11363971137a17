"""`ttcl rules`: the rules in the store, read where they are stored."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.settings import load_settings
from rules_store.types import Page, Polarity, Rule, RuleFilter, RuleState

app = typer.Typer(no_args_is_help=True, help="Look at the rules in the store.")

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)

AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")]
Namespace = Annotated[str | None, typer.Option(help="Only this namespace")]


@app.command("list")
def rules_list(
    namespace: Namespace = None,
    polarity: Annotated[Polarity | None, typer.Option()] = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rules shown")] = 50,
    as_json: AsJson = False,
) -> None:
    """List rules, newest first."""
    where = RuleFilter(namespace=namespace, polarity=polarity, state=state)
    _show(asyncio.run(_page(where, limit)), as_json)


@app.command("search")
def rules_search(
    text: Annotated[str, typer.Argument(help="Text in the rule or its trigger")],
    namespace: Namespace = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Find rules by text."""
    _show(asyncio.run(_page(RuleFilter(namespace=namespace, text=text), limit)), as_json)


@app.command("show")
def rules_show(rule_id: str, as_json: AsJson = False) -> None:
    """One rule with its history."""
    from app.api.schemas import event_shape, rule_shape

    async def read() -> dict[str, Any]:
        store = await _store()
        try:
            rule = await store.get_rule(rule_id)
            events = await store.rule_events(rule_id)
        finally:
            await store.close()
        return {**rule_shape(rule), "history": [event_shape(event) for event in events]}

    shown = asyncio.run(read())
    if as_json:
        sys.stdout.write(json.dumps(shown) + "\n")
        return
    for key, value in shown.items():
        if key != "history":
            out.print(f"[bold]{key:>15}[/bold]  ", end="")
            out.print(str(value), markup=False)
    for event in shown["history"]:
        line = f"{event['at']}  {event['kind']}  by {event['actor']}  {event['reason'] or ''}"
        out.print(line, markup=False)


async def _store() -> Any:
    from app.main import build_embedder, open_store

    settings = load_settings()
    # The embedder is only asked for its name; its model is never loaded.
    return await open_store(settings, build_embedder(settings).name)


async def _page(where: RuleFilter, limit: int) -> Page:
    store = await _store()
    try:
        return await store.list_rules(where, limit=limit)  # type: ignore[no-any-return]
    finally:
        await store.close()


def _show(page: Page, as_json: bool) -> None:
    rules: list[Rule] = page.items
    if as_json:
        from app.api.schemas import rule_shape

        for rule in rules:
            sys.stdout.write(json.dumps(rule_shape(rule)) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "namespace", "polarity", "state", "freq", "used", "rule"):
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for rule in rules:
        table.add_row(
            rule.id,
            rule.namespace,
            rule.polarity.value,
            rule.state.value,
            str(rule.frequency),
            str(rule.exposures),
            rule.text,
        )
    out.print(table, markup=False)
    err.print(f"{len(rules)} of {page.total}")
