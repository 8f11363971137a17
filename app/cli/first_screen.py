"""What `ttcl serve` says at its start: where it is, what it costs, how to turn it off, what to try.

For people; where the log is JSON it is one line of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

import httpx
import structlog

from app.access.admin_key import admin_key_file
from app.cli.common import err, print_lines, shortened
from app.cli.cost import OFF, cost
from app.cli.demo_client import Answer, DemoClient, with_client
from app.engine.models import PACKAGED_NAME
from app.exceptions import TTCLError
from app.settings import LogFormat, Policy, Settings
from app.wiring.container import AppState

log = structlog.get_logger(__name__)

EXAMPLE, RIGHT = "What is the chemical symbol for water?", "H2O"
REQUEST_ID = "first-question"
PATIENCE = 2.0
"""Seconds for the upstream to list its models."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""What is bound where every address is, and how this machine reaches it."""


def address(host: str, port: int) -> str:
    """Of the service, for who is on this machine."""
    reached = _ANY.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reached}:{port}"


async def show_ready(settings: Settings, url: str, state: AppState) -> None:
    """Of a gateway that has begun to serve."""
    listed: list[str] = []
    if settings.upstream_base_url is not None:
        with contextlib.suppress(TTCLError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                listed = list(await state.upstream.models())
    show(settings, url, listed=listed, keyed=state.keys.needed)


def show(settings: Settings, url: str, *, listed: Iterable[str], keyed: bool) -> None:
    """`listed`: the models that the upstream has listed, as far as that is known by now; `keyed`:
    requests need a key."""
    upstream = settings.upstream_base_url or f"embedded ({settings.engine.value})"
    if settings.log_format is LogFormat.JSON:
        log.info(
            "serving",
            url=f"{url}/v1",
            bound=settings.host,
            upstream=upstream,
            policy=settings.resolved_policy.value,
            cost=cost(settings),
        )
        return
    key = "TTCL_ADMIN_API_KEY" if settings.admin_api_key else str(admin_key_file(settings))
    for line in (
        f"ttcl on {url}/v1  model: {upstream}",
        _policy(settings),
        f"cost: {cost(settings)}",
        OFF,
        f"console: {url}/console   admin API: {url}/admin/v1   admin key: {key}",
        "try it: ask, say what was right, and ask again",
        f"  {_ask_command(url, _model(settings, listed), _headers(keyed))}",
        f"  {_feedback_command(url, _headers(keyed))}",
    ):
        err.print(line, markup=False, soft_wrap=True)


def _policy(settings: Settings) -> str:
    if settings.resolved_policy is Policy.GATED:
        return "policy gated: rules steer when replays have shown that they help (TTCL_POLICY)"
    return "policy paper: rules steer at once, bad ones too (TTCL_POLICY)"


def _model(settings: Settings, listed: Iterable[str]) -> str:
    """A name to ask for."""
    if settings.upstream_base_url is not None:
        return settings.upstream_model or min(listed, default="MODEL")
    if settings.engine_model is None:
        return PACKAGED_NAME
    path = Path(settings.engine_model)
    if path.suffix == ".gguf":
        return path.stem
    return path.name if path.is_dir() else settings.engine_model


def _ask_command(url: str, model: str, headers: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": EXAMPLE}]})
    named = f"-H 'X-Request-ID: {REQUEST_ID}'"
    return f"curl {url}/v1/chat/completions {headers} {named} -d '{body}'"


def _feedback_command(url: str, headers: str) -> str:
    body = json.dumps({"request_id": REQUEST_ID, "label": RIGHT})
    return f"curl {url}/v1/feedback {headers} -d '{body}'"


def _headers(keyed: bool) -> str:
    auth = "-H 'Authorization: Bearer YOUR_KEY' " if keyed else ""
    return f"{auth}-H 'Content-Type: application/json'"


def ask_first_question(settings: Settings, url: str) -> None:
    """Waits for all to be up; teaches nothing."""
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
        " prompt; nothing was learned from it.",
        "A model this small is often wrong, and often writes bad rules: that is no fault of your",
        "set-up. What you say is right (the second curl line) comes back where a question is like",
        "it. `make demo` plays sixty tickets with their labels and shows what that does.",
        f"serving on {url}/v1 - Ctrl-C stops it",
    )


async def _first_answer(client: DemoClient) -> Answer:
    await client.ready(within=300)
    question = [{"role": "user", "content": EXAMPLE}]
    return await client.ask(question, with_experience=True, learn=False)
