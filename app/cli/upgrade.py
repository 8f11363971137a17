"""`ttcl upgrade`: the database brought to this version's schema."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import err, print_json, print_lines
from app.settings import Settings, load_settings
from app.wiring.factories import explained, make_data_dir, store_options
from rules_store.database import migrate, parse_url
from rules_store.database.lock import held_alone
from rules_store.database.migrate import SchemaStatus

app = typer.Typer(add_completion=False)


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done")] = False,
    force: Annotated[
        bool,
        typer.Option(help="Though gateways or workers of an older version use the PostgreSQL"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text")] = False,
) -> None:
    """Bring the database to this version's schema, and say what that did; make one where there is
    none."""
    found = asyncio.run(_upgraded(load_settings(), dry_run, force))
    if as_json:
        print_json(_as_json(found, dry_run))
        return
    told = found.database if found.revision else f"{found.database} (new)"
    if found.is_current:
        print_lines(f"{told} has schema {found.head} already: nothing to do")
        return
    print_lines(f"{told}: schema {found.revision or 'none'} -> {found.head}")
    for each in found.pending:
        print_lines(f"  {each.revision}  {each.summary}")
    err.print("nothing was changed: --dry-run" if dry_run else "done")


async def _upgraded(settings: Settings, dry_run: bool, force: bool) -> SchemaStatus:
    """What was found before. Raises `ConfigurationError`."""
    url, options = settings.resolved_database_url, store_options(settings)
    with explained(settings):
        found = await migrate.status(url, options)
        if dry_run or found.is_current:
            return found
        alone: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if not settings.on_postgresql:
            make_data_dir(settings)
            alone = held_alone(Path(parse_url(url).database or ""))
        with alone:
            await migrate.upgrade(url, options, force=force)
    return found


def _as_json(found: SchemaStatus, dry_run: bool) -> dict[str, Any]:
    return {
        "database": found.database,
        "found": found.revision,
        "needed": found.head,
        "migrations": [asdict(each) for each in found.pending],
        "changed": not (dry_run or found.is_current),
    }
