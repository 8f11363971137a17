"""`ttcl store`: a whole database moved to another one."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import AsJson, err, out, print_json

app = typer.Typer(no_args_is_help=True, add_completion=False)

Place = "A URL (sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME) or the path of an SQLite file"


@app.command("copy")
def store_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=f"{Place}; it is only read")],
    target: Annotated[str, typer.Argument(metavar="TO", help=f"{Place}; empty, or not there yet")],
    as_json: AsJson = False,
) -> None:
    """Copy everything: rules, examples, events, episodes, jobs, evidence, effect, settings, keys.

    A gateway may serve from FROM meanwhile: what is copied is as of one moment. Run again, it goes
    on where it was cut short; or, until a gateway has served from TO, it brings what FROM has
    learned since. At the end both have the same rows and find the same for 100 stored questions.
    A password may be given in PGPASSWORD instead.
    """
    from rules_store.operations.store_copy import copy_store
    from rules_store.options import DEFAULT_OPTIONS

    report = asyncio.run(
        copy_store(
            _url(source),
            _url(target),
            DEFAULT_OPTIONS,
            lambda: datetime.now(UTC),
            _progress if sys.stderr.isatty() and not as_json else lambda table, done, total: None,
        )
    )
    if as_json:
        print_json(asdict(report))
        return
    rows = sum(report.rows.values())
    begun = "brought up to date" if report.resumed else "copied"
    out.print(f"{begun}: {report.source} -> {report.target}", markup=False, soft_wrap=True)
    out.print(
        f"{rows} rows of {len(report.rows)} tables in both, {report.written} of them written now; "
        f"{report.questions} questions find the same rules and examples in both"
    )
    err.print(
        "Stop the gateways of FROM, run this again for what they have written since, then start "
        "them with TTCL_DATABASE_URL set to TO.",
        markup=False,
    )


def _url(place: str) -> str:
    return place if "://" in place else f"sqlite:///{Path(place).resolve()}"


def _progress(table: str, done: int, total: int) -> None:
    err.print(f"{table}: {done} of {total}", end="\r" if done < total else "\n", markup=False)
