"""Makes a model server end with the process that started it, even when that one was killed.

python lifetime.py MODULE ARGUMENT ...      run MODULE so, as `python -m` would
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import sys
import threading
import time

_CHECK_EVERY = 1.0
_GRACE = 10.0


def end_with_parent() -> None:
    """End this process, and its group if it leads one, when standard input closes or the parent
    is gone: SIGTERM, then SIGKILL after 10 s. Returns at once; a thread keeps watch."""
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    # Signals are the main thread's: here they would end the process at once.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    # A process forked by the parent may hold the pipe open longer than the parent lives, hence
    # the second look.
    while os.getppid() == parent and not _input_closed():
        pass
    _signal_all(signal.SIGTERM)
    time.sleep(_GRACE)
    _signal_all(signal.SIGKILL)


def _input_closed() -> bool:
    descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    try:
        readable, _, _ = select.select([descriptor], [], [], _CHECK_EVERY)
        return bool(readable) and os.read(descriptor, 4096) == b""
    except (OSError, ValueError):
        return True


def _signal_all(signum: int) -> None:
    pid = os.getpid()
    if os.getpgrp() == pid:
        os.killpg(pid, signum)
    else:
        os.kill(pid, signum)


def _guard_group() -> None:
    """Leave a process behind that kills the group once its leader, this process, is gone: vLLM's
    workers outlive a server that was killed."""
    leader = os.getpid()
    if os.getpgrp() != leader or os.fork() != 0:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() == leader:
        time.sleep(_CHECK_EVERY)
    os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    _guard_group()
    end_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
