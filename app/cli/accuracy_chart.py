"""Accuracy along a stream, in plain characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = 60
STEP = 10
"""Percent of a line."""


@dataclass(frozen=True, slots=True)
class Curve:
    mark: str
    """One character."""
    name: str
    right: Sequence[bool | None]
    """Along the stream; None where a question was not this curve's."""


def share(right: Sequence[bool | None]) -> float | None:
    """Of the known ones, in percent; None where there is none."""
    known = [each for each in right if each is not None]
    return 100 * sum(known) / len(known) if known else None


def chart(curves: Sequence[Curve]) -> list[str]:
    """Lines of at most 80 characters: shares of right answers so far, a later curve over an
    earlier one."""
    count = max(len(curve.right) for curve in curves)
    width = min(count, COLUMNS)
    rows = [[" "] * width for _ in range(100 // STEP + 1)]
    for curve in curves:
        for column in range(width):
            height = share(curve.right[: _end(column, width, count)])
            if height is not None:
                rows[round(height / STEP)][column] = curve.mark
    lines = [f"{STEP * n:4d}% |{''.join(rows[n])}".rstrip() for n in reversed(range(len(rows)))]
    axis = f"      +{'-' * width}"
    ends = f"       1{f'ticket {count}':>{max(1, width - 1)}}"
    return [*lines, axis, ends, *(_legend(curve) for curve in curves)]


def _end(column: int, width: int, count: int) -> int:
    """Questions that a column looks back on."""
    return round((column + 1) * count / width)


def _legend(curve: Curve) -> str:
    known = [each for each in curve.right if each is not None]
    half = known[len(known) // 2 :]
    return (
        f"       {curve.mark}  {curve.name}: {sum(known)} of {len(known)} right, "
        f"second half {sum(half)} of {len(half)}"
    )
