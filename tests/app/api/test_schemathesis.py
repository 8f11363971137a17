"""schemathesis over a running gateway: hostile inputs made from the OpenAPI document itself.

No 5xx, no undocumented status or media type, and every answer as documented. What would make the
rest pointless (a deleted or frozen namespace, a pause) runs against a gateway of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.helpers import script_loop
from tests.fakes import ScriptedUpstream
from tests.gateway import ADMIN_KEY, MODEL, Gateway, running_gateway

NAMESPACE = "default"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
DESTRUCTIVE = (
    "^(delete_namespace|freeze_namespace|roll_back|prune_rules|prune_examples|pause|revoke_key)$"
)
HOOKS = """
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
"""
CONFIG = """
hooks = "{hooks}"

[parameters]
"path.rule_id" = "{rule}"
"path.example_id" = "{example}"
"path.episode_id" = "{episode}"
"path.namespace" = "{namespace}"
"path.key_id" = "{key}"
"path.name" = "{model}"

[phases.coverage]
unexpected-methods = []
"""


@dataclass
class World:
    """A gateway with something to find: a rule, an example, an episode and a key of these ids."""

    gateway: Gateway
    rule: str
    example: str
    episode: str
    key: str


@pytest.fixture
def world(upstream: ScriptedUpstream) -> Iterator[World]:
    script_loop(upstream)
    with running_gateway(upstream, namespace=NAMESPACE) as gateway:
        rule = gateway.add_rule(NAMESPACE, "Check every sum twice.", "adding numbers")
        key = {"name": "schemathesis", "namespaces": ["*"], "permissions": ["chat"]}
        made = gateway.admin("POST", "/keys", json=key).json()
        yield World(gateway, rule["id"], _example(gateway), _episode(gateway), made["id"])


def _example(gateway: Gateway) -> str:
    """One that another contradicts."""
    body = {"namespace": NAMESPACE, "question": "What is 12 times 8?"}
    for label in ("96", "98"):
        answer = {"answer": label, "label": label}
        made = gateway.admin("POST", "/examples", json={**body, **answer})
    return str(made.json()["id"])


def _episode(gateway: Gateway) -> str:
    asked = httpx.post(
        f"{gateway.base_url}/chat/completions",
        headers=gateway.headers,
        json={
            "model": MODEL,
            "messages": [{"role": "user", "content": "What is 12 times 7?"}],
            "ttcl": {"mode": "explore"},
        },
    )
    episode = asked.headers["x-ttcl-episode"]
    gateway.settled(episode)
    return episode


def run(world: World, folder: Path, *which: str) -> subprocess.CompletedProcess[str]:
    hooks = folder / "hooks.py"
    hooks.write_text(HOOKS)
    config = folder / "schemathesis.toml"
    config.write_text(
        CONFIG.format(
            hooks=hooks,
            rule=world.rule,
            example=world.example,
            episode=world.episode,
            namespace=NAMESPACE,
            key=world.key,
            model=MODEL,
        )
    )
    command: list[Any] = [
        Path(sys.executable).with_name("schemathesis"),
        *("--config-file", config),
        *("run", f"{world.gateway.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {ADMIN_KEY}"),
        *("--phases", "examples,coverage,fuzzing"),
        *("--checks", ",".join(CHECKS)),
        *("--max-examples", "8"),
        *("--suppress-health-check", "all"),
        *("--warnings", "off"),
        "--generation-deterministic",
        "--continue-on-failure",
        "--no-shrink",
        "--no-color",
        *which,
    ]
    return subprocess.run(
        command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=300
    )


def test_nothing_undocumented(world: World, tmp_path: Path) -> None:
    done = run(world, tmp_path, "--exclude-operation-id-regex", DESTRUCTIVE)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_nothing_undocumented_where_it_destroys(world: World, tmp_path: Path) -> None:
    done = run(world, tmp_path, "--include-operation-id-regex", DESTRUCTIVE)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
