"""The folder of one run.

    run.json           what is run: task, data, arms, sampling, model, versions
    questions.jsonl    the questions that are asked, with their gold answers
    calls.jsonl        every model call, as it came
    results.jsonl      one row per arm, seed, order and question
    trajectories.jsonl every sampled answer behind a result
    rules.jsonl        every rule that was learned, and what became of it
    report.md, report.html, *.png

One process at a time holds `lock`; the system frees it when that process dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from filelock import FileLock, Timeout

from app.exceptions import ConfigurationError
from benchmarks.journal import Journal, Row, read_rows

RUN_FILE = "run.json"
EXTENDABLE = frozenset({"arms", "versions", "upstream", "started"})
"""What may differ when a run is taken up again: arms can be added, and ports change."""
ABSENT = {"feedback": "none", "label_noise": 0.0, "first_order": 0}
"""What a folder means that was written before the entry was there."""
ADDED = frozenset({"gated", "experienced", "named_prompt", "cluster_prompt", "revised_prompt"})
"""What may be missing on either side: it belongs to arms that not every sitting has."""

Key = tuple[str, int, int, str]
"""arm, seed, order, question id"""


class StoredResult(NamedTuple):
    """What is kept in memory of a row."""

    digest: str
    score: float | None


class Ledger:
    """A journal that keeps one row per key: what a replay writes again is dropped."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._known = {key_of(row): _known(row) for _, row in self._journal.rows()}

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def append(self, row: Row) -> None:
        key = key_of(row)
        if key in self._known:
            return
        self._journal.append(row)
        self._known[key] = _known(row)

    def known(self, key: Key) -> StoredResult | None:
        return self._known.get(key)

    def close(self) -> None:
        self._journal.close()


def key_of(row: Mapping[str, Any]) -> Key:
    return row["arm"], row["seed"], row["order"], row["id"]


def _known(row: Mapping[str, Any]) -> StoredResult:
    return StoredResult(str(row.get("digest", "")), row.get("score"))


class RunDir:
    """An open run. Raises `ConfigurationError` when another process has it, or when it holds a
    run of something else."""

    def __init__(self, path: Path, config: Row) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {path} can't be made: {error}") from error
        self.path = path
        self._lock = FileLock(path / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigurationError(f"another run is writing to {path}") from error
        try:
            self.config = self._settle(config)
            self.calls = Journal(path / "calls.jsonl")
            self.results = Ledger(path / "results.jsonl")
            self.trajectories = Ledger(path / "trajectories.jsonl")
            self.rules = Ledger(path / "rules.jsonl")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for journal in (self.calls, self.results, self.trajectories, self.rules):
            journal.close()
        self._lock.release()

    def write_questions(self, rows: Iterable[Row]) -> None:
        """Once, whole or not at all."""
        file = self.path / "questions.jsonl"
        if not file.exists():
            temporary = file.with_suffix(".tmp")
            temporary.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
            temporary.replace(file)

    def _settle(self, config: Row) -> Row:
        """The configuration on disk, extended by new arms; written when the run is new."""
        file = self.path / RUN_FILE
        if not file.exists():
            if (self.path / "calls.jsonl").exists():
                raise ConfigurationError(f"{self.path} has results but no {RUN_FILE}")
            _write(file, config)
            return config
        known = {**ABSENT, **load_config(self.path)}
        for name in config.keys() | known.keys():
            if name in ADDED and not (name in config and name in known):
                continue
            if name not in EXTENDABLE and config.get(name) != known.get(name):
                raise ConfigurationError(
                    f"{self.path} holds a run with another {_first_difference(name, known, config)}"
                    "; go on with the same options, or choose another --out"
                )
        arms = [*known["arms"], *(arm for arm in config["arms"] if arm not in known["arms"])]
        added = {name: config[name] for name in ADDED if name in config}
        merged = {**known, **added, "arms": arms, "versions": config["versions"]}
        _write(file, merged)
        return merged


def load_config(path: Path) -> Row:
    """Raises `ConfigurationError` when the folder holds no run."""
    file = path / RUN_FILE
    if not file.is_file():
        raise ConfigurationError(f"{path} holds no run (it has no {RUN_FILE})")
    try:
        config: Row = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{file} is damaged: {error}") from error
    return config


def load_results(path: Path) -> Iterator[Row]:
    return (row for _, row in read_rows(path / "results.jsonl"))


def _write(file: Path, config: Row) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2) + b"\n")
    temporary.replace(file)


def _first_difference(name: str, known: Row, asked: Row) -> str:
    """Down to the first entry that differs, with both values where they are short."""
    before, now = known.get(name), asked.get(name)
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            if before.get(key) != now.get(key):
                return f"{name}.{_first_difference(key, before, now)}"
    shown = f"{before!r}, not {now!r}"
    return f"{name} ({shown})" if len(shown) <= 100 else name
