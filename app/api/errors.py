"""One shape for every error: `{"error": {"message", "type", "param", "code"}}`, and on the paths of
another format that format's own."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.chat.formats import FORMATS
from app.chat.request import param_name
from app.exceptions import Conflict, InvalidRequest, NotFound, Overloaded, StaleVersion, TTCLError
from rules_store import errors as store

log = structlog.get_logger(__name__)


def from_store(error: store.StoreError) -> TTCLError:
    """The HTTP face of what the store refused."""
    if isinstance(error, store.UnknownNamespace):
        return NotFound(str(error), param="namespace", code="namespace_not_found")
    if isinstance(error, store.UnknownRule):
        return NotFound(str(error), param="rule", code="rule_not_found")
    if isinstance(error, store.UnknownExample):
        return NotFound(str(error), param="example", code="example_not_found")
    if isinstance(error, store.UnknownEpisode):
        return NotFound(str(error), param="episode", code="episode_not_found")
    if isinstance(error, store.UnknownKey):
        return NotFound(str(error), param="key", code="key_not_found")
    if isinstance(error, store.FeedbackConflict):
        return Conflict(str(error), param="key", code="feedback_conflict")
    if isinstance(error, store.UnknownEvent):
        return NotFound(str(error), param="event", code="event_not_found")
    if isinstance(error, store.UnknownJob):
        return NotFound(str(error), param="job", code="job_not_found")
    if isinstance(error, store.NamespaceFrozen):
        return Conflict(str(error), param="namespace", code="namespace_frozen")
    if isinstance(error, store.DuplicateRows):
        return Conflict(str(error), param="body", code="rows_exist")
    if isinstance(error, store.DuplicateNamespace):
        return Conflict(str(error), param="name", code="namespace_exists")
    if isinstance(error, store.DuplicateSnapshot):
        return Conflict(str(error), param="label", code="snapshot_exists")
    if isinstance(error, store.InvalidSetting):
        return InvalidRequest(f"settings.{error}", param=f"settings.{error.field}")
    if isinstance(error, store.InvalidCursor):
        return InvalidRequest(str(error), param="cursor")
    if isinstance(error, store.VersionConflict):
        return StaleVersion(str(error), current=error.current)
    if isinstance(error, store.PreviewOutdated):
        return Conflict(str(error), param=error.field, code="preview_outdated")
    if isinstance(error, store.DuplicateRule | store.DuplicateExample | store.InvalidTransition):
        return Conflict(str(error))
    if isinstance(error, store.InvalidVector):
        # Of the embedder's own making: it has become another one, and that will be noticed.
        return Overloaded(
            "The embedding model has changed: try again soon",
            code="embedder_changed",
            retry_after=5,
        )
    if isinstance(error, store.StoreUnavailable):
        return Overloaded(str(error), code="store_unavailable", retry_after=1)
    return TTCLError(str(error))


def render(error: TTCLError, path: str = "") -> JSONResponse:
    """`path`: which was asked for."""
    headers = {}
    if isinstance(error, StaleVersion):
        headers["X-TTCL-Current-Version"] = str(error.current)
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(_body(error, path), status_code=error.status, headers=headers)


def _body(error: TTCLError, path: str) -> dict[str, Any]:
    for beginning, fmt in FORMATS.items():
        if path == beginning or path.startswith(f"{beginning}/"):
            return fmt.error(error)
    return error.envelope()


def install(app: FastAPI) -> None:
    """Register the handlers that keep this promise."""

    @app.exception_handler(TTCLError)
    async def _own(request: Request, error: TTCLError) -> JSONResponse:
        return render(error, request.scope["path"])

    @app.exception_handler(store.StoreError)
    async def _store(request: Request, error: store.StoreError) -> JSONResponse:
        return render(from_store(error), request.scope["path"])

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return render(InvalidRequest("The body is not valid JSON", code="invalid_json"))
        param = param_name(tuple(first["loc"][1:])) or "body"
        return render(InvalidRequest(f"{param}: {first['msg']}", param=param))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        path = request.url.path
        if error.status_code == 404:
            response = render(NotFound(f"Unknown path: {request.method} {path}"), path)
        else:
            # 405 and whatever else the framework raises
            phrase = HTTPStatus(error.status_code).phrase
            wrapped = InvalidRequest(
                f"{phrase}: {request.method} {path}", code="method_not_allowed"
            )
            wrapped.status = error.status_code
            response = render(wrapped, path)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", path=request.url.path, error=error, exc_info=error)
        failed = TTCLError("The server had an error while processing your request")
        return render(failed, request.scope["path"])
