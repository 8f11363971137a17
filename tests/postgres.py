"""A throw-away PostgreSQL server for the tests, and a database of its own for each folder.

The first one is migrated once; the others are copied from it, which takes a tenth of the time.
"""

from __future__ import annotations

import asyncio
import hashlib
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
from psycopg.types.string import TextLoader

from app.engine.address import free_port

VARIABLE = "STORE_TEST_SERVER"
"""URL of the server, without a database; while it is set, `url_of` names databases there."""
_TEMPLATE = "migrated"
_PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql")


def programs() -> Path | None:
    """The folder with initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    there = [path for place in _PLACES for path in sorted(Path(place).glob("**/bin/initdb"))]
    return there[-1].parent if there else None


class Server:
    """One that is this process's own child: pg_ctl waits in vain for one that nobody reaps."""

    def __init__(self, binaries: Path, data: Path, port: int, settings: Sequence[str]) -> None:
        self.url = f"postgresql://postgres@127.0.0.1:{port}"
        """Without a database."""
        self._command = [str(binaries / "postgres"), "-D", str(data)]
        for setting in settings:
            self._command += ["-c", setting]
        self._log = data / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as sink:
            self._process = subprocess.Popen(
                self._command, stdout=sink, stderr=sink, cwd="/", **_owner()
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                _execute(self.url, "SELECT 1")
                return
            except psycopg.OperationalError:
                alive = self._process.poll() is None and time.monotonic() < deadline
                assert alive, self._log.read_text()[-2000:]
                time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a crash would; nothing where it is stopped."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(60)


@contextmanager
def server(folder: Path, *options: str) -> Iterator[Server]:
    """A server of its own. `options`: settings, as in `max_connections=200`."""
    binaries = programs()
    assert binaries is not None, "PostgreSQL is not installed: make postgres"
    folder.mkdir(parents=True, exist_ok=True)
    if _owner():
        shutil.chown(folder, "postgres")
    data = folder / "data"
    initdb = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8"]
    done = subprocess.run(
        [str(part) for part in [*initdb, "--locale=C.UTF-8", "--no-sync"]],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        **_owner(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    given = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
    # Nothing here needs to outlive the machine.
    made = Server(binaries, data, port, [*given, "fsync=off", "full_page_writes=off", *options])
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _owner() -> dict[str, Any]:
    """The server refuses to run as root, so there it runs as the user that its package made."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the server's user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="ttcl-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder / "server"


@contextmanager
def shared_server() -> Iterator[str]:
    """URL of a server with a migrated database to copy."""
    with open_folder() as folder, server(folder, "max_connections=200") as made:
        _execute(made.url, f"CREATE DATABASE {_TEMPLATE}")
        asyncio.run(_migrate(f"{made.url}/{_TEMPLATE}"))
        yield made.url


async def _migrate(url: str) -> None:
    from rules_store.database import migrate
    from rules_store.options import StoreOptions

    await migrate.upgrade(url, StoreOptions())


def url_of(folder: Path) -> str | None:
    """The database of this folder, made where there is none; None while no server is set."""
    address = os.environ.get(VARIABLE)
    if address is None:
        return None
    name = _name(folder)
    url = f"{address}/{name}"
    if not _execute(address, "SELECT 1 FROM pg_database WHERE datname = %s", name):
        _execute(address, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        _execute(url, "UPDATE store_identity SET id = %s", uuid.uuid4().hex)
        _made.append(name)
    return url


@contextmanager
def database(address: str) -> Iterator[str]:
    """URL of an empty database, which goes away again."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    _execute(address, f"CREATE DATABASE {name}")
    try:
        yield f"{address}/{name}"
    finally:
        _execute(address, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def make_empty(folder: Path) -> None:
    """The folder's database, not migrated yet; nothing while no server is set."""
    address = os.environ.get(VARIABLE)
    if address is not None:
        _execute(address, f"CREATE DATABASE {_name(folder)}")
        _made.append(_name(folder))


def drop_all() -> None:
    """Every database that this process has made."""
    address = os.environ[VARIABLE]
    while _made:
        _execute(address, f"DROP DATABASE IF EXISTS {_made.pop()} WITH (FORCE)")


_made: list[str] = []


def query(url: str, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    return _execute(url, statement.replace("?", "%s"), *values)


def _name(folder: Path) -> str:
    return "t_" + hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()


def _execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    database = url if url.count("/") > 2 else f"{url}/postgres"
    with psycopg.connect(database, autocommit=True) as connection:
        # JSON as SQLite has it: text.
        connection.adapters.register_loader("json", TextLoader)
        cursor = connection.execute(statement, values or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []
