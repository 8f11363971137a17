"""Compares two mathematical answers, in a process of its own. `equivalence` beside it runs it.

math-verify and sympy can be made to work for hours or to fill the memory (`9^{9^{9^9}}`), and
neither a thread nor math-verify's own alarms can stop that. So the comparison runs here, under a
memory limit and an alarm whose default action ends the process, and the parent starts a new one.

Protocol: one JSON object a line on standard input, one on standard output.
    {"parse": A}             -> {"ok": true}      whether A can be read and evaluated at all
    {"same": [A, B]}         -> {"ok": false}
It writes `ready` first. Arguments: seconds of the processor that a request may take, however busy
the machine is; address space in bytes.

Imports nothing of this project, so that it starts in the time that sympy needs.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

_DIGITS = 30
"""Significant digits of the numeric check; answers are at most some dozen digits long."""
_AGREEMENT = 1e-12
"""Relative difference above which two exact numbers are certainly different; rounding noise at
30 digits is far below, and no tolerance for rounded answers is meant."""
_ROUNDING = 12
"""Decimal places at which math-verify compares where a decimal fraction takes part."""


@lru_cache(maxsize=512)
def _parsed(text: str) -> tuple[Any, ...]:
    from math_verify import parse

    return tuple(parse(f"${text}$", parsing_timeout=None))


def _value(expression: Any) -> Any:
    """The number an expression without variables stands for; None for anything else."""
    from sympy import Expr, N

    if not isinstance(expression, Expr) or expression.free_symbols:
        return None
    value = N(expression.doit(), _DIGITS)
    return value if value.is_number and value.is_finite else None


def _certainly_different(a: Any, b: Any) -> bool:
    """math-verify takes any two numbers below 1e-15 for equal; magnitude settles that."""
    x, y = _value(a), _value(b)
    if x is None or y is None:
        return False
    return bool(abs(x - y) > _AGREEMENT * max(abs(x), abs(y)))


def _same(a: str, b: str) -> bool:
    from math_verify import verify

    left, right = _parsed(a), _parsed(b)
    if not left or not right or _certainly_different(left[0], right[0]):
        return False
    options: dict[str, Any] = {
        "float_rounding": _ROUNDING,
        "strict": True,
        "timeout_seconds": None,
    }
    # verify() is not symmetric (it follows the form of the first), equality is.
    return bool(
        verify(list(left), list(right), **options) or verify(list(right), list(left), **options)
    )


def _readable(text: str) -> bool:
    parsed = _parsed(text)
    if not parsed or isinstance(parsed[0], str):
        return False
    _value(parsed[0])
    return True


def _answer(request: dict[str, Any]) -> bool:
    try:
        if "parse" in request:
            return _readable(str(request["parse"]))
        a, b = request["same"]
        return _same(str(a), str(b))
    except (Exception, RecursionError, MemoryError):
        return False


def main() -> None:
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    _same("1+x", "x+1")  # imports sympy and builds its tables before the first alarm is set
    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        ok = _answer(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"ok": ok}), flush=True)


if __name__ == "__main__":
    main()
