"""The `ttcl` command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import demo, doctor, effect, examples, namespaces, rules, store, worker
from app.cli import keys as cli_keys
from app.cli.common import err
from app.exceptions import ConfigurationError, TTCLError
from app.settings import EngineBackend, Settings, load_settings
from rules_store.errors import StoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Makes a frozen language model better at the work it is given, at test time.",
)
app.add_typer(rules.app, name="rules")
app.add_typer(examples.app, name="examples")
app.add_typer(namespaces.app, name="namespaces")
app.add_typer(effect.app, name="effect")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(store.app, name="store")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("worker")(worker.worker)
for command in entry_points(group="ttcl.commands"):
    # What stands above this package in the import order (`ttcl bench`) mounts itself.
    app.add_typer(command.load(), name=command.name)

_SWITCH_INTERVAL = 0.001  # seconds


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(help="GGUF file, or vLLM model, for the embedded engine")
    ] = None,
    engine: Annotated[EngineBackend | None, typer.Option(help="Engine of the model")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind")] = None,
    first_question: Annotated[
        bool, typer.Option(help="Ask a question once all is up, and show what can follow")
    ] = False,
) -> None:
    """Run the gateway; with no upstream configured, the embedded model too."""
    import uvicorn

    from app.cli import first_screen
    from app.cli.http_protocol import GatewayProtocol
    from app.main import create_app
    from app.observability.logs import configure

    given: dict[str, Any] = {"engine_model": model, "engine": engine, "host": host, "port": port}
    settings = load_settings(**{key: value for key, value in given.items() if value is not None})
    configure(settings.log_format, settings.log_level)
    # Database and embedder work in threads, each step of which waits this long for an interpreter
    # that answers requests (Python's own 5 ms: a quarter longer at the 99th percentile).
    sys.setswitchinterval(_SWITCH_INTERVAL)
    listener = _listen(settings)
    application = create_app(settings)
    url = first_screen.address(settings.host, listener.getsockname()[1])
    config = uvicorn.Config(
        application,
        http=GatewayProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.stop_grace,
        server_header=False,
        # Whoever can reach us could else write there where they come from.
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                await first_screen.show_ready(settings, url, application.state.ttcl)

    server = Server(config)
    if first_question:
        # A thread: it is a client like any other, and ends with the process.
        asking = threading.Thread(
            target=first_screen.ask_first_question, args=(settings, url), daemon=True
        )
        asking.start()
    logging.getLogger("uvicorn.error").addFilter(
        # The sentence is printed below; what nobody foresaw keeps its traceback.
        lambda record: not hasattr(application.state, "startup_error")
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises what stopped it once more when all is done; to stop when told is no error.
        signal.signal(number, lambda *_: None)
    try:
        server.run(sockets=[listener])
    except SystemExit as error:
        raise getattr(application.state, "startup_error", error) from None


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With its protocol named, asyncio sets TCP_NODELAY; uvloop always does.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise ConfigurationError(
            f"TTCL_PORT: {settings.host}:{settings.port} can't be bound: {error.strerror}"
        ) from error
    listener.listen(2048)
    return listener


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
) -> None:
    """Run a local model server alone. What follows `--` goes to vLLM."""
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


def main() -> None:
    """Errors that a user can mend are one sentence and exit code 2, not a traceback."""
    try:
        app()
    except (TTCLError, StoreError) as error:
        err.print(f"ttcl: {error}", markup=False, soft_wrap=True)
        raise SystemExit(2) from error
