"""Values that no honest client sends, in every parameter and body field of the admin API: each is
refused or taken, in our shape, and never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.gateway import ADMIN_KEY, Gateway

TEXTS = ("\ud800", "a\x00b", "9" * 400, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")
VALUES = (*TEXTS, 2**63, -(10**30), 10**400, float("inf"), ["\ud800"], {"\ud800": "\x00"}, None)
SKIPPED = ("/v1/chat/completions", "/admin/v1/jobs:pause")
"""Tested elsewhere; a pause would outlive the test."""


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def filled(path: str, parameters: list[dict[str, Any]], one: str = "", value: str = "") -> str:
    """The address with every parameter that it needs, and `value` for the one."""
    query = []
    for each in parameters:
        name = each["name"]
        given = encoded(value) if name == one else "1" if name == "job_id" else "nowhere"
        if each["in"] == "path":
            path = path.replace(f"{{{name}}}", given)
        elif name == one or each.get("required"):
            query.append(f"{name}={given}")
    return path + ("?" + "&".join(query) if query else "")


def requests(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Method, address and body of each."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        if path in SKIPPED:
            continue
        for method, operation in methods.items():
            parameters = operation.get("parameters", [])
            content = operation.get("requestBody", {}).get("content", {})
            reference = content.get("application/json", {}).get("schema", {}).get("$ref", "/")
            schema = schemas.get(reference.rpartition("/")[2], {"examples": [None]})
            body = schema["examples"][0]
            for each in parameters:
                if each["in"] != "header":
                    for text in TEXTS:
                        yield method, filled(path, parameters, each["name"], text), body
            for name in schema.get("properties", {}):
                for value in VALUES:
                    yield method, filled(path, parameters), {**body, name: value}


def test_no_value_is_too_odd(gw: Gateway) -> None:
    document = httpx.get(f"{gw.url}/openapi.json").json()
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
    sent = 0
    with httpx.Client(base_url=gw.url, headers=headers, timeout=30) as client:
        for method, address, body in requests(document):
            content = None if body is None else json.dumps(body)
            answer = client.request(method, address, content=content)
            assert answer.status_code < 500, (method, address[:200], body, answer.text)
            if answer.status_code >= 400:
                assert set(answer.json()) == {"error"}, (method, address[:200])
            sent += 1
    assert sent > 1000


@pytest.mark.parametrize("field", ["created_after", "created_before"])
def test_a_moment_out_of_range_is_named(gw: Gateway, field: str) -> None:
    answer = gw.admin("GET", "/rules", params={field: "0001-01-01T00:00:00+14:00"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
