"""`ttcl namespaces`, and `ttcl rules rollback`: namespaces looked at and changed where they are
stored. A running gateway takes changes up within a second."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.answers import show_one
from app.cli.common import (
    Actor,
    AsJson,
    Reason,
    add_row,
    err,
    out,
    print_json,
    table,
    with_store,
)
from app.cli.operations import add_commands
from app.exceptions import InvalidRequest
from rules_store.models.events import Change, Rollback, RollbackTarget
from rules_store.models.namespaces import NamespaceSettings

if TYPE_CHECKING:
    from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, add_completion=False)

KNOWN = ", ".join(sorted(NamespaceSettings.model_fields))
SHOWN = 30
"""Changes of a rollback that people see; JSON has more."""

Assignments = Annotated[
    list[str] | None,
    typer.Argument(help="SETTING=VALUE; an empty value goes back to the service's own"),
]


@app.command("create")
def namespaces_create(
    name: str,
    settings: Assignments = None,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a namespace (its first use would, too)."""
    from app.api.schemas.namespaces import Namespace
    from app.settings import NAMESPACE

    if not NAMESPACE.match(name):
        raise InvalidRequest("NAME: 1 to 64 letters, digits, '_', '.', '-'", param="name")
    given = _parsed(settings or [])
    made = with_store(
        lambda store: store.namespaces.create(name, given, change=Change(actor, reason)),
        creates=True,
    )
    show_one("", Namespace.of(made).model_dump(mode="json"), as_json)


@app.command("set")
def namespaces_set(
    name: str,
    settings: Assignments = None,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change settings of a namespace: `ttcl namespaces set NAME learn=false capacity=200`."""
    from app.api.schemas.namespaces import Namespace

    given = _parsed(settings or []).model_dump(exclude_unset=True)
    if not given:
        raise InvalidRequest(f"nothing to set: give SETTING=VALUE of {KNOWN}", param="settings")
    done = with_store(
        lambda store: store.namespaces.change_settings(name, given, change=Change(actor, reason))
    )
    show_one("", Namespace.of(done).model_dump(mode="json"), as_json)


@app.command("rollback")
def rollback(
    name: str,
    to_event: Annotated[int | None, typer.Option(min=1, help="As after this event")] = None,
    to_time: Annotated[
        datetime | None, typer.Option(help="As they were then", formats=["%Y-%m-%dT%H:%M:%S"])
    ] = None,
    to_snapshot: Annotated[str | None, typer.Option(help="A snapshot's label")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would change")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take all rules and examples of a namespace back to how they once were (times are UTC).

    What gets an old text back steers again once a running gateway has embedded it, which
    takes seconds.
    """
    from app.api.schemas.namespaces import RolledBack

    if sum(given is not None for given in (to_event, to_time, to_snapshot)) != 1:
        raise InvalidRequest("give exactly one of --to-event, --to-time and --to-snapshot")
    when = None if to_time is None else to_time.replace(tzinfo=UTC)
    target = RollbackTarget(to_event, when, to_snapshot)
    plan = with_store(lambda store: store.history.plan_rollback(name, target))
    if not as_json:
        _show_rollback(plan)
    if dry_run:
        if as_json:
            print_json(RolledBack.of(plan))
        return
    if not yes:
        both = f"{len(plan.changes)} rules and {len(plan.examples)} examples"
        typer.confirm(f"Change {both} of {name}?", abort=True, err=True)
    # The event by now: a time must not move it. And what was shown is done, or nothing.
    fixed = RollbackTarget(event=plan.to_event)
    done = with_store(
        lambda store: store.history.roll_back(
            name, fixed, expected_last=plan.before_event, change=Change(actor, reason)
        )
    )
    if as_json:
        print_json(RolledBack.of(done))
    err.print(
        f"{len(done.changes)} rules and {len(done.examples)} examples changed; "
        f"--to-event {done.before_event} undoes it"
    )


@app.command("delete")
def namespaces_delete(
    name: str,
    confirm: Annotated[
        str | None, typer.Option(help="The name again; unset: it is asked for")
    ] = None,
    actor: Actor = "",
    reason: Reason = "",
) -> None:
    """Delete a namespace with all that is in it. There is no way back."""
    if confirm is None:
        confirm = typer.prompt(f"Everything in {name} goes. Its name again", err=True)
    if confirm != name:
        raise InvalidRequest("--confirm: must be the namespace's name", param="confirm")
    gone = with_store(lambda store: store.namespaces.delete(name, change=Change(actor, reason)))
    err.print(
        f"{gone.rules} rules, {gone.examples} examples, {gone.episodes} episodes "
        f"and {gone.jobs} jobs deleted"
    )


@app.command("export")
def namespaces_export(
    name: str, file: Annotated[Path | None, typer.Argument(help="Unset: standard output")] = None
) -> None:
    """Write all that is stored about a namespace as JSON lines: `table` and `row`."""

    async def write(store: RuleStore) -> int:
        rows = 0
        with contextlib.nullcontext(sys.stdout) if file is None else file.open("w") as target:
            async for line in store.namespaces.export(name):
                target.write(json.dumps(line, ensure_ascii=False) + "\n")
                rows += 1
        return rows

    try:
        err.print(f"{with_store(write)} rows")
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error


@app.command("import")
def namespaces_import(
    file: Annotated[str, typer.Argument(help="As `export` writes it; - is standard input")],
    namespace: Annotated[str | None, typer.Option(help="Unset: its own name")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Its evidence counts: what steered steers at once")
    ] = False,
    actor: Actor = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take in all of a namespace, under a name that is free: all of it or nothing.

    Under the policy gated its rules prove themselves anew, unless you trust where it was."""
    from app.api.namespace_jsonl import import_lines
    from app.api.schemas.namespaces import NamespaceImported
    from app.settings import NAMESPACE

    if namespace is not None and not NAMESPACE.match(namespace):
        raise InvalidRequest("--namespace: 1 to 64 letters, digits, '_', '.', '-'")
    given = sys.stdin.buffer.read() if file == "-" else None

    def lines() -> Iterator[bytes]:
        with io.BytesIO(given) if given is not None else Path(file).open("rb") as source:
            yield from source

    change = Change(actor, reason)
    try:
        done = with_store(
            lambda store: import_lines(store, lines, name=namespace, trust=trust, change=change),
            creates=True,
        )
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error
    if as_json:
        print_json(NamespaceImported.of(done))
        return
    out.print(f"{done.name}: {sum(done.rows.values())} rows", markup=False)
    if done.left_out:
        left = ", ".join(f"{count} {table}" for table, count in done.left_out.items())
        err.print(f"left out, since it was measured elsewhere (--trust): {left}", markup=False)


def _parsed(assignments: list[str]) -> NamespaceSettings:
    """Raises `InvalidRequest`, InvalidSetting."""
    given: dict[str, str | None] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in NamespaceSettings.model_fields:
            raise InvalidRequest(f"{assignment}: not SETTING=VALUE of {KNOWN}", param=name)
        given[name] = text.strip() or None
    return NamespaceSettings.read(given)


def _show_rollback(plan: Rollback) -> None:
    from app.api.schemas.namespaces import RolledBack

    rolled = RolledBack.of(plan)
    shown = table("id before after text")
    for change in rolled.changes[:SHOWN]:
        before, after = _listed(change.before), _listed(change.after)
        add_row(shown, change.rule, before, after, change.text)
    for each in rolled.examples[:SHOWN]:
        before, after = _listed(each.before), _listed(each.after)
        add_row(shown, each.example, before, after, each.question)
    out.print(shown)
    err.print(
        f"{rolled.changed} rules and {rolled.examples_changed} examples change, "
        f"{rolled.retired + rolled.examples_retired} of them retire because they came "
        f"after event {plan.to_event}"
    )


def _listed(changed: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in changed.items() if name != "reason")


add_commands(app, "namespaces")
