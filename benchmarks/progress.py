"""How a run goes, on the terminal: rate, time left and running accuracy of each arm."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from benchmarks.arms.base import Repeat

LINES = 10
"""Of a pass, where there is no terminal."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed * 60:.1f}/min" if task.speed else "-/min")


class ProgressBar:
    """A `Watcher`. Where there is no terminal it prints a line for each tenth of a pass."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("score {task.fields[score]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._told = ""
        self._scores: dict[str, list[float]] = {}
        """Per arm: sum of scores and number of questions, in this sitting."""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell()
        self._progress.stop()

    def pass_begins(self, arm: str, repeat: Repeat, done: int, total: int) -> None:
        self._tell()
        self._name = f"{arm}, seed {repeat.seed}, order {repeat.order}"
        self._task = self._progress.add_task(
            self._name, total=total, completed=done, score=self._score(arm)
        )

    def answered(self, arm: str, score: float) -> None:
        sums = self._scores.setdefault(arm, [0.0, 0.0])
        sums[0] += score
        sums[1] += 1
        if self._task is None:
            return
        self._progress.update(self._task, advance=1, score=self._score(arm))
        task = self._progress.tasks[-1]
        total = int(task.total or 0)
        if int(task.completed) % max(1, total // LINES) == 0:
            self._tell()

    def _tell(self) -> None:
        """How far the pass is, once for each place."""
        if self._task is None or self._console.is_terminal:
            return
        task = self._progress.tasks[-1]
        line = (
            f"{self._name}: {task.completed:.0f} of {task.total:.0f}, score {task.fields['score']}"
        )
        if line != self._told:
            self._console.print(line, markup=False)
        self._told = line

    def _score(self, arm: str) -> str:
        total, count = self._scores.get(arm, [0.0, 0.0])
        return f"{total / count:.3f} of {count:.0f}" if count else "-"
