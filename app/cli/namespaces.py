"""`ttcl namespaces`, and `ttcl rules rollback`: namespaces looked at and changed where they are
stored. A running gateway takes changes up within a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from app.api.schemas.namespaces import (
    namespace_shape,
    rollback_shape,
    snapshot_shape,
    summary_shape,
)
from app.cli.common import (
    Actor,
    AsJson,
    Reason,
    add_row,
    err,
    opened_store,
    out,
    print_json,
    table,
)
from app.exceptions import InvalidRequest
from app.settings import NAMESPACE
from rules_store.models.events import Change, Rollback, RollbackTarget
from rules_store.models.namespaces import (
    DEFAULTS,
    SETTING_NAMES,
    Namespace,
    NamespaceSummary,
)
from rules_store.models.rules import Pruning
from rules_store.store import RuleStore

app = typer.Typer(no_args_is_help=True, help="Namespaces: set up, freeze, roll back, delete.")

T = TypeVar("T")
SHOWN = 30
"""Changes of a rollback that people see; JSON has more."""

Assignments = Annotated[
    list[str] | None,
    typer.Argument(help="SETTING=VALUE; an empty value goes back to the service's own"),
]


@app.command("list")
def namespaces_list(as_json: AsJson = False) -> None:
    """Every namespace with what is in it."""

    async def read(store: RuleStore) -> list[NamespaceSummary]:
        found: list[NamespaceSummary] = []
        cursor = None
        while True:
            page = await store.namespaces.list(limit=500, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    summaries = _run(read)
    if as_json:
        for each in summaries:
            print_json(summary_shape(each))
        return
    shown = table("namespace active candidate quarantined retired episodes waiting state")
    for each in summaries:
        rules = [each.rules.get(s, 0) for s in ("active", "candidate", "quarantined", "retired")]
        states = [word for word, holds in _states(each) if holds]
        add_row(
            shown,
            each.namespace.name,
            *rules,
            sum(each.episodes.values()),
            each.jobs.get("pending", 0),
            ", ".join(states) or "-",
        )
    out.print(shown)


@app.command("show")
def namespaces_show(name: str, as_json: AsJson = False) -> None:
    """One namespace with its settings and what is in it."""
    shape = summary_shape(_run(lambda store: store.namespaces.summary(name)))
    _show(shape, as_json)


@app.command("create")
def namespaces_create(
    name: str,
    settings: Assignments = None,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a namespace (its first use would, too)."""
    if not NAMESPACE.match(name):
        raise InvalidRequest("NAME: 1 to 64 letters, digits, '_', '.', '-'", param="name")
    given = DEFAULTS.changed(_parsed(settings or []))
    made = _run(lambda store: store.namespaces.create(name, given, change=Change(actor, reason)))
    _show(namespace_shape(made), as_json)


@app.command("set")
def namespaces_set(
    name: str,
    settings: Assignments = None,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change settings of a namespace: `ttcl namespaces set NAME learn=false capacity=200`."""
    given = _parsed(settings or [])
    if not given:
        known = ", ".join(sorted(SETTING_NAMES))
        raise InvalidRequest(f"nothing to set: give SETTING=VALUE of {known}", param="settings")
    done = _run(
        lambda store: store.namespaces.change_settings(name, given, change=Change(actor, reason))
    )
    _show(namespace_shape(done), as_json)


@app.command("freeze")
def namespaces_freeze(
    name: str, actor: Actor = "cli", reason: Reason = "", as_json: AsJson = False
) -> None:
    """Let nobody change the rules of a namespace."""
    done = _run(lambda store: store.namespaces.freeze(name, change=Change(actor, reason)))
    _show(namespace_shape(done), as_json)


@app.command("unfreeze")
def namespaces_unfreeze(
    name: str, actor: Actor = "cli", reason: Reason = "", as_json: AsJson = False
) -> None:
    """Let a frozen namespace change again."""
    done = _run(lambda store: store.namespaces.unfreeze(name, change=Change(actor, reason)))
    _show(namespace_shape(done), as_json)


@app.command("snapshot")
def namespaces_snapshot(
    name: str, label: str, actor: Actor = "cli", reason: Reason = "", as_json: AsJson = False
) -> None:
    """Name this point of a namespace's history, to roll back to."""
    made = _run(lambda store: store.history.snapshot(name, label, change=Change(actor, reason)))
    _show(snapshot_shape(made), as_json)


@app.command("rollback")
def rollback(
    name: str,
    to_event: Annotated[int | None, typer.Option(min=1, help="Rules as after this event")] = None,
    to_time: Annotated[
        datetime | None, typer.Option(help="Rules as they were then", formats=["%Y-%m-%dT%H:%M:%S"])
    ] = None,
    to_snapshot: Annotated[str | None, typer.Option(help="A snapshot's label")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would change")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    actor: Actor = "cli",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take all rules of a namespace back to how they once were (times are UTC).

    A rule that gets an old text back steers again once a running gateway has embedded it, which
    takes seconds.
    """
    if sum(given is not None for given in (to_event, to_time, to_snapshot)) != 1:
        raise InvalidRequest("give exactly one of --to-event, --to-time and --to-snapshot")
    when = None if to_time is None else to_time.replace(tzinfo=UTC)
    target = RollbackTarget(to_event, when, to_snapshot)
    plan = _run(lambda store: store.history.plan_rollback(name, target))
    if not as_json:
        _show_rollback(plan)
    if dry_run:
        if as_json:
            print_json(rollback_shape(plan))
        return
    if not yes:
        typer.confirm(f"Change {len(plan.changes)} rules of {name}?", abort=True, err=True)
    # The event by now: a time must not move it. And what was shown is done, or nothing.
    fixed = RollbackTarget(event=plan.to_event)
    done = _run(
        lambda store: store.history.roll_back(
            name, fixed, expected_last=plan.before_event, change=Change(actor, reason)
        )
    )
    if as_json:
        print_json(rollback_shape(done))
    err.print(f"{len(done.changes)} rules changed; --to-event {done.before_event} undoes it")


@app.command("delete")
def namespaces_delete(
    name: str,
    confirm: Annotated[
        str | None, typer.Option(help="The name again; unset: it is asked for")
    ] = None,
    actor: Actor = "cli",
    reason: Reason = "",
) -> None:
    """Delete a namespace with its rules, episodes, jobs and history. There is no way back."""
    if confirm is None:
        confirm = typer.prompt(f"Everything in {name} goes. Its name again", err=True)
    if confirm != name:
        raise InvalidRequest("--confirm: must be the namespace's name", param="confirm")
    gone = _run(lambda store: store.namespaces.delete(name, change=Change(actor, reason)))
    err.print(f"{gone.rules} rules, {gone.episodes} episodes and {gone.jobs} jobs deleted")


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
        err.print(f"{_run(write)} rows")
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error


def _run(work: Callable[[RuleStore], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with opened_store() as store:
            return await work(store)

    return asyncio.run(run())


def _parsed(assignments: list[str]) -> dict[str, Any]:
    """Raises `InvalidRequest`; whether a value fits its setting is for the store to say."""
    given: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in SETTING_NAMES:
            known = ", ".join(sorted(SETTING_NAMES))
            raise InvalidRequest(f"{assignment}: not SETTING=VALUE of {known}", param=name)
        given[name] = _value(name, text.strip())
    return given


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    if name == "policy":
        return text
    try:
        if name == "pruning":
            return Pruning(text)
        if name == "learn":
            return {"true": True, "false": False}[text.lower()]
        return float(text) if name in ("sample_rate", "similarity_floor") else int(text)
    except (KeyError, ValueError) as error:
        raise InvalidRequest(f"{name}: {text!r} is no value for it", param=name) from error


def _states(summary: NamespaceSummary) -> list[tuple[str, bool]]:
    namespace: Namespace = summary.namespace
    return [("frozen", namespace.frozen), ("paused", summary.paused)]


def _show(shape: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(shape)
        return
    shown = table("what value")
    for key, value in shape.items():
        if isinstance(value, dict):
            for inner, each in value.items():
                # Counts of nothing are left out; a setting of 0 is one.
                if each is not None and (each != 0 or key == "settings"):
                    add_row(shown, f"{key}.{inner}", each)
        else:
            add_row(shown, key, value)
    out.print(shown)


def _show_rollback(plan: Rollback) -> None:
    shape = rollback_shape(plan)
    shown = table("id before after rule")
    for change in shape["changes"][:SHOWN]:
        add_row(
            shown,
            change["rule"],
            _listed(change["before"]),
            _listed(change["after"]),
            change["text"],
        )
    out.print(shown)
    err.print(
        f"{shape['changed']} rules change, {shape['retired']} of them retire because they came "
        f"after event {plan.to_event}"
    )


def _listed(changed: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in changed.items() if name != "reason")
