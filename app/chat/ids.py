"""Random identifiers that nobody can guess, without asking the kernel for each."""

from __future__ import annotations

import os

_BYTES = 16
_AT_ONCE = 256


class IdSource:
    """Hexadecimal ids of 128 random bits. For one thread.

    The kernel is asked for many at a time: a system call gives up the interpreter, and beside an
    embedding at work it takes up to half a millisecond to get it back.
    """

    def __init__(self) -> None:
        self._ready: list[str] = []

    def __call__(self) -> str:
        if not self._ready:
            drawn = os.urandom(_BYTES * _AT_ONCE)
            self._ready = [drawn[i : i + _BYTES].hex() for i in range(0, len(drawn), _BYTES)]
        return self._ready.pop()
