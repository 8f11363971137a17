"""One line a request of a client's, when its answer has ended.

With what every line of a request has (`request_id`, `namespace`, `episode`) it says what was asked
of it and what it came to; no prompt, no answer and no key. An error that the upstream has told may
quote any of them, so of it only its kind and status are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from starlette.types import Scope

from app.chat.call import ChatCall
from app.exceptions import TTCLError

log = structlog.get_logger(__name__)

_WRITTEN = "access_line"
"""In the scope's state of a request that has its line."""
_ASKED_BY_MACHINES = ("/healthz", "/readyz", "/metrics")
"""Every few seconds, by what watches us."""
_MOST = 200
"""Characters of a path."""


def refused(scope: Scope, status: int) -> None:
    """The line of a request that came to nothing before anybody took it on (no key, no such path,
    a body that is too large); nothing where it has one."""
    state, path = scope["state"], scope["path"]
    if _WRITTEN not in state and path not in _ASKED_BY_MACHINES:
        log.info("request", method=scope["method"], path=path[:_MOST], status=status)


class AccessEntry:
    """Written once: at the answer, or at the end of its stream."""

    def __init__(self, scope: Scope) -> None:
        self.error: TTCLError | None = None
        """What the request was answered with."""
        self._path = scope["path"]
        scope["state"][_WRITTEN] = True
        self._began = time.perf_counter()
        self._call: ChatCall | None = None
        self._streams = False
        self._told = ("unknown", 500)

    def of(self, call: ChatCall) -> None:
        """It could be read so far."""
        self._call = call

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self._began

    def ends_with(self, release: Callable[[], None] | None) -> Callable[[], None]:
        """What is to be called at the end of a stream: `release`, and the line."""
        self._streams = True

        def end() -> None:
            if release is not None:
                release()
            self._write()

        return end

    def answered(self, mode: str, status: int) -> None:
        """The status is known; of a stream, the rest is to come."""
        self._told = (mode, status)
        if not self._streams:
            self._write()

    def _write(self) -> None:
        mode, status = self._told
        line: dict[str, object] = {"path": self._path, "status": status, "mode": mode}
        if self._call is not None:
            summary = self._call.summary
            cost = summary.cost
            line |= {
                "model": self._call.model.id,
                "arm": summary.arm,
                "prompt_tokens": cost and cost.prompt_tokens,
                "completion_tokens": cost and cost.completion_tokens,
                "learning": summary.learning,
                "error": summary.error,
            }
        if self.error is not None:
            line["error"] = self.error
        told = {name: value for name, value in line.items() if value is not None}
        log.info("request", **told, milliseconds=round(1000 * self.seconds, 1))
