"""One life of a model server as a child process: started, asked whether it answers, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import httpx

_POLL_FIRST = 0.05
_POLL_MOST = 0.5
_LOG_LIMIT = 5_000_000
_TAIL_BYTES = 8192


class ServerProcess:
    """Lives from `start` to `end`. It leads a process group, so that its own children end with it;
    its standard input stays open until then, which tells it that we are alive."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> ServerProcess:
        """Output goes to the end of `log`. Raises OSError."""
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _rotate(log)
        with _opened(log) as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> None:
        await self._process.wait()

    async def answers(self, url: str, within: float) -> bool:
        """Whether GET `url` gave 200 before the process died or `within` seconds were over."""
        died = asyncio.create_task(self.wait())
        ready = asyncio.create_task(_answers(url))
        try:
            await asyncio.wait({died, ready}, timeout=within, return_when="FIRST_COMPLETED")
            return ready.done() and not died.done()
        finally:
            died.cancel()
            ready.cancel()
            await asyncio.gather(died, ready, return_exceptions=True)

    async def end(self, grace: float) -> None:
        """SIGTERM, then SIGKILL to the whole group after `grace` seconds. Twice is harmless."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        # What the leader left behind, or the leader itself when it did not heed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


async def _answers(url: str) -> None:
    pause = _POLL_FIRST
    # A proxy of the environment has no business between us and our own child.
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).status_code == 200:
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _POLL_MOST)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))


def _opened(log: Path) -> BinaryIO:
    """For nobody else to read: a model server may tell what it was asked."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):
        os.fchmod(file, 0o600)
    return os.fdopen(file, "ab")


def log_tail(log: Path, lines: int = 5) -> str:
    """The last lines with something on them, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
