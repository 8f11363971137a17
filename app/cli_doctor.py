"""`ttcl doctor`: one line for each thing that the service needs."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from app.exceptions import ConfigurationError
from app.settings import load_settings

if TYPE_CHECKING:
    from app.cli.doctor import Check

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

out = Console(highlight=False, soft_wrap=True)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of text")] = False,
) -> None:
    """Say what is configured, what answers and what is missing; exit code 1 where it can't work."""
    failed = asyncio.run(_examine(as_json))
    raise SystemExit(1 if failed else 0)


async def _examine(as_json: bool) -> bool:
    from app.cli.doctor import Verdict, examine, fail, ok

    try:
        settings = load_settings()
    except ConfigurationError as error:
        _show(fail("settings", error.message, "mend the environment or .env"), as_json)
        return True
    _show(ok("settings", "environment and .env can be read"), as_json)
    failed = False
    async for check in examine(settings):
        _show(check, as_json)
        failed |= check.verdict is Verdict.FAIL
    return failed


def _show(check: Check, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(check)) + "\n")
        return
    line = Text(f"{check.verdict.value:<5}", style=STYLES[check.verdict.value])
    line.append(f"{check.name:<13} ", style="bold").append(check.said, style="none")
    if check.advice:
        line.append(f" -> {check.advice}", style="none")
    out.print(line)
