"""`ttcl bench`: run, report, compare, tasks."""

from __future__ import annotations

import asyncio
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.exceptions import ConfigurationError
from benchmarks.feedback import FeedbackLevel

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Does it help? Compare the loop with the same number of plain calls.",
)

EXTRA = ("filelock", "matplotlib", "rouge_score", "scipy", "statsmodels")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Folder = Annotated[Path, typer.Argument(help="Folder of a run", show_default=False)]
WithQuestions = Annotated[
    bool,
    typer.Option(
        "--questions/--no-questions", help="Show the text of questions in the report's examples"
    ),
]


@app.command()
def run(
    task: Annotated[str, typer.Option(help="A shipped task, or a YAML file")] = "mixed",
    data: Annotated[
        str | None, typer.Option(help="JSON, JSONL, CSV or Parquet; or hub:NAME[:CONFIG[:SPLIT]]")
    ] = None,
    arms: Annotated[str, typer.Option(help="Comma-separated; see `ttcl bench tasks`")] = (
        "zero-shot,empty-bank,sc@5,random-rules,paper,gated"
    ),
    folder: Annotated[
        Path, typer.Option("--out", help="Folder of the run; an unfinished one goes on")
    ] = Path("runs/bench"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Limit of an answer, instead of the task's")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repeats with other sampling seeds")] = 1,
    orders: Annotated[int, typer.Option(min=1, help="Repeats in other orders")] = 1,
    first_order: Annotated[
        int, typer.Option(min=0, help="Number of the first order; 0 is the file's")
    ] = 0,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Questions of a step; rules come in between steps")
    ] = 4,
    parallel: Annotated[int, typer.Option(min=1, help="Model calls under way at most")] = 8,
    model: Annotated[
        str | None, typer.Option(help="The upstream's model, if it has several")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server instead of the configured one")
    ] = None,
    share_calls: Annotated[
        bool, typer.Option(help="Make identical calls of several arms once")
    ] = True,
    service_key: Annotated[
        str | None, typer.Option(envvar="BENCH_SERVICE_KEY", help="Bearer key of http: arms")
    ] = None,
    feedback: Annotated[
        FeedbackLevel,
        typer.Option(help="Told after each answer: right or wrong, the label, or a correction"),
    ] = FeedbackLevel.NONE,
    label_noise: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the labels that are told wrong on purpose"),
    ] = 0.0,
    questions: WithQuestions = True,
) -> None:
    """Run arms over a task, or go on with a run, and write its report."""
    _need_extra()
    from app.settings import load_settings
    from benchmarks.progress import ProgressBar
    from benchmarks.report.pages import write_report
    from benchmarks.session import RunOptions
    from benchmarks.session import run as run_session

    _quiet()
    given: dict[str, Any] = {} if upstream is None else {"upstream_base_url": upstream}
    settings = load_settings(**given)
    options = RunOptions(
        task=task,
        data=data,
        arms=arms,
        out=folder,
        limit=limit,
        max_tokens=max_tokens,
        seeds=seeds,
        orders=orders,
        first_order=first_order,
        concurrency=concurrency,
        parallel=parallel,
        share_calls=share_calls,
        model=model,
        service_key=service_key,
        feedback=feedback,
        label_noise=label_noise,
    )
    try:
        with ProgressBar(err) as progress:
            asyncio.run(run_session(options, settings, progress))
    except KeyboardInterrupt:
        err.print(f"stopped; the same command goes on with {folder}", markup=False)
        raise typer.Exit(130) from None
    summary = write_report(folder, with_questions=questions)
    _show(summary.verdict, folder)


@app.command()
def report(folder: Folder, questions: WithQuestions = True) -> None:
    """Write report.md, report.html and plots of a run, finished or not."""
    _need_extra()
    from benchmarks.report.pages import write_report

    summary = write_report(folder, with_questions=questions)
    _show(summary.verdict, folder)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs", show_default=False)],
) -> None:
    """Show several runs side by side, and differences between runs of the same questions."""
    _need_extra()
    from benchmarks.comparison import compare_runs

    found = compare_runs(folders)
    table = Table("run", "task", "model", "arm", "questions", "score", "95% interval", box=None)
    for line in found.lines:
        score = line.score
        table.add_row(
            line.run,
            line.task,
            line.model,
            line.arm,
            str(line.questions),
            f"{score.mean:.3f}",
            f"{score.low:.3f} to {score.high:.3f}",
        )
    out.print(table)
    for item in found.between:
        change = item.comparison.difference
        out.print(
            f"{item.arm}: {item.second} minus {item.first}: {100 * change.mean:+.1f} points "
            f"({100 * change.low:+.1f} to {100 * change.high:+.1f}), {item.questions} questions",
            markup=False,
            soft_wrap=True,
        )
    for reason in found.not_comparable:
        out.print(f"not compared: {reason}", markup=False, soft_wrap=True)


@app.command()
def tasks() -> None:
    """List the shipped tasks and the arms."""
    from benchmarks.arms import ARMS
    from benchmarks.taskfile import load_task, shipped_tasks

    table = Table("task", "grader", "data", "about", box=None)
    for name in shipped_tasks():
        task = load_task(name)
        source = task.source
        where = "--data" if source is None else "shipped" if source.path else f"hub:{source.hub}"
        table.add_row(name, task.grader, where, task.about)
    out.print(table)
    arms = Table("arm", "what it is", box=None)
    for name, what in ARMS.items():
        arms.add_row(name, what)
    out.print(arms)


def _show(verdict: str, folder: Path) -> None:
    out.print(verdict, markup=False, soft_wrap=True)
    out.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)


def _need_extra() -> None:
    """Raises `ConfigurationError` where the extra is not installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"benchmarks need {', '.join(missing)}: pip install 'ttcl[bench]'")


def _quiet() -> None:
    """The loop's log lines would tear the progress bar apart."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("httpx").setLevel(logging.WARNING)
