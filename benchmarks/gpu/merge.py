"""Puts together what came back of several sittings, one run folder a stream, and writes reports."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.exceptions import ConfigurationError
from benchmarks.gpu.plan import stream_name
from benchmarks.journal import read_rows
from benchmarks.report.pages import write_report
from benchmarks.rundir import RunDir, load_config


def merge(sources: Sequence[Path], out: Path, *, with_questions: bool) -> list[Path]:
    """`sources`: `results.tar.xz` files, or folders of run folders. Returns the run folders under
    `out`, a stream each, with their reports. Raises `ConfigurationError`, also where two sittings
    ran different things."""
    with tempfile.TemporaryDirectory() as scratch:
        folders: list[Path] = []
        for number, source in enumerate(sources):
            folders += _run_folders(source, Path(scratch) / str(number))
        if not folders:
            raise ConfigurationError("none of the sources holds a run")
        merged: dict[Path, None] = {}
        for folder in folders:
            config = load_config(folder)
            target = out / _name(config)
            _add(folder, config, target)
            merged[target] = None
    for target in merged:
        write_report(target, with_questions=with_questions)
    return list(merged)


def _name(config: dict[str, Any]) -> str:
    return stream_name(
        config["task"]["name"],
        config.get("feedback", "none"),
        config.get("label_noise", 0.0),
        config.get("first_order", 0),
    )


def _run_folders(source: Path, scratch: Path) -> list[Path]:
    if source.is_file():
        with tarfile.open(source) as tar:
            tar.extractall(scratch, filter="data")
        source = scratch
    return sorted(path.parent for path in source.glob("*/run.json"))


def _add(folder: Path, config: dict[str, object], target: Path) -> None:
    # Whole rows only: a file of a sitting that was cut short may end in half a line.
    with RunDir(target, config) as run:
        run.write_questions(row for _, row in read_rows(folder / "questions.jsonl"))
        for ledger, name in ((run.results, "results.jsonl"), (run.rules, "rules.jsonl")):
            for _, row in read_rows(folder / name):
                ledger.append(row)
