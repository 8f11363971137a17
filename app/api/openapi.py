"""The OpenAPI document: what FastAPI sees in the endpoints, completed by what all of them share.

An endpoint documents its answer by its return type, and its own refusals by their bare status.
What follows from its path and what it takes is added here: keys (401, 403), wrong values (400),
bodies (413), unknown things (404), the store (503).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.schemas.common import Error
from app.api.schemas.feedback import FeedbackBatchBody
from app.chat.request import ChatRequest
from app.exceptions import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    TooManyRequests,
    TTCLError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

DESCRIPTION = """\
An OpenAI-compatible gateway whose answers are steered by learned rules and verified examples, and
the base of both.

Every error is an `Error`, on every path; a wrong value is named in `param`. Lists have `data`,
`next_cursor` and an exact `total`. Every change takes an `actor` and a `reason` into the log.
"""
TAGS = [
    {"name": "chat", "description": "What OpenAI clients use"},
    {"name": "rules", "description": "What was learned: read, questioned, changed, undone"},
    {"name": "examples", "description": "Verified answers: read, questioned, changed, settled"},
    {"name": "episodes", "description": "What was asked, and what came of it"},
    {"name": "namespaces", "description": "Isolation, settings, snapshots, rollback"},
    {"name": "jobs", "description": "Learning that waits, runs or failed"},
    {"name": "events", "description": "The log of every change"},
    {"name": "keys", "description": "Who may come in, where, and how often"},
    {"name": "operation", "description": "Whether it lives, what is degraded, what it costs"},
]
METHODS = ("get", "post", "patch", "put", "delete")
CLIENT, ADMIN = "/v1/", "/admin/v1/"
BEARER = "bearer"


class Refusal(NamedTuple):
    name: str
    description: str
    example: TTCLError
    headers: tuple[tuple[str, str], ...] = ()


_RETRY = (("Retry-After", "Seconds to wait"),)
REFUSALS = {
    "400": Refusal(
        "BadRequest",
        "A value is wrong; `param` names it",
        InvalidRequest("limit: Input should be less than or equal to 500", param="limit"),
    ),
    "401": Refusal(
        "Unauthorized",
        "No key, or none that lives",
        AuthenticationFailed("Incorrect API key provided"),
        (("WWW-Authenticate", "Bearer"),),
    ),
    "403": Refusal(
        "Forbidden",
        "The key may not do this, or not there",
        NotAllowed("This key lacks the permission 'admin-write'"),
    ),
    "404": Refusal(
        "NotFound",
        "There is no such thing, or not for this key",
        NotFound("There is no namespace 'suport'", param="namespace", code="namespace_not_found"),
    ),
    "409": Refusal(
        "Conflict",
        "It has changed meanwhile, is frozen, is there already, or is in the wrong state",
        Conflict(
            "The rule has version 3 by now", param="expected_version", code="version_conflict"
        ),
        (("X-TTCL-Current-Version", "The version now, where that is what differs"),),
    ),
    "413": Refusal(
        "TooLarge",
        "The body is too large",
        PayloadTooLarge("The body is larger than 20000000 bytes"),
    ),
    "429": Refusal(
        "TooManyRequests",
        "The key's rate or budget is used up",
        TooManyRequests("This key may make 60 requests a minute"),
        _RETRY,
    ),
    "502": Refusal(
        "BadGateway",
        "The model server failed",
        UpstreamUnavailable("The model server can't be reached"),
    ),
    "503": Refusal(
        "Unavailable",
        "The database, the embedding model or the model server can't be used now",
        Overloaded("The database is busy: a write is stuck.", code="store_unavailable"),
        _RETRY,
    ),
    "504": Refusal(
        "GatewayTimeout",
        "The model server did not answer in time",
        UpstreamTimeout("The model server did not answer in time"),
    ),
    "4XX": Refusal(
        "Refused",
        "The model server refused the request: its own status and error",
        InvalidRequest("max_tokens is too large", param="max_tokens"),
    ),
}


def install(app: FastAPI) -> None:
    """The document is made at its first reading."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas.update(_unseen())
    components["responses"] = {each.name: _response(each) for each in REFUSALS.values()}
    components["securitySchemes"] = {BEARER: {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                _complete(path, operation)
    return document


def _unseen() -> dict[str, Any]:
    """Schemas that no endpoint's signature shows: refusals, and the chat body, which is read by its
    own parser."""
    _, found = models_json_schema(
        [
            (ChatRequest, "validation"),
            (FeedbackBatchBody, "validation"),
            (Error, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _response(refusal: Refusal) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": refusal.description,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "example": refusal.example.envelope(),
            }
        },
    }
    if refusal.headers:
        response["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in refusal.headers
        }
    return response


def _complete(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if responses.pop("422", None) is not None or path.startswith((CLIENT, ADMIN)):
        for status in _implied(path, operation):
            responses.setdefault(status, {})
    for status in responses:
        if status in REFUSALS and "content" not in responses[status]:
            responses[status] = {"$ref": f"#/components/responses/{REFUSALS[status].name}"}
    operation["responses"] = dict(sorted(responses.items()))
    if path.startswith(ADMIN):
        operation["security"] = [{BEARER: []}]
    elif path.startswith(CLIENT):
        # A gateway without keys, which is one on loopback only, asks for none.
        operation["security"] = [{BEARER: []}, {}]


def _implied(path: str, operation: dict[str, Any]) -> list[str]:
    """Statuses that follow from where an endpoint is and what it takes."""
    statuses = ["401", "403", "503"] if path.startswith((CLIENT, ADMIN)) else []
    parameters = operation.get("parameters", [])
    if parameters or "requestBody" in operation:
        statuses.append("400")
    if "requestBody" in operation:
        statuses.append("413")
    if any(each["in"] == "path" or each["name"] == "namespace" for each in parameters):
        statuses.append("404")
    return statuses


def operation_id(route: Any) -> str:
    """Operation ids are the endpoints' names: clients are generated from them."""
    return str(route.name)
