"""`ttcl serve --workers N`: several gateways behind one port of one machine, on one PostgreSQL.

uvicorn's supervisor starts them with the socket that is bound already, starts one anew that has
died, and ends them as it is ended. They are gateways like those of several machines: what belongs
to one process (keys' rates, open requests) belongs to each of them, but what is told at `/metrics`
is the sum of all.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.cli.http_protocol import GatewayProtocol
from app.exceptions import TTCLError
from app.observability.metrics import SHARED, forget_the_dead
from app.settings import Settings

SWITCH_INTERVAL = 0.001
"""Seconds. Database and embedder work in threads, each step of which waits this long for an
interpreter that answers requests (Python's own 5 ms: a quarter longer at the 99th percentile)."""
_START_SECONDS = 60
"""In which a process must be as far as to tell the supervisor that it lives."""
_LOOK = 1.0
"""Seconds between looks whether the supervisor is still there."""


def server_config(application: Any, settings: Settings, **more: Any) -> uvicorn.Config:
    """`application`: the gateway; with `factory=True` in `more`, what makes it."""
    return uvicorn.Config(
        application,
        http=GatewayProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.stop_grace,
        server_header=False,
        # Whoever can reach us could else write there where they come from.
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
        **more,
    )


def _check(settings: Settings) -> None:
    """What each of them would find out for itself, and the key that each would make. Raises
    `ConfigurationError`."""
    from app.access.admin_key import load_admin_key
    from app.wiring.factories import load_prompts

    load_prompts(settings)
    load_admin_key(settings)


def serve(settings: Settings, listener: socket.socket, url: str) -> None:
    """Until SIGTERM or SIGINT. Raises `ConfigurationError`; SystemExit where a process could not
    start, which has said why."""
    _check(settings)
    with tempfile.TemporaryDirectory(prefix="ttcl-metrics-") as folder:
        os.environ[SHARED] = folder
        config = server_config(
            partial(_gateway, settings, url, os.getpid()),
            settings,
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=_START_SECONDS,
        )
        supervisor = _Supervisor(config, sockets=[listener])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise SystemExit(2)


class _Supervisor(Multiprocess):
    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            # A process's own end of the pipe to it. Were it open here too, one that has ended would
            # be waited for like one that is slow, for `_START_SECONDS`.
            process.child_conn.close()
        super().keep_subprocess_alive()


def _gateway(settings: Settings, url: str, supervisor: int) -> Any:
    """In a process of its own."""
    from app.main import create_app
    from app.observability.logs import configure

    configure(settings.log_format, settings.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL)
    threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    forget_the_dead(Path(os.environ[SHARED]))
    try:
        application = create_app(settings)
    except TTCLError as error:
        sys.stderr.write(f"ttcl: {error}\n")
        raise SystemExit(STARTUP_FAILURE) from None
    logging.getLogger("uvicorn.error").addFilter(partial(_worded, application))
    _show_first_screen(application, settings, url)
    return application


def _show_first_screen(application: Any, settings: Settings, url: str) -> None:
    """By the first of them that is up."""
    begin = application.router.lifespan_context

    @asynccontextmanager
    async def begin_and_show(app: Any) -> AsyncIterator[Any]:
        from app.cli import first_screen

        async with begin(app) as state:
            if _is_first():
                await first_screen.show_ready(settings, url, app.state.ttcl)
            yield state

    application.router.lifespan_context = begin_and_show


def _is_first() -> bool:
    try:
        Path(os.environ[SHARED], "shown").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _worded(application: Any, record: logging.LogRecord) -> bool:
    """Of a start that failed one sentence is told, as of one gateway; what nobody foresaw keeps its
    traceback."""
    error = getattr(application.state, "startup_error", None)
    if error is None:
        return True
    if not getattr(application.state, "startup_error_told", False):
        application.state.startup_error_told = True
        sys.stderr.write(f"ttcl: {error}\n")
    return False


def _end_with(supervisor: int) -> None:
    """A process whose supervisor was killed would hold the port for ever."""
    while os.getppid() == supervisor:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
