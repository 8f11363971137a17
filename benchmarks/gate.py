"""What the gate keeps and lets through, by simulation with known true lifts (no model).

    python -m benchmarks.gate --rules 4000 --out gate.json --plot gate.png

A rule of true lift d turns a wrong answer right in a share of the replays and a right one wrong in
another; their difference is d, and the smaller of the two is `--noise`. Each rule is replayed until
the gate decides, with the default number of replays. Besides single lifts two groups are reported:
helpful rules with lifts uniform in [0.1, 0.3], harmful ones in [-0.3, -0.1]. Intervals are
Wilson's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table
from statsmodels.stats.proportion import proportion_confint

from rules_store.policy.gate import GateOptions, Verdict, verdict

LIFTS = (-0.3, -0.2, -0.15, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
HELPFUL, HARMFUL = (0.1, 0.3), (-0.3, -0.1)

out = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Row:
    """Shares of the rules, in [0, 1], and the mean number of replays until a decision."""

    name: str
    kept: float
    kept_low: float
    kept_high: float
    harmful: float
    useless: float
    replays: float


def main(
    rules: Annotated[int, typer.Option(min=100, help="Rules per row")] = 4000,
    replays: Annotated[int, typer.Option(min=1, help="Most replays of one rule")] = 48,
    noise: Annotated[float, typer.Option(min=0, max=0.3, help="Replays that go the other way")] = (
        0.05
    ),
    seed: int = 0,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG here")] = None,
) -> None:
    """Simulate the gate."""
    rng = np.random.default_rng(seed)
    options = GateOptions(replays=replays)
    single = [simulate(f"{lift:+.2f}", np.full(rules, lift), noise, options, rng) for lift in LIFTS]
    groups = [
        simulate(name, rng.uniform(*bounds, rules), noise, options, rng)
        for name, bounds in (("helpful", HELPFUL), ("harmful", HARMFUL))
    ]
    _show([*single, *groups], rules, replays, noise)
    if result is not None:
        rows = [asdict(row) for row in (*single, *groups)]
        content = {"rules": rules, "replays": replays, "noise": noise, "seed": seed, "rows": rows}
        result.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    if plot is not None:
        _plot(single, plot)


def simulate(
    name: str, lifts: np.ndarray, noise: float, options: GateOptions, rng: np.random.Generator
) -> Row:
    """The gate on rules of these true lifts, shape (n,)."""
    found: list[Verdict] = []
    made = 0
    for lift in lifts:
        helps, harms = noise + max(lift, 0.0), noise + max(-lift, 0.0)
        helped = harmed = tried = 0
        judged = None
        while judged is None:
            draw = rng.random()
            helped += draw < helps
            harmed += helps <= draw < helps + harms
            tried += 1
            judged = verdict(helped, harmed, tried, options)
        found.append(judged)
        made += tried
    count = len(found)
    kept = found.count(Verdict.HELPFUL)
    low, high = proportion_confint(kept, count, method="wilson")
    return Row(
        name,
        kept / count,
        float(low),
        float(high),
        found.count(Verdict.HARMFUL) / count,
        found.count(Verdict.USELESS) / count,
        made / count,
    )


def _show(rows: list[Row], rules: int, replays: int, noise: float) -> None:
    table = Table(
        title=f"{rules} rules a row, at most {replays} replays, noise {noise:g}",
        title_justify="left",
    )
    for name in ("true lift", "kept", "95 %", "found harmful", "of no use", "replays"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.kept:.1%}",
            f"{row.kept_low:.1%} to {row.kept_high:.1%}",
            f"{row.harmful:.1%}",
            f"{row.useless:.1%}",
            f"{row.replays:.1f}",
        )
    out.print(table)


def _plot(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    lifts = [float(row.name) for row in rows]
    kept = [row.kept for row in rows]
    errors = [[row.kept - row.kept_low for row in rows], [row.kept_high - row.kept for row in rows]]
    axes.errorbar(lifts, kept, yerr=errors, marker="o", label="kept")
    axes.plot(lifts, [row.harmful for row in rows], marker="s", label="found harmful")
    axes.plot(lifts, [row.useless for row in rows], marker="^", label="of no use")
    axes.set_xlabel("true lift")
    axes.set_ylabel("share of the rules")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    typer.run(main)
