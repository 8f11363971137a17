"""What docker-compose.yml and docs/deployment/kubernetes.yaml start is started here: with their
commands and exactly their environment, as the image's user, on a file system that can't be written.

What a cluster finds by a name (model server, database) and the ports are this machine's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.engine.address import free_port
from app.settings import load_settings
from app.wiring.worker_process import check
from tests import postgres
from tests.compat.helpers import ask, script_loop, script_majority
from tests.e2e.image import DATA, container, environment
from tests.e2e.service import wait_until
from tests.fakes import ScriptedUpstream
from tests.gateway import ADMIN_KEY, CLIENT_KEY, Gateway
from tests.test_deployment import DEPLOYMENT, composed

PATIENCE = 300
"""Seconds, on a machine that is busy with others."""
PASSWORD = "p@ss/w#rd"
SECRETS = {
    "api-keys": CLIENT_KEY,
    "admin-key": ADMIN_KEY,
    "database-url": "postgresql://ttcl@postgres/ttcl",
}
Started = dict[str, dict[str, Any]]
"""By the name of a container: `command` and `environment`."""


def kubernetes(secrets: dict[str, str]) -> Started:
    """What the cluster would start, with what its ConfigMap and its Secret hold."""
    objects = list(yaml.safe_load_all((DEPLOYMENT / "kubernetes.yaml").read_text()))
    maps = {
        each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"
    }
    found: Started = {}
    for each in objects:
        if each["kind"] != "Deployment":
            continue
        (pod,) = each["spec"]["template"]["spec"]["containers"]
        given: dict[str, str] = {}
        for source in pod["envFrom"]:
            given |= maps[source["configMapRef"]["name"]]
        for variable in pod["env"]:
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            given[variable["name"]] = secrets[secret["key"]] if secret else variable["value"]
        found[pod["name"]] = {"command": pod["args"], "environment": given}
    return found


def compose(folder: Path, profile: str) -> Started:
    """What Compose would start of our own image."""
    done = composed(
        folder,
        profile,
        TTCL_API_KEYS=CLIENT_KEY,
        TTCL_ADMIN_API_KEY=ADMIN_KEY,
        POSTGRES_PASSWORD=PASSWORD,
    )
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    return {
        name: {
            "command": each.get("command") or ["ttcl", "serve"],
            "environment": {k: v for k, v in each["environment"].items() if v is not None},
        }
        for name, each in resolved.items()
        # Not every client leaves out what other profiles start.
        if each["image"].startswith("ttcl:") and profile in each.get("profiles", [profile])
    }


class Machine:
    """This one, in place of a cluster: starts containers beside each other."""

    def __init__(self, stack: ExitStack, folder: Path, places: dict[str, str]) -> None:
        """`places`: a variable's value here, where it names something of the cluster."""
        self._stack = stack
        self._folder = folder
        self._places = places

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> Gateway:
        port = str(free_port())
        data, log = self._folder / name, self._folder / f"{name}.log"
        data.mkdir()
        known = {key: value for key, value in self._places.items() if key in environment}
        given = {**environment, **known, "TTCL_PORT": port, "TTCL_DATA_DIR": DATA}
        # The one port of a worker.
        command = [port if part == "9100" else part for part in command]
        process = self._stack.enter_context(container(command, given, data, log))
        gateway = Gateway(f"http://127.0.0.1:{port}")
        if command[1] == "serve":
            wait_until(gateway, lambda: process.poll() is None, log, PATIENCE, "ready")
        else:
            deadline = time.monotonic() + PATIENCE
            while "jobs_at_a_time" not in log.read_text():
                alive = process.poll() is None and time.monotonic() < deadline
                assert alive, log.read_text()[-2000:]
                time.sleep(0.05)
        return gateway


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        script_loop(server)
        script_majority(server, teacher=r"\boxed{6}", students=r"\boxed{7}")
        yield server


@pytest.fixture(scope="module")
def started(
    upstream: ScriptedUpstream, postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Gateway]]:
    """The cluster's two, on an empty database, and Compose's one without a GPU."""
    folder = tmp_path_factory.mktemp("manifests")
    with ExitStack() as stack:
        database = stack.enter_context(postgres.database(postgres_server))
        wanted = {**kubernetes({**SECRETS, "database-url": database}), **compose(folder, "cpu")}
        machine = Machine(stack, folder, {"TTCL_UPSTREAM_BASE_URL": upstream.base_url})
        with ThreadPoolExecutor() as pool:
            gateways = pool.map(lambda name: machine.start(name, **wanted[name]), wanted)
            yield dict(zip(wanted, gateways, strict=True))


def test_all_of_them_start(started: dict[str, Gateway]) -> None:
    assert set(started) == {"gateway", "worker", "gateway-cpu"}


def test_the_worker_learns_what_the_gateway_was_asked(started: dict[str, Gateway]) -> None:
    gateway = started["gateway"]
    asked = httpx.post(
        f"{gateway.base_url}/chat/completions",
        headers=gateway.headers,
        json=ask("explore", ttcl={"namespace": "default"}),
        timeout=PATIENCE,
    )
    assert asked.status_code == 200, asked.text
    episode = gateway.settled(asked.json()["ttcl"]["episode"], within=PATIENCE)
    assert episode["status"] == "learned", episode["reason"]


@pytest.mark.parametrize("name", ["gateway-1", "gateway-2", "worker"])
def test_compose_gives_its_containers_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With a GPU they are the cluster's, so their settings alone are looked at."""
    found = compose(tmp_path, "gpu")
    monkeypatch.chdir(tmp_path)
    for variable, value in {**environment(), **found[name]["environment"]}.items():
        monkeypatch.setenv(variable, value)
    if found[name]["command"][1] == "worker":
        check(load_settings())
        return
    settings = load_settings()
    # Of the two one learns, as somebody must: the worker.
    assert settings.learn_concurrency == 0
    assert "worker" in found
    # The proxy is believed, and a password may hold any character.
    assert found[name]["environment"]["FORWARDED_ALLOW_IPS"] == "*"
    assert found[name]["environment"]["PGPASSWORD"] == PASSWORD
    assert found[name]["environment"]["TTCL_DATABASE_URL"] == SECRETS["database-url"]
