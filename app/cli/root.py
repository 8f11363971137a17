"""The `ttcl` command."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.access.admin_key import admin_key_file
from app.cli import demo, doctor, effect, examples, namespaces, rules, store, worker
from app.cli import keys as cli_keys
from app.cli.common import err, print_lines, shortened
from app.cli.demo_client import Answer, DemoClient, with_client
from app.exceptions import ConfigurationError, TTCLError
from app.settings import EngineBackend, Policy, Settings, load_settings
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

EXAMPLE, RIGHT = "What is the chemical symbol for water?", "H2O"


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

    from app.cli import processes
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
    listener = _listen(settings)
    if settings.workers == 1:
        from app.main import create_app

        application = create_app(settings)
    else:
        processes.check(settings)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    _banner(settings, url, admin_key_file(settings))
    if first_question:
        # A thread: it is a client like any other, and ends with the process.
        asking = threading.Thread(target=_first_question, args=(settings, url), daemon=True)
        asking.start()
    if settings.workers > 1:
        processes.serve(settings, listener)
        return
    server = uvicorn.Server(processes.server_config(application, settings))
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


def _first_question(settings: Settings, url: str) -> None:
    err.print("waiting for model and embedder ...")
    try:
        answer = asyncio.run(with_client(settings, url, settings.namespace, _first_answer))
    except (TTCLError, httpx.HTTPError) as error:
        err.print(f"the first question failed: {error}", markup=False)
        return
    print_lines(
        f"asked: {EXAMPLE}",
        f"answer: {shortened(answer.text, 70)}",
        f"  with {answer.rules} rules and {answer.examples} examples of earlier answers in its"
        " prompt.",
        "Experience is what the service learns from being told: say what was right, and like",
        "questions are answered with that before them. For this answer:",
        f"  {_feedback_command(settings, url, answer.episode)}",
        "`make demo` plays sixty tickets with their labels and shows what experience does there.",
        f"serving on {url}/v1 - Ctrl-C stops it",
    )


async def _first_answer(client: DemoClient) -> Answer:
    await client.ready(within=300)
    return await client.ask([{"role": "user", "content": EXAMPLE}], with_experience=True)


def _feedback_command(settings: Settings, url: str, episode: str) -> str:
    body = json.dumps({"episode_id": episode, "label": RIGHT})
    return f"curl {url}/v1/feedback {_curl_headers(settings)} -d '{body}'"


def _curl_headers(settings: Settings) -> str:
    auth = "-H 'Authorization: Bearer YOUR_KEY' " if settings.api_keys else ""
    return f"{auth}-H 'Content-Type: application/json'"


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


def _banner(settings: Settings, url: str, key_file: Path) -> None:
    model = settings.upstream_model or "MODEL"
    if settings.upstream_base_url is None and settings.engine_model is None:
        model = "SmolLM2-135M-Instruct"
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": EXAMPLE}],
        }
    )
    key = "TTCL_ADMIN_API_KEY" if settings.admin_api_key else str(key_file)
    upstream = settings.upstream_base_url or f"embedded ({settings.engine.value})"
    err.print(f"[bold]ttcl[/bold] on [bold]{url}/v1[/bold]  model: {upstream}")
    err.print(_policy(settings), markup=False)
    err.print(_cost(settings), markup=False)
    err.print(f"console: {url}/console   admin API: {url}/admin/v1   admin key: {key}")
    err.print("try it:", markup=False)
    err.print(
        f"  curl {url}/v1/chat/completions {_curl_headers(settings)} -d '{body}'",
        markup=False,
        soft_wrap=True,
    )


def _policy(settings: Settings) -> str:
    if settings.resolved_policy is Policy.GATED:
        return "policy gated: rules steer when replays have shown that they help (TTCL_POLICY)"
    return "policy paper: rules steer at once (TTCL_POLICY)"


def _cost(settings: Settings) -> str:
    """What learning costs at most."""
    if not settings.learn:
        return "learning is off (TTCL_LEARN)"
    gated = settings.resolved_policy is Policy.GATED
    calls = settings.students + 3  # Teacher, Tutor, Students, the distiller
    if gated if settings.judge_rules is None else settings.judge_rules:
        calls += 2  # the model as the judge of a rule of each polarity
    replays = ""
    if gated:
        replays = f" and {settings.gate_calls_per_answer:g} replays of candidates"
    return (
        f"learning: {settings.learn_sample_rate:.0%} of the requests, with at most {calls} upstream"
        f" calls a request learned from{replays}, {settings.learn_calls_per_hour:,} calls an hour"
        " and namespace (TTCL_LEARN_SAMPLE_RATE, TTCL_LEARN_CALLS_PER_HOUR)"
    )


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
