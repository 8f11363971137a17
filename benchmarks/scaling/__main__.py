"""The command: measure, simulate, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.exceptions import ConfigurationError
from benchmarks.scaling import costs as unit_costs
from benchmarks.scaling.demand import Embedder, Limits, Load, Policy, checked
from benchmarks.scaling.plan import Plan, capacity, plan

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
out = Console(highlight=False)

RATES = "100,1000,10000"
CURVE = (10, 30, 100, 300, 1_000, 3_000, 10_000)
Costs = Annotated[Path, typer.Option("--costs", help="Unit costs as `measure` writes them")]


@app.command()
def measure(
    result: Annotated[Path, typer.Option("--out", help="Write JSON here")] = Path("costs.json"),
    requests: Annotated[int, typer.Option(min=50, help="Requests of each kind")] = 300,
    jobs: Annotated[int, typer.Option(min=20, help="Learning jobs of each policy")] = 60,
) -> None:
    """Take the unit costs on this machine (Linux, PostgreSQL installed)."""
    from benchmarks.scaling.measure import measure as take

    unit_costs.write(take(requests, jobs), result)


@app.command()
def simulate(
    costs: Costs = unit_costs.SHIPPED,
    rate: Annotated[str, typer.Option(help="Requests a second, comma-separated")] = RATES,
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
    from benchmarks.scaling import report
    from benchmarks.scaling.ceilings import ceilings

    given = {
        "burst": burst,
        "answer_tokens": answer_tokens,
        "tokens_per_second": tokens_per_second,
        "tokens_per_chunk": tokens_per_chunk,
        "sample_rate": sample_rate,
        "policy": policy,
        "namespaces": namespaces,
        "rules": rules,
        "embedder": embedder,
        "spread": spread,
        "seed": seed,
    }
    bounds = {
        "utilisation": utilisation,
        "p99_ms": p99_ms,
        "open_requests": open_requests,
        "call_concurrency": call_concurrency,
    }
    units = unit_costs.read(costs)
    limits: Limits = checked(Limits, bounds)
    loads: list[Load] = [checked(Load, {"rate": each, **given}) for each in rate.split(",")]
    one = capacity(loads[0], units, limits)
    plans: list[tuple[Load, Plan]] = [(load, plan(load, units, limits, one)) for load in loads]
    report.show(plans)
    report.show_ceilings(ceilings(loads[0], units, limits, one))
    if plot is not None:
        curve = [checked(Load, {"rate": each, **given}) for each in CURVE]
        report.plot([(load, plan(load, units, limits, one)) for load in curve], plot)


@app.command()
def check(
    costs: Costs = unit_costs.SHIPPED,
    requests: Annotated[int, typer.Option(min=100, help="Requests of the load")] = 2000,
) -> None:
    """Simulated and measured requests a second of one gateway on one core."""
    from benchmarks.scaling.check import check as run

    found = run(unit_costs.read(costs), requests)
    out.print(f"simulated: {found.simulated:.1f} requests/s with a core of its own")
    out.print(f"its core: {found.busy:.0%} used by the gateway, {found.available:.0%} left to it")
    out.print(f"simulated on that: {found.simulated * found.available:.1f} requests/s")
    out.print(f"measured: {found.measured:.1f} requests/s")
    out.print(f"error: {found.error:+.1%}")


if __name__ == "__main__":
    try:
        app()
    except ConfigurationError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}")
        sys.exit(2)
