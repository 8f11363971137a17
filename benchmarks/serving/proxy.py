"""Pass-through beside LiteLLM and vllm-router: requests a second and the time of one, in one run.

    make litellm router
    python -m benchmarks.serving.proxy --out proxy.json

All stand before the same instant model server with one process each, and take their turns in short
slices, so that a busy machine disturbs all alike. LiteLLM has its production settings and neither
keys nor a database; the gateway is in mode off, and once more in mode steer with questions that it
knows. vllm-router is compiled (Rust) and has as many threads as there are cores. LiteLLM does more
on this way than pass a request on (it translates between providers and counts cost), a router less.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.exceptions import ConfigurationError
from benchmarks.model_server import Instant
from benchmarks.serving.asking import Kind, ask, pressure
from benchmarks.serving.contents import Contents, write
from benchmarks.serving.material import question
from benchmarks.serving.processes import (
    Client,
    free_port,
    gateway,
    running,
    scripted_upstream,
    wait_for,
)

CONTENTS = Contents(100)
RECURRING = 200
"""Questions that come again."""
LIMIT = 3.0
"""Times LiteLLM's requests a second that the gateway is to pass through."""
ROOT = Path(__file__).parents[2]
out = Console(highlight=False, width=max(100, Console().width))


def main(
    program: Annotated[
        Path, typer.Option("--litellm", help="The command, as `make litellm` installs it")
    ] = ROOT / ".venv-litellm" / "bin" / "litellm",
    router: Annotated[Path, typer.Option(help="vllm-router, as `make router` installs it")] = ROOT
    / ".venv-router"
    / "bin"
    / "vllm-router",
    rounds: Annotated[int, typer.Option(min=1, help="Slices of each")] = 6,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of a slice")] = 4.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once")] = 8,
    requests: Annotated[int, typer.Option(min=10, help="Single requests of each")] = 200,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Compare the gateway with LiteLLM's proxy and with vllm-router."""
    for each in (program, router):
        if not each.exists():
            raise typer.BadParameter(f"{each} does not exist: run `make litellm router`")
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted_upstream() as upstream_port,
        gateway(upstream_port, Path(folder), LEARN="false") as (port, _),
        _router(router, upstream_port, Path(folder)) as router_port,
        _litellm(program, upstream_port, Path(folder)) as other_port,
    ):
        write(port, CONTENTS)
        kinds = [
            Kind("bare", Client(upstream_port), {}),
            Kind("ttcl, off", Client(port), {"X-TTCL-Mode": "off"}),
            Kind("ttcl, steer", Client(port), CONTENTS.headers),
            Kind("vllm-router", Client(router_port), {}),
            Kind("litellm", Client(other_port), {}),
        ]
        rows = _measure(kinds, rounds, seconds, clients, requests)
    _show(rows)
    if result is not None:
        result.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")


@contextmanager
def _router(program: Path, upstream_port: int, folder: Path) -> Iterator[int]:
    port = free_port()
    command = [str(program), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream_port}"]
    command += ["--prometheus-port", str(free_port()), "--log-dir", str(folder)]
    with running(command, {}) as process:
        wait_for(process, port, "/health", b"")
        yield port


@contextmanager
def _litellm(program: Path, upstream_port: int, folder: Path) -> Iterator[int]:
    port = free_port()
    model = {
        "model_name": Instant.model,
        "litellm_params": {
            "model": f"openai/{Instant.model}",
            "api_base": f"http://127.0.0.1:{upstream_port}/v1",
            "api_key": "none",
        },
    }
    config = folder / "litellm.yaml"
    # JSON is YAML.
    config.write_bytes(orjson.dumps({"model_list": [model], "litellm_settings": {}}))
    variables = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    variables |= {"LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    # The gateway asks its clients for none either.
    variables["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
    command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    with running(command, variables) as process:
        wait_for(process, port, "/health/liveliness", b"")
        yield port


def _measure(
    kinds: list[Kind], rounds: int, seconds: float, clients: int, requests: int
) -> dict[str, dict[str, float]]:
    rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    times: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for kind in kinds:
        pressure(kind, clients, 1.0, start=0, among=RECURRING)
    for _ in track(range(rounds), description="throughput", console=out):
        for kind in kinds:
            rates[kind.name].append(pressure(kind, clients, seconds, start=0, among=RECURRING))
    for number in track(range(requests), description="one at a time", console=out):
        for kind in kinds:
            times[kind.name].append(ask(kind, question(number % RECURRING)).milliseconds)
    if not all(all(values) for values in rates.values()):
        raise ConfigurationError("one of them answered nothing within a slice")
    return {
        kind.name: {
            "per_second": statistics.median(rates[kind.name]),
            "median_ms": statistics.median(times[kind.name]),
            "added_ms": statistics.median(times[kind.name]) - statistics.median(times["bare"]),
            "of_bare": _times(rates[kind.name], rates["bare"]),
            "times_litellm": _times(rates[kind.name], rates["litellm"]),
        }
        for kind in kinds
    }


def _times(own: list[float], other: list[float]) -> float:
    """By slices."""
    return statistics.median(mine / theirs for mine, theirs in zip(own, other, strict=True))


def _show(rows: dict[str, dict[str, Any]]) -> None:
    table = Table("", "requests a second", "of bare", "x litellm", "median ms", "added ms")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['per_second']:.0f}",
            f"{row['of_bare']:.2f}",
            f"{row['times_litellm']:.1f}",
            f"{row['median_ms']:.2f}",
            f"{row['added_ms']:.2f}",
        )
    out.print(table)
    times = rows["ttcl, off"]["times_litellm"]
    word = "within" if times >= LIMIT else "[red]below[/red]"
    out.print(f"ttcl passes {times:.1f} times as many through: {word} the limit of {LIMIT:g}")


if __name__ == "__main__":
    typer.run(main)
