"""Steps of a sitting: each is logged with its seconds, and all end before the time is up."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Sitting:
    """A clock that was set at the start. `seconds` bounds the whole; `log` gets a line a step."""

    def __init__(self, seconds: float, log: Path) -> None:
        self._end = time.monotonic() + seconds
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Seconds until the end, not below 0."""
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Logs what happens in the block; what is put into the yielded row is logged with it."""
        started = time.monotonic()
        row: dict[str, Any] = {}
        try:
            yield row
        except BaseException as error:
            row["failed"] = f"{type(error).__name__}: {error}"[:500]
            raise
        finally:
            self.note(name, seconds=round(time.monotonic() - started, 1), **row)

    def note(self, name: str, **row: Any) -> None:
        """One line of the log, printed too."""
        line = {"step": name, **row}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
        said = ", ".join(f"{key} {value}" for key, value in row.items())
        sys.stdout.write(f"[{self.left():5.0f} s left] {name}: {said}\n")
        sys.stdout.flush()
