"""One sitting of a scripted run in a process that a test may kill: OUT COUNT DELAY."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.benchmarks.scripted import ScriptedBackend
from tests.benchmarks.test_runner import go

if __name__ == "__main__":
    out, count, delay = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    backend = ScriptedBackend(delay=delay, log=out.parent / f"{out.name}.log")
    asyncio.run(go(out, backend, count=count, concurrency=3, arms="sc@5,empty-bank,paper"))
