"""The report's four plots, as PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.report.results import RunResults
from benchmarks.report.summary import Summary

_SIZE = (7.5, 3.6)
_DPI = 110
# Okabe and Ito's colours: distinguishable with the common kinds of colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"

PLOTS = {
    "accuracy.png": "Score with 95% intervals",
    "stream.png": "Score along the stream",
    "cost.png": "Calls and tokens against score",
    "rules.png": "Rules over time",
}


def draw(run: RunResults, summary: Summary, folder: Path) -> list[str]:
    """Writes the plots; returns the names of those that have something to show."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "accuracy.png": lambda: _accuracy(summary),
        "stream.png": lambda: _stream(summary),
        "cost.png": lambda: _cost(summary),
        "rules.png": lambda: _rules(run),
    }
    drawn = []
    for name, make in makers.items():
        figure = make()
        if figure is not None:
            figure.savefig(folder / name, dpi=_DPI, metadata={"Software": None})
            drawn.append(name)
    return drawn


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _accuracy(summary: Summary) -> Figure:
    figure = Figure(figsize=(_SIZE[0], 0.8 + 0.45 * len(summary.arms)), layout="constrained")
    axes = figure.add_subplot()
    for row, arm in enumerate(reversed(summary.arms)):
        value = arm.accuracy
        reach = [[value.mean - value.low], [value.high - value.mean]]
        colour = _colour(len(summary.arms) - 1 - row)
        axes.errorbar(value.mean, row, xerr=reach, fmt="o", color=colour, capsize=4)
        axes.annotate(
            f"{value.mean:.3f}", (value.mean, row), (0, 6), textcoords="offset points", ha="center"
        )
    axes.set_yticks(range(len(summary.arms)), [arm.name for arm in reversed(summary.arms)])
    axes.set_ylim(-0.6, len(summary.arms) - 0.2)
    axes.set_xlabel("score, 95% interval")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _stream(summary: Summary) -> Figure:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    for index, arm in enumerate(summary.arms):
        positions = [point.position for point in arm.stream]
        axes.plot(
            positions,
            [point.cumulative for point in arm.stream],
            color=_colour(index),
            label=arm.name,
        )
        axes.plot(
            positions,
            [point.window for point in arm.stream],
            color=_colour(index),
            alpha=0.25,
            linewidth=1,
        )
    axes.set_xlabel("questions answered (thin: the last few only)")
    axes.set_ylabel("score so far")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _cost(summary: Summary) -> Figure:
    figure = Figure(figsize=_SIZE, layout="constrained")
    by_calls, by_tokens = figure.subplots(1, 2, sharey=True)
    for index, arm in enumerate(summary.arms):
        tokens = arm.prompt_tokens + arm.completion_tokens
        for axes, spent in ((by_calls, arm.calls), (by_tokens, tokens)):
            marker = _MARKERS[index % len(_MARKERS)]
            axes.scatter(
                spent,
                arm.accuracy.mean,
                s=50,
                color=_colour(index),
                marker=marker,
                label=arm.name,
            )
    by_calls.set_xlabel("calls a question")
    by_tokens.set_xlabel("tokens a question")
    by_calls.set_ylabel("score")
    for axes in (by_calls, by_tokens):
        axes.grid(alpha=0.3)
        axes.margins(0.15)
        axes.set_xlim(left=0)
    by_tokens.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _rules(run: RunResults) -> Figure | None:
    """Rules created so far, mean over passes, for the arms that learn."""
    learning = [name for name, arm in run.arms.items() if any(arm.rules.values())]
    if not learning:
        return None
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    for index, name in enumerate(learning):
        arm = run.arms[name]
        passes = [key for key in arm.used(run.total) if key in arm.rules]
        if not passes:
            continue
        positions = list(range(run.total))
        for polarity, style in (("positive", "-"), ("negative", "--")):
            totals = [0.0] * len(positions)
            for key in passes:
                for rule in arm.rules[key]:
                    if rule.outcome == "created" and rule.polarity == polarity:
                        totals[rule.position] += 1 / len(passes)
            sums = [sum(totals[: place + 1]) for place in positions]
            label = f"{name}, {polarity}"
            steps = [place + 1 for place in positions]
            axes.plot(steps, sums, style, color=_colour(index), label=label)
    axes.set_xlabel("questions answered")
    axes.set_ylabel("rules created")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
