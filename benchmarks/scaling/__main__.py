"""The command: simulate, measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.exceptions import ConfigurationError
from benchmarks.scaling import costs as unit_costs
from benchmarks.scaling import report
from benchmarks.scaling.costs import checked
from benchmarks.scaling.load import Embedder, Limits, Load, Policy
from benchmarks.scaling.plan import capacity, ceilings, plan

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

CURVE = (10, 30, 100, 300, 1_000, 3_000, 10_000)


@app.command()
def simulate(
    costs: Annotated[Path, typer.Option(help="Unit costs as JSON")] = unit_costs.SHIPPED,
    rate: Annotated[str, typer.Option(help="Requests a second")] = "100,1000,10000",
    burst: Annotated[float, typer.Option(help="Times the mean in a crowd; 1: Poisson")] = 1.0,
    answer_tokens: float = 300,
    tokens_per_second: Annotated[float, typer.Option(help="Of one answer")] = 50,
    tokens_per_chunk: Annotated[float, typer.Option(help="Of a stream")] = 1,
    sample_rate: Annotated[float, typer.Option(help="Share that is learned from")] = 0.01,
    policy: Policy = Policy.GATED,
    namespaces: int = 100,
    rules: Annotated[int, typer.Option(help="Of each namespace")] = 1000,
    embedder: Embedder = Embedder.LOCAL,
    spread: Annotated[float, typer.Option(help="Variation of service times; 1: exponential")] = 0.5,
    utilisation: Annotated[float, typer.Option(help="At most, of anything that queues")] = 0.7,
    p99_ms: Annotated[float, typer.Option(help="99 % have reached the model by then")] = 200,
    open_requests: Annotated[float, typer.Option(help="TTCL_MAX_OPEN_REQUESTS")] = 1000,
    call_concurrency: Annotated[
        float, typer.Option(help="TTCL_LEARN_CALL_CONCURRENCY of a worker")
    ] = 16,
    seed: int = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG here")] = None,
) -> None:
    """How much of everything, and where it gives out first."""
    options = locals()
    units = unit_costs.read(costs)
    limits = checked(Limits, {k: v for k, v in options.items() if k in Limits.model_fields})
    given = {k: v for k, v in options.items() if k in Load.model_fields}
    loads = [checked(Load, {**given, "rate": each}) for each in rate.split(",")]
    one = capacity(loads[0], units, limits)
    report.show([(load, plan(load, units, limits, one)) for load in loads])
    report.show_ceilings(ceilings(loads[0], units, limits, one))
    if plot is not None:
        curve = [checked(Load, {**given, "rate": each}) for each in CURVE]
        report.plot([(load, plan(load, units, limits, one)) for load in curve], plot)


@app.command()
def measure(
    out: Annotated[Path, typer.Option(help="Write JSON here")] = Path("costs.json"),
    requests: Annotated[int, typer.Option(min=50, help="Requests of each kind")] = 300,
    database_url: Annotated[
        str | None, typer.Option(help="An empty PostgreSQL database for the gateway")
    ] = None,
) -> None:
    """Unit costs with this machine's gateway and embedder in place of the shipped ones (Linux)."""
    from benchmarks.scaling.measure import measured

    unit_costs.write(measured(unit_costs.read(unit_costs.SHIPPED), requests, database_url), out)


if __name__ == "__main__":
    try:
        app()
    except ConfigurationError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}")
        sys.exit(2)
