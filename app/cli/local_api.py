"""The admin API in the process of a command, on the database of its settings: without a gateway."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from app.cli.answers import show_list, show_one
from app.cli.common import opened, read_lines, started
from app.cli.operations import CURSOR, Operation
from app.domain.printable import json_printable
from app.exceptions import InvalidRequest
from app.main import create_admin_api
from app.settings import Settings, load_settings
from app.wiring.administration import open_administration
from app.wiring.factories import build_embedder

JSON, JSON_LINES = "application/json", "application/x-ndjson"
PAGE, LIMIT = 500, 50
"""Most rows that the API gives at once, and how many are shown where nobody says."""
CREATES, EMBEDS = ("add", "create"), ("near",)
"""Verbs that make a database where there is none, and those that need the embedding model."""
Send = Callable[..., Awaitable[Any]]


def perform(operation: Operation, values: dict[str, Any], file: str | None, as_json: bool) -> None:
    """Sends it with these values by name, and shows what it gives. `file`: of the JSON lines that
    it takes. Raises `InvalidRequest`, `ConfigurationError`."""
    places = {each.name: each.place for each in operation.parameters}
    parts = {name: quote(str(value), safe="") for name, value in values.items()}
    path = operation.path.format(**parts)
    query = {name: value for name, value in values.items() if places[name] == "query"}
    body = {name: value for name, value in values.items() if places[name] == "body"}
    lines = None if file is None else read_lines(file, None)
    verb = operation.command[1]

    async def run() -> Any:
        settings = load_settings()
        async with local_api(settings, creates=verb in CREATES, embeds=verb in EMBEDS) as send:
            if operation.pages:
                return await _pages(send, operation, path, query)
            return await send(
                operation.method, path, query, body if "body" in places.values() else None, lines
            )

    answer = asyncio.run(run())
    if operation.answer is None:
        sys.stdout.buffer.write(json_printable(answer))
    elif operation.is_list:
        show_list(operation.answer, answer["data"], answer["total"], as_json)
    else:
        show_one(operation.answer, answer, as_json, whole=operation.reads)


async def _pages(
    send: Send, operation: Operation, path: str, query: dict[str, Any]
) -> dict[str, Any]:
    """As one page: as many rows as `--limit` says."""
    wanted = query.pop("limit", LIMIT)
    rows: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        more["limit"] = min(PAGE, wanted - len(rows))
        page = await send(operation.method, path, query | more)
        rows += page["data"]
        more[CURSOR] = page["next_cursor"]
        if more[CURSOR] is None or len(rows) >= wanted:
            return {"data": rows, "total": page["total"]}


@asynccontextmanager
async def local_api(
    settings: Settings, *, creates: bool = False, embeds: bool = False
) -> AsyncIterator[Send]:
    """What sends a request (method, path, query, body, lines) and gives the answer: JSON as it is
    parsed, anything else as bytes. It raises `InvalidRequest` with the API's own sentence.

    `creates`: a database is made where there is none. `embeds`: the embedding model is loaded.
    Raises `ConfigurationError`.
    """
    key = secrets.token_urlsafe()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(settings, creates=creates))
        embedder = build_embedder(settings)
        if embeds:
            await stack.enter_async_context(started(embedder))
        state = await open_administration(settings, store, embedder, key, stack)
        transport = httpx.ASGITransport(create_admin_api(state))
        headers = {"Authorization": f"Bearer {key}"}
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://ttcl", headers=headers)
        )

        async def send(
            method: str,
            path: str,
            query: dict[str, Any] | None = None,
            body: dict[str, Any] | None = None,
            lines: bytes | None = None,
        ) -> Any:
            content: dict[str, Any] = {} if body is None else {"json": body}
            if lines is not None:
                content = {"content": lines, "headers": {"Content-Type": JSON_LINES}}
            answer = await http.request(method, path, params=query, **content)
            if answer.status_code >= 400:
                error = answer.json()["error"]
                raise InvalidRequest(error["message"], param=error["param"])
            is_json = answer.headers["Content-Type"].startswith(JSON)
            return answer.json() if is_json else answer.content

        yield send
