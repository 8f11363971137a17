"""Real model servers for tests, each started once per session.

pytest_plugins = ["tests.engine_fixture"]      in the root conftest, then

embedded_engine   base URL, without /v1, of llama.cpp with the packaged SmolLM2 (mark: engine)
vllm_server       base URL, without /v1, of vLLM on the same weights (mark: vllm)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.engine.address import free_port
from app.engine.models import PACKAGED_NAME
from app.engine.process import log_tail
from app.engine.vllm import find_python
from app.exceptions import ConfigurationError

ROOT = Path(__file__).parents[1]
MODEL = PACKAGED_NAME


@contextmanager
def running_engine(log: Path, *arguments: str, within: float) -> Iterator[str]:
    """`python -m app.engine serve` with `arguments` on a free port; yields its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "app.engine", "serve", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--exit-with-parent", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, log, within)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, within: float) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the engine ended with code {process.returncode}:\n{log_tail(log, 30)}")
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the engine was not ready within {within:g} s:\n{log_tail(log, 30)}")


@pytest.fixture(scope="session")
def embedded_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("engine") / "llama.log"
    with running_engine(log, "--backend", "llama", within=60) as url:
        yield url


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Skips where vLLM is not installed, unless TTCL_TEST_VLLM=1 says that it must be. The model
    that `make engine-vllm` converted is used, or converted now."""
    try:
        python = find_python()
    except ConfigurationError as error:
        if os.environ.get("TTCL_TEST_VLLM") == "1":
            pytest.fail(error.message)
        pytest.skip(error.message)
    log = tmp_path_factory.mktemp("engine") / "vllm.log"
    options = ["--vllm-python", str(python.path), "--data-dir", str(ROOT / ".ttcl")]
    with running_engine(log, "--backend", "vllm", *options, within=600) as url:
        yield url
