"""The OpenAPI document: complete, true to what the endpoints take, in one shape of error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.api.schemas import keys, namespaces
from app.api.schemas import rules as rule_schemas
from app.main import create_app
from app.settings import Settings
from tests.gateway import Gateway

METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"
ERROR = {"$ref": "#/components/schemas/Error"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    given = Settings(
        _env_file=None,
        upstream_base_url="http://127.0.0.1:1/v1",
        data_dir=Path(tmp_path_factory.mktemp("openapi")),
        admin_api_key="admin",
    )
    return dict(create_app(given).openapi())


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_page_of_the_api_needs_no_other_host(page: str, tmp_path: Path) -> None:
    given = Settings(
        _env_file=None,
        upstream_base_url="http://127.0.0.1:1/v1",
        data_dir=tmp_path,
        admin_api_key="admin",
    )
    transport = httpx.ASGITransport(create_app(given))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        text = (await http.get(page)).text
        assert "://" not in text
        files = re.findall(r"(?:src|href)=\"([^\"]+\.(?:js|css|png))\"", text)
        assert files
        for file in files:
            answer = await http.get(file)
            assert answer.status_code == 200
            assert len(answer.content) > 1000


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield f"{method.upper()} {path}", operation


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def examples(document: dict[str, Any], media: dict[str, Any]) -> list[Any]:
    """Those of a media type, else those of its schema."""
    if "example" in media:
        return [media["example"]]
    return list(resolve(document, media["schema"]).get("examples", []))


def problems(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_every_operation_has_a_summary_a_tag_and_a_plain_id(document: dict[str, Any]) -> None:
    known = {tag["name"] for tag in document["tags"]}
    ids = []
    for name, operation in operations(document):
        assert operation["summary"].strip(), name
        assert set(operation["tags"]) <= known, name
        assert len(operation["tags"]) == 1, name
        ids.append(operation["operationId"])
    assert len(ids) == len(set(ids)) > 40
    assert all(each.isidentifier() for each in ids)


def test_pages_are_no_part_of_it(document: dict[str, Any]) -> None:
    assert all(path.startswith(("/v1/", "/admin/v1/")) or path.count("/") == 1
               for path in document["paths"])  # fmt: skip


def test_every_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    bodies = 0
    for name, operation in operations(document):
        if "requestBody" not in operation:
            continue
        for media in operation["requestBody"]["content"].values():
            given = examples(document, media)
            assert given, name
            for value in given:
                assert problems(document, media["schema"], value) == [], name
            bodies += 1
    assert bodies > 20


def test_every_success_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        successes = [r for status, r in operation["responses"].items() if status[0] == "2"]
        assert len(successes) == 1, name
        assert successes[0]["content"], name
        for media in successes[0]["content"].values():
            given = examples(document, media)
            assert given, name
            if "itemSchema" in media:  # of each event of a stream, not of its text
                assert media["itemSchema"]["properties"], name
                continue
            schema = resolve(document, media["schema"])
            # A dict without fields would document nothing.
            assert schema["type"] == "string" or schema["properties"], name
            for value in given:
                assert problems(document, media["schema"], value) == [], name


def test_refusals_are_in_one_shape(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert "422" not in operation["responses"], name
        for status, response in operation["responses"].items():
            if status[0] == "2" or name == "GET /readyz":
                continue
            content = resolve(document, response)["content"]
            assert content[JSON]["schema"] == ERROR, (name, status)
            assert problems(document, ERROR, content[JSON]["example"]) == [], (name, status)


def test_refusals_follow_from_what_an_operation_takes(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        refusals = set(operation["responses"])
        keyed = "security" in operation
        assert keyed == (" /v1/" in name or " /admin/" in name), name
        if keyed:
            assert {"401", "403", "503"} <= refusals, name
        if "requestBody" in operation:
            assert {"400", "413"} <= refusals, name
        if "{" in name:
            assert "404" in refusals, name


def test_no_reference_leads_nowhere(document: dict[str, Any]) -> None:
    pending: list[Any] = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                assert resolve(document, node)
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    schemas = document["components"]["schemas"]
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


def test_answers_that_need_a_history_are_as_documented(gw: Gateway, namespace: str) -> None:
    """What schemathesis does not reach; fields that are not documented are refused too."""
    rules = [gw.add_rule(namespace, f"Check sum {n} twice.", "")["id"] for n in range(3)]
    key = gw.admin("POST", "/keys", json={"name": "k", "namespaces": [namespace]}).json()
    gw.admin("POST", f"/rules/{rules[2]}/quarantine", json={})
    merge = {"into": rules[0], "rules": [rules[1]]}
    back = {"to_event": gw.admin("GET", "/events").json()["data"][0]["id"]}
    path = f"/namespaces/{namespace}"
    for shape, method, address, body in (
        (rule_schemas.Rule, "POST", "/rules:merge", merge),
        (rule_schemas.Rule, "POST", f"/rules/{rules[2]}/release", {}),
        (namespaces.RolledBack, "POST", f"{path}/rollback", back),
        (keys.Key, "PATCH", f"/keys/{key['id']}", {"name": "l"}),
        (namespaces.NamespaceDeleted, "DELETE", f"{path}?confirm={namespace}", None),
    ):
        answer = gw.admin(method, address, json=body)
        assert answer.status_code == 200, answer.text
        shape.model_validate(answer.json(), extra="forbid")
