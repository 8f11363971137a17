"""`ttcl examples`: verified answers in the store, read, changed and tidied up where they are
stored. A running gateway takes changes up within a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    shortened,
    table,
    with_store,
    write_lines,
)
from app.cli.operations import add_commands
from app.exceptions import InvalidRequest
from rules_store.models.events import Change
from rules_store.models.examples import (
    ExampleFilter,
    Trust,
)
from rules_store.models.rules import RuleState
from rules_store.operations.curation import PruneOrder, PrunePolicy
from rules_store.operations.example_curation import ExamplePrunePlan

if TYPE_CHECKING:
    from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, add_completion=False)

SHOWN = 30
"""Rows of a preview for people; JSON has them all."""
WIDTH = 100
"""Characters of a question or an answer in a table; `show` has the whole."""


@app.command("prune")
def examples_prune(
    namespace: str,
    policy: Annotated[PrunePolicy, typer.Option(help="Which go first: fifo, age or utility")],
    most: Annotated[
        int | None, typer.Option("--max", min=0, help="Active examples that stay")
    ] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="For the policy age")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show which examples would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Retire examples of a namespace by a policy: shows which, asks, and does exactly that."""
    try:
        order = PruneOrder(namespace, policy, keep=most, older_than_days=older_than_days)
    except ValueError as error:
        raise InvalidRequest(f"--policy: {error} (--max, --older-than-days)") from error
    if policy is PrunePolicy.SIMILARITY:
        raise InvalidRequest("--policy: examples are pruned by fifo, age or utility")

    plan = with_store(lambda store: store.examples.plan_prune(order))
    _show_pruned(plan, as_json)
    if dry_run or not plan.victims:
        return
    if not yes:
        typer.confirm(f"Retire these {len(plan.victims)} examples?", abort=True, err=True)
    # The token makes it these examples or none, whatever was written since.
    token = plan.token
    with_store(lambda store: store.examples.prune(order, token=token, change=Change(actor, reason)))
    err.print(f"{len(plan.victims)} examples retired; each can be restored")


def _show_pruned(plan: ExamplePrunePlan, as_json: bool) -> None:
    if as_json:
        for victim in plan.victims:
            one = victim.example
            print_json({"id": one.id, "question": one.question, "reason": victim.reason})
        return
    shown = table("id used why question answer")
    for victim in plan.victims[:SHOWN]:
        one = victim.example
        add_row(
            shown, one.id, one.exposures, victim.reason, _short(one.question), _short(one.answer)
        )
    out.print(shown)
    say_pruned(plan, "examples", shown=SHOWN)


@app.command("export")
def examples_export(
    file: Annotated[Path | None, typer.Argument(help="Unset: standard output")] = None,
    namespace: Namespace = None,
    state: Annotated[RuleState | None, typer.Option()] = None,
    trust: Annotated[Trust | None, typer.Option()] = None,
    vectors: Annotated[bool, typer.Option(help="An import then embeds nothing")] = True,
) -> None:
    """Write examples as JSON lines."""
    from app.api.examples_jsonl import export_lines

    where = ExampleFilter(namespace=namespace, state=state, trust=trust)
    written = write_lines(file, lambda store: export_lines(store, where, vectors=vectors))
    err.print(f"{written} examples")


@app.command("import")
def examples_import(
    file: Annotated[str, typer.Argument(help="JSON lines, as `export` writes them; - is stdin")],
    namespace: Annotated[str | None, typer.Option(help="Instead of the lines' own")] = None,
    trust: Annotated[
        Trust, typer.Option(help="Of lines that name none: you vouch for what you import")
    ] = Trust.LABEL,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would happen")] = False,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take examples in from JSON lines. Exit code 1 when a line was refused."""
    from app.api.examples_jsonl import import_lines
    from app.api.jsonl import Order
    from app.api.schemas.examples import ExampleImport
    from app.settings import load_settings
    from app.wiring.factories import build_embedder

    content = read_lines(file, namespace)
    order = Order(namespace, dry_run, actor, reason)
    embedder = build_embedder(load_settings())

    async def import_all(store: RuleStore) -> ExampleImport:
        async with loaded_if_needed(embedder, store, content):
            return await import_lines(store, embedder, content, order, trust=trust)

    report = with_store(import_all, creates=True)
    if as_json:
        print_json(report.model_dump(mode="json", exclude={"object"}))
    else:
        for refused in report.refused:
            err.print(f"line {refused.line}: {refused.reason}", markup=False)
        for held in report.quarantined:
            err.print(f"line {held.line}: in quarantine, {held.reason}", markup=False)
        out.print(
            f"{report.imported} imported, {report.skipped} there already, "
            f"{len(report.refused)} refused, {len(report.evicted)} retired for capacity"
            + (" (dry run)" if dry_run else "")
        )
        if report.unembedded:
            err.print(f"{report.unembedded} examples wait for a running gateway to embed them")
    raise SystemExit(1 if report.refused else 0)


def _short(text: str) -> str:
    """One line for a table."""
    return shortened(text, WIDTH)


add_commands(app, "examples")
