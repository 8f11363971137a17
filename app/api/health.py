"""`/healthz` (the process), `/readyz` (what it needs, each named) and `/metrics`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.api.dependencies import State
from app.api.schemas.common import Health, Readiness, gives, text
from app.exceptions import TTCLError
from app.wiring.container import AppState
from rules_store.errors import StoreError

router = APIRouter(tags=["operation"])

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
SAMPLE = "# TYPE ttcl_rules gauge\nttcl_rules 12.0\n"
READY = {
    **gives(Readiness, description="Requests can be answered"),
    **gives(Readiness, status=503, description="The model server can't answer"),
}


@router.get("/healthz", summary="Whether the process is alive", responses=gives(Health))
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz", summary="Whether requests can be answered, and what is degraded", responses=READY
)
async def readyz(state: State) -> JSONResponse:
    """503 while the upstream can't answer. A broken store or embedder leaves the service able to
    answer, unsteered: 200 with `degraded` naming it."""
    body = await readiness(state)
    return JSONResponse(body, status_code=503 if body["status"] == "unavailable" else 200)


async def readiness(state: AppState) -> dict[str, Any]:
    """`status` (ready | degraded | unavailable), `degraded` (names) and each check."""
    upstream = await _upstream(state)
    checks = {
        "upstream": upstream,
        "database": await _database(state),
        "index": await _index(state),
        "embedder": _embedder(state),
    }
    degraded = [name for name, check in checks.items() if not check["ok"]]
    status = "unavailable" if not upstream["ok"] else "degraded" if degraded else "ready"
    return {"status": status, "degraded": degraded, "checks": checks}


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
        "capabilities": state.upstream.capabilities.as_dict(),
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
        "ok": parity.indexed == parity.stored,
        "indexed": parity.indexed,
        "stored": parity.stored,
        "without_embedding": parity.unembedded,
        "events_behind": parity.behind,
    }


def _embedder(state: AppState) -> dict[str, Any]:
    embedder = state.embedder
    check: dict[str, Any] = {"ok": embedder.ready, "model": embedder.name}
    if not embedder.ready:
        check["reason"] = getattr(embedder, "failure", None) or "loading"
    return check
