"""`python -m app.cli.described`: writes what commands are made of (`operations.json`) from the
OpenAPI document of the admin API. To be run where that has changed; a test says so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from app.cli.operations import DESCRIPTION, PREFIX, Operation, Parameter
from app.main import describe_admin_api

JSON, JSON_LINES = "application/json", "application/x-ndjson"
FEEDBACK = "/v1/feedback"


def description() -> str:
    """The content of the file: an operation a line."""
    document = describe_admin_api()
    lines = [json.dumps(_plain(each), ensure_ascii=False) for each in _operations(document)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _plain(operation: Operation) -> dict[str, Any]:
    """Without what is as it is by default."""
    parameters = [
        {name: value for name, value in asdict(each).items() if value not in ("", (), False)}
        | {"required": each.required}
        for each in operation.parameters
    ]
    return {**asdict(operation), "parameters": parameters}


def _operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        if path.startswith((PREFIX, FEEDBACK)):
            for method, described in methods.items():
                yield _operation(document, path, method, described)


def _operation(
    document: dict[str, Any], path: str, method: str, described: dict[str, Any]
) -> Operation:
    content = described.get("requestBody", {}).get("content", {})
    takes_lines = JSON_LINES in content
    body = {} if takes_lines else _resolved(document, content.get(JSON, {}).get("schema", {}))
    answer, is_list = _answer(described["responses"])
    query = [
        _parameter(document, each["name"], each["in"], each["schema"], each["required"])
        for each in described.get("parameters", [])
        if each["in"] != "header"
    ]
    fields = [
        _parameter(document, name, "body", schema, name in body.get("required", ()))
        for name, schema in body.get("properties", {}).items()
    ]
    # Who and why come last, wherever a body has them.
    fields.sort(key=lambda each: each.name in ("actor", "reason"))
    parameters = (*query, *fields)
    return Operation(
        described["operationId"],
        method,
        path,
        described["summary"],
        parameters,
        takes_lines,
        answer,
        is_list,
    )


def _answer(responses: dict[str, Any]) -> tuple[str | None, bool]:
    content = next(each for status, each in responses.items() if status < "3").get("content", {})
    if JSON not in content:
        return None, False
    name = content[JSON]["schema"]["$ref"].rpartition("/")[2]
    listed = re.fullmatch(r"ListOf_(\w+)_", name)
    return (listed[1], True) if listed else (name, False)


def _parameter(
    document: dict[str, Any], name: str, place: Any, schema: dict[str, Any], required: bool
) -> Parameter:
    every = schema.get("anyOf", [schema])
    options = [each for each in every if each.get("type") != "null"]
    one = _resolved(document, options[0])
    told = (
        schema.get("description") or one.get("description", "")
        if "anyOf" in schema
        else (schema.get("description", ""))
    )
    default = schema.get("default")
    if default not in (None, "", False) and name != "actor" and not isinstance(default, dict):
        told = f"{told} [default: {default}]".strip()
    choices = tuple(one.get("enum", ()))
    is_moment = one.get("format") == "date-time"
    return Parameter(
        name,
        place,
        "choice" if choices else one.get("type", "object"),
        required,
        told,
        choices,
        is_moment=is_moment,
        nullable=len(options) < len(every),
        may_be_empty=not (is_moment or choices)
        and one.get("type") == "string"
        and not one.get("minLength"),
    )


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


if __name__ == "__main__":
    DESCRIPTION.write_text(description(), encoding="utf-8")
