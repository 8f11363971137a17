"""How soon the control group shows what steering does, how often it errs, and what it costs, by
simulation with known outcomes (no model).

    python -m benchmarks.effect --runs 1000
    python -m benchmarks.effect --runs 10000 --only alarms

Each run is a namespace whose conversations are right or wrong by lot, in either arm with its own
probability; the interval of `rules_store.policy.effect` is looked at after every one, as the
service does. Reported are false alarms with no effect and misses of the true effect; after how many
conversations effects show at several shares of control, and how soon the guard trips; and what the
shares and the default schedule of `rules_store.policy.control` lose against whoever knew the effect
from the beginning, in answers that are wrong for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rules_store.policy.control import LEAST_OUTCOMES, MEASURING, RESTING, WARM_UP
from rules_store.policy.effect import ALPHA, GUARD_ALPHA, RATES, evidence, step

out = Console(highlight=False)

Numbers = NDArray[np.float64]
NEVER = np.inf
NULLS = ((0.1, MEASURING), (0.5, RESTING), (0.5, MEASURING), (0.5, 0.5), (0.9, MEASURING))
"""Accuracies of both arms where there is no effect, and shares of control."""
BASE = 0.5
EFFECTS = (0.02, 0.05, 0.1, 0.2, -0.05, -0.1, -0.2)
SHARES = (0.05, 0.1, 0.25, 0.5)
LONGEST = 100_000
"""Conversations of a run at most, whatever the effect."""
CUPED = (0.0, 0.2, 0.4, 0.6)
"""Correlations of an outcome with what is known of its question beforehand."""


@dataclass(slots=True)
class Streams:
    """Many runs side by side: what `EffectState` keeps, with an axis for the runs in front. The
    arrays of moments have the number of the conversation after which something was so first."""

    runs: int
    counts: Numbers = field(init=False)
    """Of control and steered outcomes, shape (runs, 2); so `totals`, their sums."""
    totals: Numbers = field(init=False)
    gains: Numbers = field(init=False)
    slopes: Numbers = field(init=False)
    penalties: Numbers = field(init=False)
    helps: Numbers = field(init=False)
    harms: Numbers = field(init=False)
    tripped: Numbers = field(init=False)
    missed: Numbers = field(init=False)
    seen: int = 0

    def __post_init__(self) -> None:
        self.counts, self.totals = np.zeros((self.runs, 2)), np.zeros((self.runs, 2))
        self.gains, self.slopes, self.penalties = (
            np.zeros((self.runs, len(RATES))) for _ in range(3)
        )
        self.helps, self.harms, self.tripped, self.missed = (
            np.full(self.runs, NEVER) for _ in range(4)
        )

    def add(
        self,
        steered: NDArray[np.bool_],
        share: Numbers,
        value: Numbers,
        truth: float,
        known: Numbers | float = 0.0,
    ) -> None:
        """One more outcome of each run. `known`: what is added to the guess of it."""
        guesses = (self.totals + 1.0) / (self.counts + 2.0)
        guess = np.clip(share * guesses[:, 1] + (1.0 - share) * guesses[:, 0] + known, 0.0, 1.0)
        z, rates, penalties = step(steered, share, value, guess)
        self.gains += rates * z[:, None]
        self.slopes += rates * (share * (1.0 - share))[:, None]
        self.penalties += penalties
        rows = np.arange(self.runs)
        self.counts[rows, steered.astype(int)] += 1.0
        self.totals[rows, steered.astype(int)] += value
        self.seen += 1
        self._look(truth)

    def _look(self, truth: float) -> None:
        above = evidence(self.gains, self.penalties)
        below = evidence(-self.gains, self.penalties)
        least = np.log(2.0 / ALPHA)
        self._note(self.helps, above >= least)
        self._note(self.harms, below >= least)
        self._note(self.tripped, below >= np.log(1.0 / GUARD_ALPHA))
        if truth:
            gains = self.gains - truth * self.slopes
            above, below = evidence(gains, self.penalties), evidence(-gains, self.penalties)
        self._note(self.missed, np.maximum(above, below) >= least)

    def _note(self, moments: Numbers, now: NDArray[np.bool_]) -> None:
        moments[now & np.isinf(moments)] = self.seen


def simulate(
    rng: np.random.Generator,
    runs: int,
    conversations: int,
    base: float,
    effect: float,
    share: float,
    correlation: float = 0.0,
) -> Streams:
    """At a constant share; ended early once every run has its verdict and a guard's."""
    streams = Streams(runs)
    shares = np.full(runs, share)
    for _ in range(conversations):
        steered = rng.random(runs) >= share
        # What is known of a question moves its chance as far as the correlation says.
        known = rng.choice((-1.0, 1.0), runs) * correlation * np.sqrt(base * (1 - base))
        value = (rng.random(runs) < base + effect * steered + known).astype(np.float64)
        streams.add(steered, shares, value, effect, known)
        if effect > 0 and np.isfinite(streams.helps).all():
            break
        if effect < 0 and np.isfinite(streams.tripped).all():
            break
    return streams


def regret(
    rng: np.random.Generator,
    runs: int,
    conversations: int,
    effect: float,
    share: float,
    judged: float,
    *,
    scheduled: bool,
) -> tuple[float, float]:
    """Mean number of answers that were wrong because of their arm, and the share of the runs in
    which it is known in the end that steering helps, or that it harms and is suspended. `share`:
    always, or if `scheduled` while it is measured. `judged`: share of conversations whose outcome
    is told."""
    streams = Streams(runs)
    lost = np.zeros(runs)
    outcomes = 0
    for at in range(conversations):
        shares = np.full(runs, share)
        if scheduled and at < WARM_UP:
            shares = np.zeros(runs)
        elif scheduled:
            measuring = (outcomes >= LEAST_OUTCOMES) & np.isinf(streams.helps)
            shares = np.where(measuring, share, RESTING)
        suspended = np.isfinite(streams.tripped)
        # On average, as the arms are drawn: less noise than counting them.
        gone = max(effect, 0.0) * shares - min(effect, 0.0) * (1.0 - shares)
        lost += np.where(suspended, max(effect, 0.0), gone)
        if rng.random() < judged:
            outcomes += 1
            steered = rng.random(runs) >= shares
            value = (rng.random(runs) < BASE + effect * steered).astype(np.float64)
            streams.add(steered, shares, value, effect)
    known = streams.helps if effect > 0 else streams.tripped
    return float(lost.mean()), float(np.isfinite(known).mean())


def report_alarms(runs: int, conversations: int, seed: int) -> None:
    table = Table(title=f"No effect, {runs} runs of {conversations} conversations, in percent")
    for column in ("accuracy", "share", "ever helps or harms", "guard ever trips"):
        table.add_column(column, justify="right")
    for base, share in NULLS:
        rng = np.random.default_rng(seed)
        found = simulate(rng, runs, conversations, base, 0.0, share)
        alarms = np.isfinite(np.minimum(found.helps, found.harms)).mean()
        trips = np.isfinite(found.tripped).mean()
        table.add_row(f"{base:.2f}", f"{share:.2f}", f"{alarms:.2%}", f"{trips:.2%}")
    out.print(table)


def report_speed(runs: int, seed: int) -> None:
    table = Table(title=f"Conversations until it shows, {runs} runs, at {BASE:.0%} accuracy")
    columns = ("points", "share", "verdict in half", "in nine of ten", "guard in half",
               "in nine of ten", "truth missed")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    for effect in EFFECTS:
        for share in SHARES:
            rng = np.random.default_rng(seed)
            expected = 8.0 / (share * (1 - share) * effect**2)
            found = simulate(rng, runs, min(LONGEST, int(expected)), BASE, effect, share)
            verdict = found.helps if effect > 0 else found.harms
            guard = ("", "") if effect > 0 else _quantiles(found.tripped)
            missed = f"{np.isfinite(found.missed).mean():.1%}"
            told = _quantiles(verdict)
            table.add_row(f"{100 * effect:+.0f}", f"{share:.2f}", *told, *guard, missed)
    out.print(table)


def _quantiles(moments: Numbers) -> tuple[str, str]:
    half, most = (np.quantile(moments, share, method="higher") for share in (0.5, 0.9))
    return _told(half), _told(most)


def _told(moment: float) -> str:
    return "never" if np.isinf(moment) else f"{moment:,.0f}"


def report_regret(runs: int, conversations: int, seed: int) -> None:
    title = (
        f"Answers lost among {conversations} conversations, mean of {runs} runs (known in the end)"
    )
    table = Table(title=title)
    kinds = [(share, scheduled) for scheduled in (False, True) for share in SHARES[1:]]
    columns = [f"{'schedule' if scheduled else 'always'} {share}" for share, scheduled in kinds]
    for column in ("points", "told", *columns):
        table.add_column(column, justify="right")
    for judged in (1.0, 0.2):
        for effect in (0.2, 0.1, 0.05, -0.05, -0.1, -0.2):
            row = []
            for share, scheduled in kinds:
                rng = np.random.default_rng(seed)
                lost, known = regret(
                    rng, runs, conversations, effect, share, judged, scheduled=scheduled
                )
                row.append(f"{lost:.0f} ({known:.0%})")
            table.add_row(f"{100 * effect:+.0f}", f"{judged:.0%}", *row)
    out.print(table)


def report_cuped(runs: int, seed: int) -> None:
    title = f"With a guess that knows the question: conversations until +10 shows, {runs} runs"
    table = Table(title=title)
    for column in ("correlation", "verdict in half", "in nine of ten"):
        table.add_column(column, justify="right")
    for correlation in CUPED:
        rng = np.random.default_rng(seed)
        found = simulate(rng, runs, 6000, 0.45, 0.1, 0.5, correlation)
        table.add_row(f"{correlation:.1f}", *_quantiles(found.helps))
    out.print(table)


def main(
    runs: Annotated[int, typer.Option(min=1)] = 1000,
    conversations: Annotated[int, typer.Option(min=1)] = 5000,
    seed: int = 1,
    only: Annotated[str, typer.Option(help="alarms, speed, regret or cuped; all without")] = "",
) -> None:
    """Simulates the control group, the interval, the guard and the default schedule."""
    if only in ("", "alarms"):
        report_alarms(runs, conversations, seed)
    if only in ("", "speed"):
        report_speed(runs, seed)
    if only in ("", "regret"):
        report_regret(runs, conversations, seed)
    if only in ("", "cuped"):
        report_cuped(runs, seed)


if __name__ == "__main__":
    typer.run(main)
