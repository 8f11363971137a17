"""`ttcl worker`: learning apart from answering."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from app.cli.common import err
from app.settings import LogFormat, load_settings

app = typer.Typer(add_completion=False)


@app.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Jobs at a time (TTCL_LEARN_CONCURRENCY)")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port")
    ] = None,
) -> None:
    """Work through the learning jobs of a PostgreSQL store; start more to learn faster."""
    from app.observability.logs import configure
    from app.wiring.worker_process import work

    given: dict[str, Any] = {} if concurrency is None else {"learn_concurrency": concurrency}
    settings = load_settings(**given)
    configure(settings.log_format, settings.log_level)

    def ready() -> None:
        if settings.log_format is LogFormat.JSON:
            return  # its line in the log says the same
        err.print(f"learning, {settings.learn_concurrency} jobs at a time - Ctrl-C stops it")

    asyncio.run(work(settings, metrics_port, ready))
