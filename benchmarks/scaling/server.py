"""A throw-away PostgreSQL with its settings as shipped: what it writes and flushes is measured."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from app.exceptions import ConfigurationError
from benchmarks.serving.processes import free_port

_PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql")
_START_SECONDS = 60.0


def _programs() -> Path:
    """The folder of initdb and postgres. Raises `ConfigurationError`."""
    there = [path for place in _PLACES for path in sorted(Path(place).glob("**/bin/initdb"))]
    found = shutil.which("initdb")
    if found is None and not there:
        raise ConfigurationError("PostgreSQL is not installed: make postgres")
    return Path(found).parent if found is not None else there[-1].parent


def _owner() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: there it runs as the user that its package made."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


@contextmanager
def postgres(*settings: str) -> Iterator[tuple[str, int, Path]]:
    """Yields URL without a database, process id and log file."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="ttcl-scaling-") as name:
        folder = Path(name)
        if _owner():
            shutil.chown(folder, "postgres")
        command = [str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust"]
        command += ["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        made = subprocess.run(command, capture_output=True, text=True, cwd="/", **_owner())
        if made.returncode != 0:
            raise ConfigurationError(f"initdb: {made.stderr.strip()[-500:]}")
        port = free_port()
        given = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        for setting in (*given, "max_connections=200", *settings):
            command += ["-c", setting]
        log = folder / "log"
        with log.open("ab") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=sink, cwd="/", **_owner())
        try:
            url = f"postgresql://postgres@127.0.0.1:{port}"
            _wait(url, process, log)
            yield url, process.pid, log
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            query(url, "SELECT 1")
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-500:]
                raise ConfigurationError(f"PostgreSQL did not start: {said}") from None
            time.sleep(0.05)


@contextmanager
def database(address: str) -> Iterator[str]:
    """URL of an empty database, which goes away again."""
    name = f"scaling_{uuid.uuid4().hex[:12]}"
    query(address, f"CREATE DATABASE {name}")
    try:
        yield f"{address}/{name}"
    finally:
        query(address, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def query(url: str, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Rows of one statement, committed by itself."""
    whole = url if url.count("/") > 2 else f"{url}/postgres"
    with psycopg.connect(whole, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []
