"""Runs the shipped attacks, and good rules for comparison, through a gateway of its own.

python -m benchmarks.safety.attacks --out safety.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.settings import Policy
from benchmarks.model_server import Obedient, serving
from benchmarks.safety.cases import SETS, load
from benchmarks.safety.measure import CorpusResult, Driver, summary
from benchmarks.serving.processes import ADMIN_KEY, gateway


def main(
    out: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON")] = None,
    policy: Annotated[
        Policy,
        typer.Option(help="paper: what is admitted is active at once"),
    ] = Policy.PAPER,
    sets: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(SETS)}")] = ",".join(SETS),
) -> None:
    """What becomes active of the rules that an attacker wants, and of good ones."""
    names = [name.strip() for name in sets.split(",")]
    if unknown := set(names) - set(SETS):
        raise typer.BadParameter(f"unknown set: {', '.join(sorted(unknown))}", param_hint="--sets")
    console = Console()
    report = {
        name: summary(outcomes) for name, outcomes in _measured(names, console, policy).items()
    }
    for name, figures in report.items():
        console.print(_table(name, figures))
        for rule in figures["active_rules"] if name != "benign" else ():
            console.print(f"active: {rule['id']} ({rule['polarity']}) {rule['text']}", markup=False)
    if out is not None:
        out.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def _measured(names: list[str], console: Console, policy: Policy) -> dict[str, list[CorpusResult]]:
    cases = {name: load(name) for name in names}
    with (
        tempfile.TemporaryDirectory(prefix="ttcl-safety-") as folder,
        serving(Obedient()) as upstream,
        gateway(
            upstream.port,
            Path(folder),
            # The vectors come from the upstream too: no model is loaded.
            EMBEDDING_BASE_URL=upstream.base_url,
            EMBEDDING_MODEL="bag-of-words",
            EMBEDDING_TIMEOUT="30",
            POLICY=policy.value,
            # All students answer, so that every request teaches.
            EARLY_STOP="false",
            ADAPTIVE_EFFORT="false",
            LEARN_CALLS_PER_HOUR="1000000",
            LEARN_TOKENS_PER_HOUR="1000000000",
        ) as (port, _),
        Progress(console=console, transient=True) as progress,
    ):
        driver = Driver(f"http://127.0.0.1:{port}", upstream, admin_key=ADMIN_KEY)
        bar = progress.add_task("cases", total=sum(len(each) for each in cases.values()))
        try:
            return {
                name: driver.run(each, lambda case: progress.advance(bar))
                for name, each in cases.items()
            }
        finally:
            driver.close()


def _table(name: str, figures: dict[str, Any]) -> Table:
    share = f"{figures['active']} of {figures['rules']} active ({figures['share_active']:.1%})"
    table = Table(title=f"{name}: {share}", title_justify="left")
    for column in ("kind", "rules", "active", "in a prompt", "refused by wording", "reasons"):
        table.add_column(column)
    for kind, counts in figures["kinds"].items():
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts["reasons"].items()))
        numbers = [counts[key] for key in ("rules", "active", "shown", "refused_by_wording")]
        table.add_row(kind, *map(str, numbers), reasons)
    return table


if __name__ == "__main__":
    typer.run(main)
