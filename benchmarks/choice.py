"""What the choice between kinds of experience costs and finds, by simulation with known values (no
model).

    python -m benchmarks.choice --streams 200

A stream is a namespace of `--questions` requests. What its answers are worth with nothing, with
rules, with examples and with both is known; the outcome of each request (right or wrong) is told
after it, or in a share of them, or never. Reported is what the choices lost against the kind that
is best, in points of the accuracy, and how many requests got examples in each third of the stream.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from rules_store.policy.choice import Given, beliefs_of, choose, on_offer
from rules_store.policy.lift import Tally

out = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Stream:
    """Values in [0, 1] of the answers; None of rules: there are none."""

    name: str
    none: float
    examples: float
    rules: float | None = None
    told: float = 1.0
    """Share of the requests whose outcome is told."""

    def values(self) -> dict[Given, float]:
        found = {Given.NONE: self.none, Given.EXAMPLES: self.examples}
        if self.rules is not None:
            found |= {Given.RULES: self.rules, Given.BOTH: self.examples}
        return found


STREAMS = (
    Stream("examples +15", 0.52, 0.67),
    Stream("examples +15, rules +1", 0.52, 0.67, rules=0.53),
    Stream("examples +21, hard", 0.18, 0.39),
    Stream("examples +15, easy", 0.80, 0.95),
    Stream("examples -6", 0.52, 0.46),
    Stream("examples -6, hard", 0.286, 0.227),
    Stream("examples -15", 0.52, 0.37),
    Stream("examples +15, one in ten told", 0.52, 0.67, told=0.1),
    Stream("examples +15, never told", 0.52, 0.67, told=0.0),
)


@dataclass(frozen=True, slots=True)
class Row:
    """`lost`: mean points against the best kind, `error` its standard error; `shown`: shares of
    the requests with examples, by thirds of the stream."""

    name: str
    lost: float
    error: float
    shown: tuple[float, float, float]


def main(
    streams: Annotated[int, typer.Option(min=2, help="Streams of each kind")] = 200,
    questions: Annotated[int, typer.Option(min=3, help="Requests of a stream")] = 300,
    seed: int = 0,
    result: Annotated[Path | None, typer.Option("--out", help="Write JSON here")] = None,
) -> None:
    """Simulate the choice."""
    rows = [simulate(stream, streams, questions, seed) for stream in STREAMS]
    table = Table(title=f"{streams} streams a row, {questions} requests", title_justify="left")
    for name in ("stream", "points lost", "shown: first third", "second", "last"):
        table.add_column(name, justify="right")
    for row in rows:
        shares = (f"{share:.0%}" for share in row.shown)
        table.add_row(row.name, f"{row.lost:.2f} ± {row.error:.2f}", *shares)
    out.print(table)
    if result is not None:
        content = {
            "streams": streams,
            "questions": questions,
            "seed": seed,
            "rows": [asdict(row) for row in rows],
        }
        result.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def simulate(stream: Stream, streams: int, questions: int, seed: int) -> Row:
    """All streams of one kind."""
    values = stream.values()
    best = max(values.values())
    lost = np.zeros(streams)
    shown = np.zeros(questions)
    for number in range(streams):
        chosen = _choices(stream, values, questions, random.Random(f"{seed}/{number}"))
        lost[number] = 100 * (best - sum(values[each] for each in chosen) / questions)
        shown += [each.has_examples for each in chosen]
    thirds = [float(third.mean()) / streams for third in np.array_split(shown, 3)]
    error = float(lost.std(ddof=1) / np.sqrt(streams))
    return Row(stream.name, float(lost.mean()), error, (thirds[0], thirds[1], thirds[2]))


def _choices(
    stream: Stream, values: dict[Given, float], questions: int, rng: random.Random
) -> list[Given]:
    """Of one stream; what is known grows with each outcome that is told."""
    offered = on_offer(rules=stream.rules is not None, examples=True)
    known: dict[Given, Tally] = {}
    beliefs = beliefs_of(known)
    made: list[Given] = []
    for _ in range(questions):
        given = choose(beliefs, offered, rng)
        made.append(given)
        right = float(rng.random() < values[given])
        if rng.random() < stream.told:
            known[given] = known.get(given, Tally()).plus(right, 1.0)
            beliefs = beliefs_of(known)
    return made


if __name__ == "__main__":
    typer.run(main)
