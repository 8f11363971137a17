"""Keeps a local model server running: started, watched, restarted with back-off, stopped.

starting -> ready -> restarting -> ready ...
                         |
                       failed  (too many quick failures; the gateway stays up and says why)
any -> stopped
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from app.engine.address import free_port
from app.engine.llama import check_llama
from app.engine.process import ServerProcess, log_tail
from app.engine.vllm import check_vllm
from app.exceptions import ConfigurationError, UpstreamUnavailable

log = structlog.get_logger(__name__)

HOST = "127.0.0.1"
GIVEN_UP = "the embedded model can't be run"
"""How the sentence begins that says so."""


class EngineState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """All in seconds, but for `attempts`."""

    ready_within: float
    """From the start of the process to its first 200 on /health."""
    attempts: int = 5
    """Quick failures in a row after which it is given up."""
    steady_after: float = 60.0
    """Having been ready for so long, a death is no quick failure."""
    first_pause: float = 0.5
    longest_pause: float = 10.0
    grace: float = 10.0
    """From SIGTERM to SIGKILL."""

    def pause(self, failures: int) -> float:
        """Before the next start, after so many quick failures in a row."""
        doublings = max(0, failures - 1)
        return float(min(self.first_pause * 2**doublings, self.longest_pause))


class Supervisor:
    """Runs the command that `command_for(port)` gives, on one port for its whole life.

    The server must answer GET /health with 200 once it is ready, and end when its standard input
    closes. What it prints goes to `log_path`.
    """

    def __init__(
        self, command_for: Callable[[int], Sequence[str]], log_path: Path, policy: RestartPolicy
    ) -> None:
        self._command_for = command_for
        self._policy = policy
        self.log_path = log_path
        self.state = EngineState.STOPPED
        self.reason: str | None = None
        """Why it is restarting or failed: one sentence and the last lines of its log."""
        self.restarts = 0
        self._port = 0
        self._server: ServerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    @property
    def base_url(self) -> str:
        """Without /v1; known once `start` has returned, and kept over restarts."""
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def why_unavailable(self) -> str | None:
        """A sentence for a client while the server can't be used; None when it is ready."""
        if self.state is EngineState.READY:
            return None
        if self.state is EngineState.FAILED:
            return f"{GIVEN_UP}; the gateway's log and {self.log_path} say why"
        return f"the embedded model is {self.state.value}; try again in a moment"

    async def start(self) -> None:
        """Returns before the server is ready; `wait_ready` waits for that."""
        if self._task is not None:
            return
        self._port = free_port(HOST)
        self.state = EngineState.STARTING
        self._settled.clear()
        self._task = asyncio.create_task(self._run(), name="engine-supervisor")

    async def wait_ready(self) -> None:
        """Raises `UpstreamUnavailable` when it failed for good or was stopped."""
        await self._settled.wait()
        if self.state is not EngineState.READY:
            raise UpstreamUnavailable(self.reason or f"the engine is {self.state}", status=503)

    async def stop(self) -> None:
        """End the server and wait for that. Twice is harmless."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.state = EngineState.STOPPED
        self._settled.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            steady = await self._live_once()
            failures = 1 if steady else failures + 1
            if failures >= self._policy.attempts:
                self._give_up(failures)
                return
            self.state = EngineState.RESTARTING
            self.restarts += 1
            log.warning("the engine is restarted", failures=failures, reason=self.reason)
            await asyncio.sleep(self._policy.pause(failures))

    async def _live_once(self) -> bool:
        """One life of the server; whether it was ready for long enough to count as steady."""
        ready_at: float | None = None
        try:
            self._server = await ServerProcess.start(self._command_for(self._port), self.log_path)
            if await self._server.answers(f"{self.base_url}/health", self._policy.ready_within):
                ready_at = time.monotonic()
                self._be_ready()
                await self._server.wait()
            self.reason = self._why_it_ended(self._server)
        except OSError as error:
            self.reason = f"the engine can't be started: {error}"
        finally:
            self._settled.clear()
            if self._server is not None:
                await asyncio.shield(self._server.end(self._policy.grace))
                self._server = None
        return ready_at is not None and time.monotonic() - ready_at >= self._policy.steady_after

    def _be_ready(self) -> None:
        self.state = EngineState.READY
        self.reason = None
        self._settled.set()
        log.info("the engine is ready", url=self.base_url, restarts=self.restarts)

    def _why_it_ended(self, server: ServerProcess) -> str:
        if server.exit_code is None:
            what = f"did not answer within {self._policy.ready_within:g} s"
        elif server.exit_code < 0:
            what = f"was killed by signal {-server.exit_code}"
        else:
            what = f"ended with code {server.exit_code}"
        tail = log_tail(self.log_path)
        return f"the engine {what}; its log ends:\n{tail}" if tail else f"the engine {what}"

    def _give_up(self, failures: int) -> None:
        self.state = EngineState.FAILED
        self._settled.set()
        log.error("the engine has failed", failures=failures, reason=self.reason)


class EngineSupervisor(Supervisor):
    """`python -m app.engine serve` as the child; `backend`, `model` and `threads` as there."""

    def __init__(
        self, *, backend: str, model: str | None, data_dir: Path, threads: int | None = None
    ) -> None:
        self._backend = backend
        self._model = model
        self._threads = threads
        self._data_dir = data_dir.resolve()
        # A first start of vLLM converts the model, loads torch and may compile kernels.
        policy = RestartPolicy(ready_within=900.0 if backend == "vllm" else 180.0)
        super().__init__(self._command, self._data_dir / "engine.log", policy)

    async def start(self) -> None:
        """Raises `ConfigurationError` for a model or an engine that is not there."""
        if self._backend not in ("llama", "vllm"):
            raise ConfigurationError(f"there is no engine '{self._backend}'")
        check = check_llama if self._backend == "llama" else check_vllm
        await asyncio.to_thread(check, self._model)
        await super().start()

    def _command(self, port: int) -> list[str]:
        command = [sys.executable, "-P", "-m", "app.engine", "serve"]
        command += ["--exit-with-parent"]
        command += ["--backend", self._backend, "--host", HOST, "--port", str(port)]
        command += ["--data-dir", str(self._data_dir)]
        if self._threads is not None:
            command += ["--threads", str(self._threads)]
        return [*command, "--model", self._model] if self._model is not None else command
