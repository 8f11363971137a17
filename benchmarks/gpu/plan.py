"""What a sitting runs: processes of arms, from a plan's file or for one task. Standard library.

A plan is TOML: `limit`, `step` and `tasks` for all, then `[[passes]]`, the most important first,
each with `arms` (a process each), `feedback`, and where they differ `tasks`, `limit`, `step`,
`label_noise` and `first_order`. `streams.toml` and `evidence.toml` beside this file are two.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.exceptions import ConfigurationError

PLANS = Path(__file__).parent
_BENCH = "from benchmarks.cli import app; app()"
_COMMON = {"limit": int, "step": int, "tasks": list}
_OWN = {"arms": list, "feedback": str, "label_noise": float, "first_order": int}


@dataclass(frozen=True, slots=True)
class Job:
    """One process: some arms of a task, in a run folder of their own."""

    task: str
    data: Path
    arms: str
    step: int
    """Questions of a step."""
    feedback: str = "none"
    label_noise: float = 0.0
    first_order: int = 0
    limit: int | None = None
    max_tokens: int | None = None

    @property
    def name(self) -> str:
        """Of its run folder and its log; plain characters only, since both come back."""
        arms = re.sub(r"[^a-z0-9-]+", "_", self.arms)
        return f"{stream_name(self.task, self.feedback, self.label_noise, self.first_order)}-{arms}"

    def command(self, url: str, folder: Path, *, niceness: int) -> list[str]:
        command = ["nice", "-n", str(niceness), sys.executable, "-c", _BENCH, "run"]
        command += ["--task", self.task, "--data", str(self.data), "--arms", self.arms]
        command += ["--feedback", self.feedback, "--label-noise", str(self.label_noise)]
        command += ["--first-order", str(self.first_order)]
        command += ["--concurrency", str(self.step), "--parallel", "1024"]
        command += ["--upstream", f"{url}/v1", "--out", str(folder)]
        if self.limit is not None:
            command += ["--limit", str(self.limit)]
        if self.max_tokens is not None:
            command += ["--max-tokens", str(self.max_tokens)]
        return command


def stream_name(task: str, feedback: str, label_noise: float, first_order: int) -> str:
    """What tells one stream from another: arms of the same one can be compared."""
    parts = [task]
    if feedback != "none":
        parts.append(feedback)
    if label_noise:
        parts.append(f"noise{100 * label_noise:g}")
    if first_order:
        parts.append(f"order{first_order}")
    return "-".join(parts)


def planned(
    path: Path, data: Callable[[str], Path], *, limit: int | None, max_tokens: int | None
) -> list[Job]:
    """The jobs of a plan, the most important first. `data` finds a file by its name; `limit`
    stands over the plan's. Raises `ConfigurationError`."""
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"the plan {path} can't be read: {error}") from error
    jobs = []
    for fields in _passes(plan, path):
        bound = fields.get("limit") if limit is None else limit
        for arms in fields["arms"]:
            jobs += [
                Job(
                    task,
                    data(f"{task}-dev.jsonl"),
                    arms,
                    fields.get("step", 8),
                    fields.get("feedback", "none"),
                    float(fields.get("label_noise", 0.0)),
                    fields.get("first_order", 0),
                    bound,
                    max_tokens,
                )
                for task in fields["tasks"]
            ]
    names = [job.name for job in jobs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigurationError(f"the plan {path} has {twice} twice")
    return jobs


def _passes(plan: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Each with what holds for all where it says nothing itself."""
    passes = plan.pop("passes", None)
    if not isinstance(passes, list) or not all(isinstance(each, dict) for each in passes):
        raise ConfigurationError(f"the plan {path} has no [[passes]]")
    _check(plan, _COMMON, path)
    for each in passes:
        _check(each, _COMMON | _OWN, path)
        fields = plan | each
        if missing := {"arms", "tasks"} - fields.keys():
            raise ConfigurationError(f"the plan {path}: a pass lacks {min(missing)}")
        yield fields


def _check(fields: dict[str, Any], known: dict[str, type], path: Path) -> None:
    for name, value in fields.items():
        kind = known.get(name)
        if kind is None:
            raise ConfigurationError(f"the plan {path}: '{name}' is none of {', '.join(known)}")
        good = isinstance(value, (int, float) if kind is float else kind)
        if not good or (kind is list and not all(isinstance(each, str) for each in value)):
            raise ConfigurationError(f"the plan {path}: {name} must be of {kind.__name__}")
