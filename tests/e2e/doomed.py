"""`ttcl serve` in a process that kills itself at a named step of one namespace's requests."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from app.engine.address import free_port
from rules_store.operations.episodes import EpisodeOperations
from rules_store.operations.evidence import EvidenceOperations
from rules_store.operations.jobs import JobOperations
from tests.e2e.service import environment, wait_until
from tests.gateway import Gateway

ANSWERING = ("answered", "recorded")
"""Steps before the client has its answer."""
TELLING = ("told", "followed", "taken")
"""Steps before the client knows that its feedback was taken."""
LEARNING = ("claimed", "explored", "distilled", "applying", "within", "applied")


@contextmanager
def doomed(
    folder: Path, step: str, namespace: str, **settings: str
) -> Iterator[tuple[Gateway, BaseProcess]]:
    """The gateway once it is ready; it dies when a request or job of `namespace` gets to `step`.
    `settings` are variables without their prefix."""
    port = free_port()
    given = environment(folder, port=str(port), policy="paper", **settings)
    log = folder / f"{step}.log"
    process = _fork_server().Process(target=_serve, args=(step, namespace, given, str(log)))
    process.start()
    try:
        gateway = Gateway(f"http://127.0.0.1:{port}")
        wait_until(gateway, process.is_alive, log, 60, "ready")
        yield gateway, process
    finally:
        process.kill()
        process.join(10)


@cache
def _fork_server() -> Any:
    """The imports, which take longer than all else, are paid for once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["app.cli.root", "app.main", "tests.e2e.doomed"])
    return context


def _serve(step: str, namespace: str, variables: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(variables)
    with open(log, "ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    from app.cli import root

    _arm(step, namespace)
    root.app(["serve"])


def _arm(step: str, namespace: str) -> None:
    from app.loop.loop import Loop
    from rules_store.operations import jobs, teaching_writes

    applying: set[str] = set()

    async def conclude_as_ever(connection: Any, episode_id: str, *rest: Any) -> None:
        await concluded(connection, episode_id, *rest)
        if episode_id in applying:
            _die()

    async def apply_as_ever(self: Any, job: Any, *rest: Any, **more: Any) -> Any:
        if job.namespace == namespace:
            applying.add(job.episode_id)
        return await applied(self, job, *rest, **more)

    async def follow_as_ever(context: Any, connection: Any, given: Any, *rest: Any) -> None:
        await followed(context, connection, given, *rest)
        if given.namespace == namespace:
            _die()

    def of_job(job: Any, *_: Any) -> bool:
        return job is not None and job.namespace == namespace

    if step == "answered":
        _kill(EpisodeOperations, "finish", before=lambda *_: True)
    elif step == "recorded":
        _kill(EpisodeOperations, "finish", after=lambda *_: True)
    elif step == "told":
        _kill(EvidenceOperations, "add_feedback", before=lambda *_: True)
    elif step == "followed":
        followed = teaching_writes._add_job
        teaching_writes._add_job = follow_as_ever
    elif step == "taken":
        _kill(EvidenceOperations, "add_feedback", after=lambda *_: True)
    elif step == "claimed":
        _kill(JobOperations, "claim", after=lambda job, *_: of_job(job))
    elif step == "explored":
        _kill(Loop, "explore", after=lambda _, observation, *__: of_job(observation))
    elif step == "distilled":
        _kill(Loop, "distil", after=lambda _, observation, *__: of_job(observation))
    elif step == "applying":
        _kill(JobOperations, "apply", before=of_job)
    elif step == "within":
        concluded, applied = jobs.episodes.conclude, JobOperations.apply
        jobs.episodes.conclude = conclude_as_ever
        JobOperations.apply = apply_as_ever  # type: ignore[method-assign]
    elif step == "applied":
        _kill(JobOperations, "apply", after=lambda _, job, *__: of_job(job))
    else:
        raise ValueError(step)


def _kill(
    where: type,
    name: str,
    *,
    before: Callable[..., bool] | None = None,
    after: Callable[..., bool] | None = None,
) -> None:
    """Replaces the coroutine method: it dies on its way in, or with its work done. `before` sees
    the arguments, `after` the result and the arguments."""
    method = getattr(where, name)

    async def until_death(self: Any, *arguments: Any, **more: Any) -> Any:
        if before is not None and before(*arguments):
            _die()
        result = await method(self, *arguments, **more)
        if after is not None and after(result, *arguments):
            _die()
        return result

    setattr(where, name, until_death)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
