"""`ttcl rules`: the rules in the store, read and tidied up where they are stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import namespaces
from app.cli.common import (
    Actor,
    AsJson,
    Namespace,
    Reason,
    add_row,
    err,
    loaded_if_needed,
    out,
    print_json,
    read_lines,
    say_pruned,
    table,
    with_store,
    write_lines,
)
from app.cli.operations import add_commands, operations
from app.exceptions import InvalidRequest
from rules_store.models.events import Change
from rules_store.models.namespaces import MOST_EXAMPLES
from rules_store.models.rules import Polarity, RuleFilter, RuleState
from rules_store.operations.curation import PruneOrder, PrunePlan, PrunePolicy

if TYPE_CHECKING:
    from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, add_completion=False)

SHOWN = 30
"""Rows of a preview for people; JSON has them all."""


@app.command("prune")
def prune(
    namespace: str,
    policy: Annotated[PrunePolicy, typer.Option(help="Which rules go first")],
    most: Annotated[int | None, typer.Option("--max", min=0, help="Active rules that stay")] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="For the policy age")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show which rules would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Retire rules of a namespace by a policy: shows which, asks, and does exactly that."""
    try:
        order = PruneOrder(namespace, policy, keep=most, older_than_days=older_than_days)
    except ValueError as error:
        raise InvalidRequest(f"--policy: {error} (--max, --older-than-days)") from error

    plan = with_store(lambda store: store.curation.plan_prune(order))
    _show_pruned(plan, as_json)
    if dry_run or not plan.victims:
        return
    if not yes:
        typer.confirm(f"Retire these {len(plan.victims)} rules?", abort=True, err=True)
    # The token makes it these rules or none, whatever was written since.
    token = plan.token
    with_store(lambda store: store.curation.prune(order, token=token, change=Change(actor, reason)))
    err.print(f"{len(plan.victims)} rules retired; each can be restored")


def _show_pruned(plan: PrunePlan, as_json: bool) -> None:
    if as_json:
        for victim in plan.victims:
            print_json({"id": victim.rule.id, "text": victim.rule.text, "reason": victim.reason})
        return
    shown = table("id freq used why rule")
    for victim in plan.victims[:SHOWN]:
        rule = victim.rule
        add_row(shown, rule.id, rule.frequency, rule.exposures, victim.reason, rule.text)
    out.print(shown)
    say_pruned(plan, "rules", shown=SHOWN)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Unset: standard output")] = None,
    namespace: Namespace = None,
    polarity: Annotated[Polarity | None, typer.Option()] = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    vectors: Annotated[bool, typer.Option(help="An import then embeds nothing")] = True,
) -> None:
    """Write rules as JSON lines."""
    from app.api.rules_jsonl import export_lines

    where = RuleFilter(namespace=namespace, polarity=polarity, state=state)

    written = write_lines(file, lambda store: export_lines(store, where, vectors=vectors))
    err.print(f"{written} rules")


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="JSON lines, as `export` writes them; - is stdin")],
    namespace: Annotated[str | None, typer.Option(help="Instead of the lines' own")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would happen")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Their evidence counts: what steered steers at once")
    ] = False,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take rules in from JSON lines. Exit code 1 when a line was refused.

    Under the policy gated an imported rule proves itself anew, unless you trust where it was."""
    from app.api.jsonl import Order
    from app.api.rules_jsonl import import_lines
    from app.api.schemas.rules import Import
    from app.settings import load_settings
    from app.wiring.factories import build_embedder

    content = read_lines(file, namespace)
    order = Order(namespace, dry_run, actor, reason)
    embedder = build_embedder(load_settings())

    async def import_all(store: RuleStore) -> Import:
        async with loaded_if_needed(embedder, store, content):
            return await import_lines(store, embedder, content, order, trust=trust)

    report = with_store(import_all, creates=True)
    if as_json:
        print_json(report.model_dump(mode="json", exclude={"object"}))
    else:
        for refused in report.refused:
            err.print(f"line {refused.line}: {refused.reason}", markup=False)
        for warned in report.warnings:
            checks = ", ".join(warned.checks)
            err.print(f"line {warned.line}: taken in, but suspect: {checks}", markup=False)
        out.print(
            f"{report.imported} imported, {report.skipped} there already, "
            f"{len(report.refused)} refused, {len(report.evicted)} retired for capacity"
            + (" (dry run)" if dry_run else "")
        )
        if report.unembedded:
            err.print(f"{report.unembedded} rules wait for a running gateway to embed them")
    raise SystemExit(1 if report.refused else 0)


@app.command("explain")
def explain(
    text: Annotated[str, typer.Argument(help="A question, as a user would ask it")],
    namespace: Annotated[str | None, typer.Option(help="Unset: the configured default")] = None,
    domain: Annotated[str, typer.Option(help="Whose prompts")] = "default",
    max_positive: Annotated[int | None, typer.Option(min=0, max=30)] = None,
    max_negative: Annotated[int | None, typer.Option(min=0, max=30)] = None,
    max_examples: Annotated[int | None, typer.Option(min=0, max=MOST_EXAMPLES)] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of a kind are judged")] = 20,
    as_json: AsJson = False,
) -> None:
    """Which rules and examples a question would get, which not and why. Loads the embedding model;
    tokens are estimated, since no model server is asked."""
    from app.api.schemas.rules import Explanation
    from app.cli.explain import explained, show_explanation
    from app.settings import load_settings

    settings = load_settings()
    space = namespace or settings.namespace
    if not text.strip():
        raise InvalidRequest("TEXT: there is no question to find rules by")
    asked = {"positive": max_positive, "negative": max_negative, "examples": max_examples}
    found = asyncio.run(explained(settings, text, space, domain, asked, limit))
    if as_json:
        print_json(Explanation.of(found, namespace=space))
        return
    show_explanation(found)


app.command("rollback")(namespaces.rollback)


@app.command("search")
def rules_search(
    text: Annotated[str, typer.Argument(help="Text in the rule or its trigger")],
    namespace: Namespace = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Find rules by text, as `list --text` does. `near` finds by meaning."""
    from app.cli.local_api import perform

    listing = next(each for each in operations() if each.id == "list_rules")
    given = {"q": text, "limit": limit} | ({} if namespace is None else {"namespace": namespace})
    perform(listing, given, None, as_json)


add_commands(app, "rules")
