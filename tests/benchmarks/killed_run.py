"""One sitting of a scripted run in a process that a test may kill: OUT COUNT DELAY."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.feedback import FeedbackLevel
from tests.benchmarks.scripted import ScriptedBackend
from tests.benchmarks.test_runner import go

if __name__ == "__main__":
    out, count, delay = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    backend = ScriptedBackend(delay=delay, log=out.parent / f"{out.name}.log")
    arms = "sc@5,empty-bank,paper,knn@2,self-icl@2"
    asyncio.run(
        go(out, backend, count=count, concurrency=3, arms=arms, feedback=FeedbackLevel.LABEL)
    )
