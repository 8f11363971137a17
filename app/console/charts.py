"""Geometry of the small charts; the templates draw them. Units are the viewBox's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640.0, 160.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 16.0, 30.0


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class BarChart:
    bars: list[Bar]
    ticks: list[Tick]
    """Lines across, with what they stand for."""
    labels: list[Tick]
    """Below, where they belong; thinned out so that they don't touch."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: str
    """As the `points` of an SVG polyline."""
    last: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class LineChart:
    lines: list[Line]
    ticks: list[Tick]
    labels: list[Tick]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT


def bars(values: Sequence[tuple[str, float]]) -> BarChart | None:
    """(label, value) from left to right, values at least 0; None where there is nothing to show."""
    if not values:
        return None
    top = _ceiling(max(value for _, value in values))
    step = (WIDTH - _LEFT - _RIGHT) / len(values)
    drawn = []
    for position, (label, value) in enumerate(values):
        height = _span() * value / top
        drawn.append(
            Bar(
                x=round(_LEFT + step * position + step * 0.1, 2),
                y=round(HEIGHT - _BOTTOM - height, 2),
                width=round(step * 0.8, 2),
                height=round(height, 2),
                label=label,
                value=value,
            )
        )
    centres = [bar.x + bar.width / 2 for bar in drawn]
    return BarChart(drawn, _ticks(top), _thinned(centres, [label for label, _ in values]))


def lines(labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> LineChart | None:
    """Lines over common labels; a None leaves a point out. Values are at least 0."""
    known = [value for values in series.values() for value in values if value is not None]
    if not labels or not known:
        return None
    top = _ceiling(max(known))
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(labels) - 1)
    xs = [round(_LEFT + step * position, 2) for position in range(len(labels))]
    drawn = []
    for name, values in series.items():
        points = [
            (x, round(HEIGHT - _BOTTOM - _span() * value / top, 2))
            for x, value in zip(xs, values, strict=True)
            if value is not None
        ]
        joined = " ".join(f"{x},{y}" for x, y in points)
        drawn.append(Line(name, joined, points[-1] if points else None))
    return LineChart(drawn, _ticks(top), _thinned(xs, labels))


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """An estimate within its interval, around zero."""

    band: str
    """As the `points` of an SVG polygon."""
    line: str
    """As those of a polyline."""
    zero: float
    ticks: list[Tick]
    labels: list[Tick]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT


def interval(
    labels: Sequence[str], points: Sequence[tuple[float, float, float]]
) -> IntervalChart | None:
    """(low, estimate, high) of each label, in any unit. What is wider than twice the last interval
    is cut off, so that it can be seen what the estimate has come to."""
    if not points:
        return None
    last_low, _, last_high = points[-1]
    top = _ceiling_of_share(max(abs(last_low), abs(last_high), 1e-3) * 2)
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(points) - 1)
    xs = [round(_LEFT + step * place, 2) for place in range(len(points))]

    def at(value: float) -> float:
        within = min(top, max(-top, value))
        return round(HEIGHT - _BOTTOM - _span() * (within + top) / (2 * top), 2)

    highs = [f"{x},{at(high)}" for x, (_, _, high) in zip(xs, points, strict=True)]
    lows = [f"{x},{at(low)}" for x, (low, _, _) in zip(xs, points, strict=True)]
    estimates = [f"{x},{at(estimate)}" for x, (_, estimate, _) in zip(xs, points, strict=True)]
    ticks = [Tick(at(value), f"{value:+g}" if value else "0") for value in (-top, 0.0, top)]
    return IntervalChart(
        " ".join([*highs, *reversed(lows)]),
        " ".join(estimates),
        at(0.0),
        ticks,
        _thinned(xs, labels),
    )


def _ceiling_of_share(value: float) -> float:
    """The next of 1, 2, 5, 10, ..., 100."""
    return next((each for each in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if each >= value), 100.0)


def _span() -> float:
    return HEIGHT - _TOP - _BOTTOM


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4, 10, 20, 40, ... so that half of it is a whole number too."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 4, 10) if power * factor >= value)


def _ticks(top: float) -> list[Tick]:
    # Half a request there is not.
    shares = (0.0, 1.0) if top == 1 else (0.0, 0.5, 1.0)
    return [
        Tick(round(HEIGHT - _BOTTOM - _span() * share, 2), f"{top * share:g}") for share in shares
    ]


def _thinned(xs: Sequence[float], labels: Sequence[str], most: int = 6) -> list[Tick]:
    """The first and the last, and as many between as fit."""
    last = len(labels) - 1
    if last <= 0:
        return [Tick(xs[0], labels[0])]
    shown = min(most, len(labels))
    chosen = sorted({round(last * position / (shown - 1)) for position in range(shown)})
    return [Tick(round(xs[each], 2), labels[each]) for each in chosen]
