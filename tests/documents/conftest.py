"""A service as `make run` starts it, and a shell in which its pages are typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.engine.address import free_port
from tests.documents.pages import ROOT
from tests.documents.warm_cli import write_command
from tests.e2e.service import end

PRINTED = "http://127.0.0.1:8080"
"""Where the pages say that the service is."""


@dataclass(frozen=True, slots=True)
class FirstRun:
    url: str
    folder: Path
    """Where it was started, and where the pages are typed."""
    screen: str
    """All that it has printed until it served."""
    environment: dict[str, str]

    def type(self, script: str) -> subprocess.CompletedProcess[str]:
        """In one shell that ends at the first command that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(PRINTED, self.url)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
        )


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstRun]:
    """`make run`, but for its port: the embedded model, SQLite, nothing set."""
    folder = tmp_path_factory.mktemp("first-run")
    port = str(free_port())
    programs = Path(sys.executable).parent
    environment = {**os.environ, "TTCL_PORT": port, "PATH": f"{programs}:{os.environ['PATH']}"}
    log = folder / "serve.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(programs / "ttcl"), *recipe_of_run()],
            cwd=folder,
            env=environment,
            stdout=sink,
            stderr=sink,
        )
    warm = subprocess.Popen(
        [sys.executable, "-m", "tests.documents.warm_cli", str(folder / "socket")],
        cwd=ROOT,
        start_new_session=True,
    )
    write_command(folder, folder / "socket")
    try:
        deadline = time.monotonic() + 600
        while "serving on" not in log.read_text():
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, log.read_text()[-3000:]
            time.sleep(0.1)
        typed = {**environment, "PATH": f"{folder}:{environment['PATH']}"}
        yield FirstRun(f"http://127.0.0.1:{port}", folder, log.read_text(), typed)
    finally:
        # With whatever command of its is not over.
        os.killpg(warm.pid, signal.SIGTERM)
        warm.wait(40)
        end(process)


def recipe_of_run() -> list[str]:
    """What `make run` starts once all is set up."""
    # Within `make test` it would say where it enters and leaves.
    command = ["make", "--no-print-directory", "-n", "run"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    program, *arguments = told.stdout.strip().splitlines()[-1].split()
    assert program == ".venv/bin/ttcl", told.stdout
    return arguments
