"""The processes under measurement: an instant upstream and a gateway in front of it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from app.exceptions import ConfigurationError

ADMIN_KEY = "benchmark-admin-key"
START_SECONDS = 90.0


class Client:
    """One keep-alive connection; only the standard library is between clock and socket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        payload = None if body is None else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        self._connection.request(method, path, payload, sent)
        response = self._connection.getresponse()
        content = response.read()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, content

    def stream(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, float]:
        """Status of a streamed answer, and the moment (`time.perf_counter`) at which its first
        bytes were there; the rest is read as well."""
        sent = {"Content-Type": "application/json", **headers}
        self._connection.request("POST", path, orjson.dumps(body), sent)
        response = self._connection.getresponse()
        response.read1()
        first = time.perf_counter()
        response.read()
        return response.status, first

    def sibling(self) -> Client:
        """Another connection to the same place."""
        return Client(self._port)

    def close(self) -> None:
        self._connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def scripted_upstream(*options: str) -> Iterator[int]:
    """Yields its port; see `benchmarks.model_server` for the options."""
    port = free_port()
    module = [sys.executable, "-m", "benchmarks.model_server"]
    with running([*module, "--port", str(port), *options], {}) as process:
        wait_for(process, port, "/health", b"")
        yield port


@contextmanager
def gateway(upstream_port: int, folder: Path, **settings: str) -> Iterator[tuple[int, int]]:
    """Yields port and process id. `settings` are TTCL_ variables without the prefix."""
    port = free_port()
    environment = {
        "UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "DATA_DIR": str(folder),
        "PORT": str(port),
        "ADMIN_API_KEY": ADMIN_KEY,
        "LOG_LEVEL": "ERROR",
        # Whoever measures steering measures every request.
        "CONTROL_RATE": "0",
        **settings,
    }
    variables = {f"TTCL_{name}": value for name, value in environment.items()}
    with running([sys.executable, "-m", "app.cli", "serve"], variables) as process:
        wait_for(process, port, "/readyz", b'"status":"ready"')
        yield port, process.pid


@contextmanager
def running(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the block is left; what it prints is not shown."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TTCL_")}
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [inherited.get("PYTHONPATH")])]
    process = subprocess.Popen(
        command,
        env={**inherited, **variables, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=variables.get("TTCL_DATA_DIR"),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """This thread, and processes that are started in the block, keep to these cores; with none, to
    any."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def divided_cores() -> tuple[set[int], set[int]]:
    """One core for whoever asks and answers, the others for what is measured between them; two
    empty sets where there is but one."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (set(), set())


def wait_for(process: subprocess.Popen[bytes], port: int, path: str, needle: bytes) -> None:
    """Until GET `path` is answered with 200 and `needle`. Raises `ConfigurationError`."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ConfigurationError(f"a process under measurement ended with {process.returncode}")
        client = Client(port)
        try:
            status, _, content = client.send("GET", path)
            if status == 200 and needle in content:
                return
        except OSError:
            pass
        finally:
            client.close()
        time.sleep(0.1)
    raise ConfigurationError(f"nothing ready at port {port} within {START_SECONDS:.0f} s")


def memory(pid: int) -> dict[str, float]:
    """MiB resident now and at most so far (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "resident": int(rows["VmRSS"].split()[0]) / 1024,
        "peak": int(rows["VmHWM"].split()[0]) / 1024,
    }
