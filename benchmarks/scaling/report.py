"""The plans as a table and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.scaling.load import Load
from benchmarks.scaling.plan import Ceiling, Plan

out = Console(highlight=False, width=max(120, Console().width))

ROWS: tuple[tuple[str, Callable[[Plan], str]], ...] = (
    ("gateways (one event loop each)", lambda p: f"{p.gateways}"),
    ("requests/s of one, and its bound", lambda p: f"{p.capacity.rate:.0f}, {p.capacity.bound}"),
    ("99 % have reached the model, ms", lambda p: f"{p.capacity.p99_ms:.0f}"),
    ("event loops, cores busy", lambda p: f"{p.gateway_cores:.1f}"),
    ("embedding, cores (gateways' or a server's)", lambda p: f"{p.embedding_cores:.1f}"),
    ("open streams", lambda p: f"{p.open_streams:,.0f}"),
    ("memory of a gateway, MiB", lambda p: f"{p.gateway_mib:,.0f}"),
    ("of it, index of one namespace, MiB", lambda p: f"{p.index_mib:.1f}"),
    ("transactions/s", lambda p: f"{p.transactions:,.0f}"),
    ("of these, looks for events", lambda p: f"{p.looks:,.0f}"),
    ("rows/s written", lambda p: f"{p.rows:,.0f}"),
    ("write-ahead log, MB/s", lambda p: f"{p.wal_mb:.1f}"),
    ("growth, GB a day", lambda p: f"{p.growth_gb:,.0f}"),
    ("PostgreSQL, cores", lambda p: f"{p.database_cores}"),
    ("PostgreSQL servers", lambda p: f"{p.databases}"),
    ("connections", lambda p: f"{p.connections:,}"),
    ("event log's lock, held", lambda p: f"{p.event_lock:.1%}"),
    ("learning jobs/s", lambda p: f"{p.jobs:.1f}"),
    ("workers", lambda p: f"{p.workers}"),
    ("learning calls/s", lambda p: f"{p.calls:.1f}"),
    ("learning tokens/s", lambda p: f"{p.learning_tokens:,.0f}"),
    ("share of the tokens written", lambda p: f"{p.token_share:.1%}"),
    ("calls/h of a namespace", lambda p: f"{p.calls_per_hour:,.0f}"),
)


def show(plans: Sequence[tuple[Load, Plan]]) -> None:
    load = plans[0][0]
    table = Table(
        title=f"{load.policy.value}, {load.sample_rate:g} of the requests learned from, answers "
        f"of {load.answer_tokens:g} tokens in {load.answer_seconds:g} s, "
        f"embedder {load.embedder.value}",
        title_justify="left",
    )
    table.add_column("requests/s")
    for each, _ in plans:
        table.add_column(f"{each.rate:,.0f}", justify="right")
    for name, cell in ROWS:
        table.add_row(name, *(cell(plan) for _, plan in plans))
    out.print(table)


def show_ceilings(found: Sequence[Ceiling]) -> None:
    table = Table("requests/s", "is full", "then", title="Where it gives out", title_justify="left")
    table.columns[0].justify = "right"
    for each in found:
        shown = f"{each.rate:,.0f}" if each.rate >= 10 else f"{each.rate:.1f}"
        table.add_row(shown, each.what, each.then)
    out.print(table)


def plot(plans: Sequence[tuple[Load, Plan]], path: Path) -> None:
    """Pieces against the rate, both axes logarithmic."""
    lines: tuple[tuple[str, Callable[[Plan], float], str], ...] = (
        ("gateways", lambda p: p.gateways, "o"),
        ("embedding cores", lambda p: p.embedding_cores, "s"),
        ("workers", lambda p: p.workers, "^"),
        ("PostgreSQL cores", lambda p: p.database_cores, "D"),
        ("write-ahead log, MB/s", lambda p: p.wal_mb, "v"),
        ("event log's lock, % held", lambda p: 100 * p.event_lock, "P"),
    )
    # Okabe and Ito's colours: distinguishable with the common kinds of colour blindness.
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axes = figure.subplots()
    rates = np.array([load.rate for load, _ in plans])
    for (name, value, marker), colour in zip(lines, colours, strict=True):
        values = [value(plan) or np.nan for _, plan in plans]
        axes.plot(rates, values, marker=marker, color=colour, label=name, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("requests a second")
    axes.set_ylabel("needed")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})
