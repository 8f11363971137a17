"""Append-only JSON lines that survive a killed process: a torn last line is dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from app.exceptions import ConfigurationError

Row = dict[str, Any]


class Journal:
    """One file. A row is on disk (with the operating system) when `append` returns.

    Raises `ConfigurationError` for a line that is damaged anywhere but at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._drop_torn_line()
        self._file = path.open("a+b")

    def append(self, row: Row) -> int:
        """Writes one row, returns the offset at which it can be read again."""
        offset = self._file.seek(0, 2)
        self._file.write(orjson.dumps(row) + b"\n")
        self._file.flush()
        return offset

    def read(self, offset: int) -> Row:
        self._file.seek(offset)
        row: Row = orjson.loads(self._file.readline())
        return row

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Every row with its offset, without holding them in memory."""
        return read_rows(self.path)

    def close(self) -> None:
        self._file.close()

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            end = file.seek(0, 2)
            position = end
            while position:
                start = max(0, position - 65536)
                file.seek(start)
                newline = file.read(position - start).rfind(b"\n")
                if newline >= 0:
                    file.truncate(start + newline + 1)
                    return
                position = start
            file.truncate(0)


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows of a journal that may be in use: a last line without its end is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield offset, orjson.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigurationError(
                    f"{path}, line {number} is damaged; remove that line and run again"
                ) from error
            offset += len(line)
