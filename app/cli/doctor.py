"""`ttcl doctor`: what is configured, what answers, what is missing, and what to do about it.

It changes nothing: what a first start would make is reported as not there yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from app.access.admin_key import admin_key_file
from app.cli.common import out, print_json
from app.cli.cost import OFF, cost
from app.engine.llama import check_llama
from app.engine.vllm import check_vllm
from app.exceptions import (
    ConfigurationError,
    TTCLError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.settings import EngineBackend, Settings, is_loopback, load_settings
from app.upstream.client import Upstream
from app.upstream.embeddings import EmbeddingFailed
from app.upstream.types import LoopParams
from app.wiring.factories import (
    build_distiller_server,
    build_embedder,
    build_upstream,
    load_prompts,
    opened_store,
)
from rules_store.database import migrate
from rules_store.database.engine import parse_url
from rules_store.database.engine import shown as shown_url
from rules_store.database.private import is_private
from rules_store.errors import StoreError
from rules_store.models.keys import ADMIN
from rules_store.options import DEFAULT_OPTIONS
from rules_store.store import RuleStore

app = typer.Typer(add_completion=False)

EMBEDDER_PATIENCE = 120.0
"""Seconds for a local model to be read from a slow disk."""
UPSTREAM_PATIENCE = 10.0
MOST_ASKED = 3
"""Models that are asked a question."""
PROBED = ("temperature", "seed", "max_tokens")


class CheckStatus(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: CheckStatus
    said: str
    advice: str = ""
    """What to do; empty where there is nothing."""


def ok(name: str, said: str) -> Check:
    return Check(name, CheckStatus.OK, said)


def warn(name: str, said: str, advice: str) -> Check:
    return Check(name, CheckStatus.WARN, said, advice)


def fail(name: str, said: str, advice: str) -> Check:
    return Check(name, CheckStatus.FAIL, said, advice)


async def examine(settings: Settings) -> AsyncIterator[Check]:
    """Every check in turn, as it ends."""
    yield _data_dir(settings)
    yield _prompts(settings)
    yield _admin_key(settings)
    async for check in _store(settings):
        yield check
    yield await _embedder(settings)
    yield await _upstream(settings)
    if settings.distiller_model is not None:
        yield await _distiller(settings, settings.distiller_model)
    yield ok("cost", f"{cost(settings)}; {OFF}")


def _data_dir(settings: Settings) -> Check:
    name, path = "data folder", settings.data_dir.resolve()
    existing = next(each for each in (path, *path.parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return fail(name, f"{existing} can't be written", "mend its rights, or set TTCL_DATA_DIR")
    if existing != path:
        return ok(name, f"{path} is made at the first start")
    readable = [str(each) for each in (path, *_private_files(settings)) if not is_private(each)]
    if readable:
        advice = f"chmod go= {' '.join(readable)}"
        return warn(name, f"others on this machine can read {', '.join(readable)}", advice)
    return ok(name, f"{path} can be written, and read by nobody else")


def _private_files(settings: Settings) -> list[Path]:
    """Those that are there of what is kept in the data folder, or beside the database."""
    found = [settings.data_dir / "engine.log"]
    if not settings.on_postgresql:
        with contextlib.suppress(StoreError):
            database = Path(parse_url(settings.resolved_database_url).database or "")
            found += [Path(f"{database}{end}") for end in ("", "-wal", "-shm")]
    return [each for each in found if each.exists()]


def _prompts(settings: Settings) -> Check:
    try:
        domains = load_prompts(settings).domains
    except ConfigurationError as error:
        return fail("prompts", error.message, "mend the file, or unset TTCL_PROMPTS_DIR")
    return ok("prompts", f"{settings.prompts_dir or 'the shipped ones'}: {', '.join(domains)}")


def _admin_key(settings: Settings) -> Check:
    name, path = "admin key", admin_key_file(settings)
    if settings.admin_api_key is not None:
        return ok(name, "TTCL_ADMIN_API_KEY")
    if not path.exists():
        return ok(name, f"{path} is made at the first start")
    if not os.access(path, os.R_OK) or not path.read_text().strip():
        return fail(name, f"{path} can't be read, or is empty", "delete it to get a new one")
    if not is_private(path):
        return warn(name, f"{path} can be read by others", f"chmod 600 {path}")
    return ok(name, str(path))


async def _store(settings: Settings) -> AsyncIterator[Check]:
    """Database, and what can only be seen in it: keys and index."""
    try:
        url = parse_url(settings.resolved_database_url)
    except StoreError as error:
        yield fail("database", str(error), "mend TTCL_DATABASE_URL")
        return
    shown = shown_url(url)
    if url.get_backend_name() == "sqlite" and not _exists(url.database):
        yield ok("database", f"{shown} is made at the first start")
        yield _keys(settings, 0, 0)
        return
    try:
        status = await migrate.status(settings.resolved_database_url, DEFAULT_OPTIONS)
        if status.revision is None:
            yield ok("database", f"{shown} is empty, and set up at the first start")
            yield _keys(settings, 0, 0)
            return
        if not status.is_current:
            older = f"{shown} has schema {status.revision}; this version needs {status.head}"
            yield warn("database", older, "ttcl upgrade (docs/upgrading.md)")
            return
        async with opened_store(settings, upgrade=False) as store:
            async for check in _stored(settings, store, shown):
                yield check
    except (StoreError, ConfigurationError) as error:
        yield fail("database", f"{shown}: {error}", "mend it, or set TTCL_DATABASE_URL")


async def _stored(settings: Settings, store: RuleStore, shown: str) -> AsyncIterator[Check]:
    stats = await store.stats()
    yield ok("database", f"{shown}: schema is current, {sum(stats.rules.values())} rules")
    keys = [key for key in (await store.keys.list(limit=10_000)).items if key.id != ADMIN]
    now = datetime.now(UTC)
    yield _keys(settings, sum(key.live(now) for key in keys), len(keys))
    given = settings.admin_api_key
    if given is not None and store.keys.is_rotated_away(given.get_secret_value()):
        yield warn("admin key", "TTCL_ADMIN_API_KEY was rotated away", "set it to the new one")
    parity = await store.parity()
    found = f"{parity.indexed} of {parity.stored} rules that can steer"
    if parity.unembedded:
        missing = f"{found}; {parity.unembedded} lack a vector of {store.embedding_model}"
        yield warn("index", missing, "ttcl serve makes them in the background")
    elif not parity.ok:
        yield warn("index", found, "run it again: a gateway may be writing just now")
    else:
        yield ok("index", found)


def _exists(path: str | None) -> bool:
    return Path(path or "").exists()


def _keys(settings: Settings, live: int, stored: int) -> Check:
    said = f"{len(settings.api_keys)} in TTCL_API_KEYS, {live} live in the store"
    if not settings.api_keys and not stored:
        if not is_loopback(settings.host):
            return fail(
                "keys",
                f"none, and {settings.host} is not loopback: no gateway starts",
                "make one: ttcl keys create NAME --namespace default, or set TTCL_API_KEYS",
            )
        return warn(
            "keys",
            f"none: whoever reaches {settings.host} may ask, and teach",
            "make one: ttcl keys create NAME --namespace default",
        )
    if not settings.api_keys and not live:
        return warn("keys", f"{said}: nobody may ask", "make one: ttcl keys create")
    if not is_loopback(settings.host):
        said += f"; open to the network on {settings.host}"
    return ok("keys", said)


async def _embedder(settings: Settings) -> Check:
    name = "embeddings"
    advice = "set TTCL_EMBEDDING_MODEL or TTCL_EMBEDDING_BASE_URL, or install ttcl[local]"
    try:
        embedder = build_embedder(settings)
    except ConfigurationError as error:
        return fail(name, error.message, advice)
    embedder.start()
    try:
        async with asyncio.timeout(EMBEDDER_PATIENCE):
            await embedder.embed(["ready?"])
        return ok(name, f"{embedder.name}, {embedder.dimension} dimensions")
    except EmbeddingFailed as error:
        return fail(name, error.message, advice)
    except TimeoutError:
        return fail(name, f"{embedder.name} is not there after {EMBEDDER_PATIENCE:g} s", advice)
    finally:
        await embedder.close()


async def _upstream(settings: Settings) -> Check:
    if settings.upstream_base_url is None:
        return _engine(settings)
    secret = settings.upstream_api_key
    upstream = Upstream(
        settings.upstream_base_url,
        api_key=secret.get_secret_value() if secret else None,
        timeout=UPSTREAM_PATIENCE,
        connect_timeout=settings.upstream_connect_timeout,
    )
    wanted = settings.upstream_model
    models: list[str] = []
    try:
        try:
            models = sorted(await upstream.models())
            check = _listed(settings.upstream_base_url, models, wanted)
        except TTCLError as error:
            check = _unlisted(settings.upstream_base_url, error, wanted)
        if check.verdict is not CheckStatus.FAIL:
            asked = [wanted] if wanted else models[:MOST_ASKED]
            found = [await _refused(upstream, model) for model in asked]
            check = replace(check, said="; ".join([check.said, *found]))
    finally:
        await upstream.close()
    return check


async def _distiller(settings: Settings, model: str) -> Check:
    """By one short structured question, as rules are asked for."""
    name = "distiller"
    where = settings.distiller_base_url or settings.upstream_base_url or ""
    server = build_distiller_server(settings) or build_upstream(settings, where)
    question = [{"role": "user", "content": 'Reply with JSON: {"ready": "yes"}'}]
    try:
        async with asyncio.timeout(UPSTREAM_PATIENCE):
            answer, _ = await server.structured(
                model, question, _READY, {"temperature": 0, "seed": 1, "max_tokens": 32}
            )
    except (UpstreamError, TimeoutError) as error:
        said = error.message if isinstance(error, UpstreamError) else "no answer in time"
        advice = "mend TTCL_DISTILLER_*; meanwhile the served model writes the rules"
        return warn(name, f"{where}: {model}: {said}", advice)
    finally:
        await server.close()
    form = "" if answer is not None else ", not in the form that it is asked for"
    return ok(name, f"{where}: {model} answers{form}")


_READY = {
    "type": "object",
    "properties": {"ready": {"type": "string", "enum": ["yes"]}},
    "required": ["ready"],
    "additionalProperties": False,
}


def _listed(where: str, models: list[str], wanted: str | None) -> Check:
    name = "model server"
    listed = f"{where} lists {', '.join(models) or 'no model'}"
    if wanted is not None and wanted not in models:
        return warn(name, f"{listed}, not {wanted}", "mend TTCL_UPSTREAM_MODEL if it is refused")
    if not models:
        return fail(name, listed, "load one there, or name it in TTCL_UPSTREAM_MODEL")
    return ok(name, listed)


def _unlisted(where: str, error: TTCLError, wanted: str | None) -> Check:
    name, said = "model server", f"{where}: {error.message}"
    down = isinstance(error, UpstreamUnavailable | UpstreamTimeout) or error.status == 401
    if wanted is None or down:
        return fail(name, said, "start it, or mend TTCL_UPSTREAM_BASE_URL")
    return warn(name, f"{said}: no list of models", f"{wanted} is used all the same")


async def _refused(upstream: Upstream, model: str) -> str:
    """What a model refuses of all that the loop sends, by one short question."""
    params = LoopParams({"temperature": 0, "seed": 1, "max_tokens": 1}, added=PROBED)
    question = [
        {"role": "system", "content": "Answer with one word."},
        {"role": "user", "content": "Ready?"},
    ]
    try:
        async with asyncio.timeout(UPSTREAM_PATIENCE):
            await upstream.complete(model, question, params, logprobs=True)
    except TimeoutError:
        return f"{model} gave no word in {UPSTREAM_PATIENCE:g} s"
    except UpstreamError as error:
        return f"{model} can't chat ({error.message})"
    refused = upstream.capabilities_of(model).as_dict()["refused"]
    return f"{model} {'refuses ' + ', '.join(refused) if refused else 'takes all that is sent'}"


def _engine(settings: Settings) -> Check:
    name = "model server"
    check = check_llama if settings.engine is EngineBackend.LLAMA else check_vllm
    try:
        check(settings.engine_model)
    except ConfigurationError as error:
        return fail(name, error.message, "mend it, or set TTCL_UPSTREAM_BASE_URL")
    model = settings.engine_model or "the packaged model"
    return ok(name, f"embedded {settings.engine.value} with {model}; started by ttcl serve")


STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of text")] = False,
) -> None:
    """Say what is configured, what answers and what is missing; exit code 1 where it can't work."""
    failed = asyncio.run(_examine(as_json))
    raise SystemExit(1 if failed else 0)


async def _examine(as_json: bool) -> bool:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        _show(fail("settings", error.message, "mend the environment or .env"), as_json)
        return True
    _show(ok("settings", "environment and .env can be read"), as_json)
    failed = False
    async for check in examine(settings):
        _show(check, as_json)
        failed |= check.verdict is CheckStatus.FAIL
    return failed


def _show(check: Check, as_json: bool) -> None:
    if as_json:
        print_json(asdict(check))
        return
    line = Text(f"{check.verdict.value:<5}", style=STYLES[check.verdict.value])
    line.append(f"{check.name:<13} ", style="bold").append(check.said, style="none")
    if check.advice:
        line.append(f" -> {check.advice}", style="none")
    out.print(line, soft_wrap=True)
