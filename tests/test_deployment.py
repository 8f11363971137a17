"""The files of docs/deployment and docker-compose.yml name what is really there.

Where Compose's own client is not installed (make compose) its check is skipped; with
REQUIRE_COMPOSE=1 that is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.observability.metrics import Metrics
from app.settings import PREFIX, SETTINGS
from tests.required import lacking

ROOT = Path(__file__).parents[1]
DEPLOYMENT = ROOT / "docs" / "deployment"
COMPOSE = ROOT / "docker-compose.yml"


def exported() -> set[str]:
    """Names as Prometheus knows them."""
    names = set[str]()
    metrics = Metrics()
    metrics.follow(
        backlog=lambda: 0.0,
        indexed=lambda: 0.0,
        examples_indexed=lambda: 0.0,
    )
    metrics.follow_effect(suspended=list, signals=list)
    for family in metrics.registry.collect():
        if family.type == "counter":
            names.add(f"{family.name}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}{end}" for end in ("_bucket", "_count", "_sum")}
        else:
            names.add(family.name)
    return names


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_every_metric_that_is_asked_for_is_exported(name: str) -> None:
    text = (DEPLOYMENT / name).read_text()
    asked = set(re.findall(r"\bttcl_[a-z_]+", text))
    assert asked
    assert asked <= exported()


def test_the_dashboard_is_one() -> None:
    board = json.loads((DEPLOYMENT / "grafana.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 9
    assert all(panel["targets"] for panel in board["panels"])


def services() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def test_compose_runs_what_the_docs_say() -> None:
    found = services()
    shared = {"vllm", "postgres", "gateway-1", "gateway-2", "worker", "front", "prometheus"}
    assert {name for name, each in found.items() if "gpu" in each["profiles"]} == shared
    assert {name for name, each in found.items() if "cpu" in each["profiles"]} == {"gateway-cpu"}
    for each in found.values():
        for mount in each.get("volumes", ()):
            source = mount.split(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_file(), source
    assert found["worker"]["command"][:2] == ["ttcl", "worker"]


def compose_client() -> list[str]:
    """The command: of Docker's plugin, or of the program that came before it."""
    if shutil.which("docker") is not None:
        plugin = ["docker", "compose"]
        if subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
            return plugin
    if shutil.which("docker-compose") is not None:
        return ["docker-compose"]
    lacking("REQUIRE_COMPOSE", "there is no Compose client (make compose)")


def composed(folder: Path, profile: str, **secrets: str) -> subprocess.CompletedProcess[str]:
    """What Compose makes of the file; without an engine, and with no .env of this checkout."""
    nothing = folder / "env"
    nothing.touch()
    command = ["-f", str(COMPOSE), "--env-file", str(nothing), "--profile", profile, "config"]
    environment = {"PATH": os.environ["PATH"], **secrets}
    return subprocess.run(
        [*compose_client(), *command], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_compose_accepts_its_file(tmp_path: Path, profile: str) -> None:
    keys = {"TTCL_API_KEYS": "key-of-a-client", "TTCL_ADMIN_API_KEY": "key-of-admin"}
    done = composed(tmp_path, profile, **keys)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    gateways = {name: each for name, each in resolved.items() if name.startswith("gateway")}
    assert gateways
    for each in gateways.values():
        assert each["environment"]["TTCL_API_KEYS"] == "key-of-a-client"
    if profile == "gpu":
        databases = {
            resolved[name]["environment"]["TTCL_DATABASE_URL"]
            for name in ("gateway-1", "gateway-2", "worker")
        }
        assert databases == {"postgresql://ttcl:ttcl@postgres/ttcl"}


def test_compose_refuses_to_start_without_keys(tmp_path: Path) -> None:
    done = composed(tmp_path, "cpu")
    assert done.returncode != 0
    assert "set TTCL_API_KEYS to the client keys" in done.stderr


def settings_in(text: str) -> set[str]:
    return {name.lower() for name in re.findall(rf"\b{PREFIX}([A-Z_]+)\b", text)}


@pytest.mark.parametrize(
    "path",
    [COMPOSE, DEPLOYMENT / "kubernetes.yaml", ROOT / "Dockerfile", ROOT / "docs" / "deployment.md"],
)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = settings_in(path.read_text())
    assert named
    assert named <= set(SETTINGS)


def test_kubernetes_objects_are_whole() -> None:
    objects = list(yaml.safe_load_all((DEPLOYMENT / "kubernetes.yaml").read_text()))
    kinds = [each["kind"] for each in objects]
    assert kinds == ["ConfigMap", "Deployment", "Deployment", "Service", "PodDisruptionBudget"]
    for each in objects[1:3]:
        template = each["spec"]["template"]
        assert template["metadata"]["labels"] == each["spec"]["selector"]["matchLabels"]
        assert template["spec"]["terminationGracePeriodSeconds"] > 30
        assert template["spec"]["securityContext"]["runAsNonRoot"]
