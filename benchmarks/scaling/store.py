"""What PostgreSQL did between two looks: its own counters, its write-ahead log, its CPU time."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.scaling.costs import IdleCosts, StoreCosts
from benchmarks.scaling.processes import FamilyCpu
from benchmarks.scaling.server import query
from benchmarks.serving.processes import Client

SETTLED = 11.0
"""Seconds after which a connection at rest has told the server its counts (10 s)."""
_GROWING = (
    "episodes",
    "exposures",
    "jobs",
    "rules",
    "embeddings",
    "events",
    "outcomes",
    "trials",
    "precedents",
    "rule_links",
    "procrastinate_jobs",
    "procrastinate_events",
)
_LINE = re.compile(r"^(\d+\.\d+) (\d+) LOG:  duration: [\d.]+ ms  (?:statement|execute[^:]*): (.*)")


class Usage:
    """Of one database and of the server that it is in."""

    def __init__(self, url: str, server: int) -> None:
        self._url = url
        self._server = server
        self.seconds = 0.0

    def settle(self) -> None:
        time.sleep(SETTLED)

    def begin(self) -> None:
        self._counts, self._cpu, self._began = self._look(), FamilyCpu(self._server), time.time()

    def end(self, count: int, idle: IdleCosts | None = None, processes: int = 1) -> StoreCosts:
        """Of each of `count`, without what `processes` idle processes cause."""
        cpu_ms, busy = self._cpu.since() * 1000, time.time() - self._began
        self.settle()
        self.seconds = time.time() - self._began
        commits, rows, wal = (
            after - before for after, before in zip(self._look(), self._counts, strict=True)
        )
        if idle is None:
            cpu_ms = self._cpu.since() * 1000
        else:
            commits -= idle.transactions * self.seconds * processes
            cpu_ms -= idle.cpu_ms * busy * processes
        return StoreCosts(
            transactions=max(0.0, commits / count),
            rows=max(0.0, rows / count),
            wal_bytes=max(0.0, wal / count),
            kept_bytes=0.0,
            cpu_ms=max(0.0, cpu_ms / count),
        )

    def _look(self) -> tuple[float, float, float]:
        found = query(
            self._url,
            "SELECT xact_commit, tup_inserted + tup_updated, pg_current_wal_lsn() - '0/0'::pg_lsn "
            "FROM pg_stat_database WHERE datname = current_database()",
        )[0]
        return float(found[0]), float(found[1]), float(found[2])


def kept_bytes(url: str) -> float:
    """Bytes of the tables that grow with requests and jobs, indexes included, vacuumed in full."""
    total = 0.0
    for table in _GROWING:
        query(url, f"VACUUM FULL {table}")
        total += query(url, f"SELECT pg_total_relation_size('{table}')")[0][0]
    return total


def log_statements(url: str, on: bool) -> None:
    value = "0" if on else "-1"
    query(url, f"ALTER SYSTEM SET log_min_duration_statement = {value}")
    query(url, "ALTER SYSTEM SET log_line_prefix = '%n %p '")
    query(url, "SELECT pg_reload_conf()")
    time.sleep(1.0)


def lock_holds(log: Path, offset: int) -> list[float]:
    """Seconds from the moment a transaction had the event log's lock until its commit was flushed,
    out of the server's log of statements."""
    since: dict[str, float] = {}
    found: dict[str, list[float]] = defaultdict(list)
    with log.open(encoding="utf-8", errors="replace") as lines:
        lines.seek(offset)
        for line in lines:
            if (match := _LINE.match(line)) is None:
                continue
            at, process, statement = float(match[1]), match[2], match[3]
            if "pg_advisory_xact_lock" in statement and "pg_notify" in statement:
                since[process] = at
            elif statement.strip() in ("COMMIT", "ROLLBACK") and process in since:
                found[process].append(at - since.pop(process))
    return [each for holds in found.values() for each in holds]


def counts(model: int) -> dict[str, int]:
    """What the scripted model server was asked so far."""
    import orjson

    _, _, content = Client(model).send("GET", "/counts")
    known: dict[str, int] = orjson.loads(content)
    return known
