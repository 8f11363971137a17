"""`ttcl rules`: the rules in the store, read where they are stored."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from app import cli_curation
from app.cli import namespaces
from app.cli.common import (
    AsJson,
    Namespace,
    add_row,
    err,
    opened_store,
    out,
    print_json,
    table,
)
from rules_store.models.evidence import Standing
from rules_store.models.paging import Page
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleState

app = typer.Typer(no_args_is_help=True, help="Look at the rules in the store, and tidy them up.")

app.command("prune")(cli_curation.prune)
app.command("export")(cli_curation.export)
app.command("import")(cli_curation.import_)
app.command("history")(cli_curation.history)
app.command("explain")(cli_curation.explain)
app.command("rollback")(namespaces.rollback)


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
    from app.api.schemas.rules import event_shape, rule_shape

    async def read() -> dict[str, Any]:
        async with opened_store() as store:
            rule = await store.get_rule(rule_id)
            events = await store.rule_events(rule_id)
            known = await store.standings_of([rule_id])
        return {
            **rule_shape(rule, known.get(rule_id)),
            "history": [event_shape(event) for event in events],
        }

    shown = asyncio.run(read())
    if as_json:
        print_json(shown)
        return
    for key, value in shown.items():
        if key != "history":
            out.print(f"[bold]{key:>15}[/bold]  ", end="")
            out.print(str(value), markup=False)
    for event in shown["history"]:
        line = f"{event['at']}  {event['kind']}  by {event['actor']}  {event['reason'] or ''}"
        out.print(line, markup=False)


async def _page(where: RuleFilter, limit: int) -> tuple[Page, dict[str, Standing]]:
    async with opened_store() as store:
        page = await store.list_rules(where, limit=limit)
        return page, await store.standings_of([rule.id for rule in page.items])


def _show(found: tuple[Page, dict[str, Standing]], as_json: bool) -> None:
    page, known = found
    rules: list[Rule] = page.items
    if as_json:
        from app.api.schemas.rules import rule_shape

        for rule in rules:
            print_json(rule_shape(rule, known.get(rule.id)))
        return
    shown = table("id namespace polarity state freq used lift rule")
    for rule in rules:
        add_row(
            shown,
            rule.id,
            rule.namespace,
            rule.polarity.value,
            rule.state.value,
            rule.frequency,
            rule.exposures,
            _lift(known.get(rule.id)),
            rule.text,
        )
    out.print(shown)
    err.print(f"{len(rules)} of {page.total}")


def _lift(standing: Standing | None) -> str:
    return f"{standing.lift.mean:+.2f}" if standing is not None and standing.measured else ""
