"""`/healthz` (the process), `/readyz` (what it needs, each named) and `/metrics`."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.api.dependencies import State
from app.api.schemas.common import Health, Readiness, text
from app.exceptions import TTCLError
from app.upstream.distiller_model import DistillerModel
from app.wiring.container import AppState
from rules_store.errors import StoreError

router = APIRouter(tags=["operation"])

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
LEAST_FREE = 64 * 2**20
"""Bytes below which a disk counts as full: the database writes its log before its file."""
SAMPLE = "# TYPE ttcl_rules gauge\nttcl_rules 12.0\n"


@router.get("/healthz", summary="Whether the process is alive")
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    summary="Whether requests can be answered, and what is degraded",
    responses={503: {"model": Readiness, "description": "The model server can't answer"}},
)
async def readyz(state: State, response: Response) -> Readiness:
    """503 while the upstream can't answer. A broken store or embedder leaves the service able to
    answer, unsteered: 200 with `degraded` naming it."""
    found = await readiness(state)
    response.status_code = 503 if found.status == "unavailable" else 200
    return found


async def readiness(state: AppState) -> Readiness:
    upstream = await _upstream(state)
    checks = {
        "upstream": upstream,
        "database": await _database(state),
        "index": await _index(state),
        "embedder": _embedder(state),
        "disk": await asyncio.to_thread(_disk, state),
    }
    if state.distiller_model is not None:
        checks["distiller"] = _distiller(state.distiller_model)
    degraded = [name for name, check in checks.items() if not check["ok"]]
    return Readiness(
        status="unavailable" if not upstream["ok"] else "degraded" if degraded else "ready",
        degraded=degraded,
        checks=checks,
    )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    responses=text(EXPOSITION, SAMPLE, description="Prometheus' text format"),
    response_class=Response,
)
async def metrics(state: State) -> Response:
    return Response(state.metrics.render(), media_type=EXPOSITION)


async def _upstream(state: AppState) -> dict[str, Any]:
    try:
        models = await state.upstream.models()
    except TTCLError as error:
        return {"ok": False, "reason": error.message}
    return {
        "ok": bool(models),
        "models": sorted(models),
        "capabilities": {
            name: found.as_dict() for name, found in sorted(state.upstream.capabilities.items())
        },
    }


async def _database(state: AppState) -> dict[str, Any]:
    try:
        await state.store.ping()
    except StoreError as error:
        return {"ok": False, "reason": str(error)}
    return {"ok": True}


async def _index(state: AppState) -> dict[str, Any]:
    try:
        parity = await state.store.parity()
    except StoreError as error:
        return {"ok": False, "reason": str(error)}
    return {
        "ok": parity.indexed == parity.stored and parity.examples_indexed == parity.examples_stored,
        "indexed": parity.indexed,
        "stored": parity.stored,
        "without_embedding": parity.unembedded,
        "examples_indexed": parity.examples_indexed,
        "examples_stored": parity.examples_stored,
        "examples_without_embedding": parity.examples_unembedded,
        "events_behind": parity.behind,
    }


def _distiller(model: DistillerModel) -> dict[str, Any]:
    """As its last call in this process went; without it the served model writes the rules."""
    check: dict[str, Any] = {"ok": model.failure is None, "model": model.name}
    return check if model.failure is None else {**check, "reason": model.failure}


def _embedder(state: AppState) -> dict[str, Any]:
    embedder = state.embedder
    check: dict[str, Any] = {"ok": embedder.ready, "model": embedder.name}
    if not embedder.ready:
        check["reason"] = getattr(embedder, "failure", None) or "loading"
    elif state.reembedding.failure is not None:
        check |= {"ok": False, "reason": state.reembedding.failure}
    elif state.reembedding.changed:
        reason = "the model has changed: what is stored is being embedded anew"
        check |= {"ok": False, "reason": reason}
    return check


def _disk(state: AppState) -> dict[str, Any]:
    """Of the data folder: the database (SQLite), snapshots, logs."""
    try:
        free = shutil.disk_usage(state.settings.data_dir).free
    except OSError as error:
        return {"ok": False, "reason": f"the data folder can't be read: {error.strerror}"}
    check: dict[str, Any] = {"ok": free >= LEAST_FREE, "free_bytes": free}
    if free < LEAST_FREE:
        check["reason"] = f"less than {LEAST_FREE} bytes are free"
    return check
