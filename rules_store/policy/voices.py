"""How much the word of one key weighs where rules and examples are judged.

Whoever may give feedback may give as much of it as they like, on questions that they choose. So
evidence is kept apart by *voice*, the key that gave it, and where more than one key reaches a
namespace no voice decides alone:

- In the gate (`gated`), a voice's trials move the test by one step less than a decision takes
  (`most_steps`): two voices, or one and the explorations themselves, decide; a thousand trials of
  one do not. Of the trials after which a rule counts as useless, a voice has half at most. A rule
  that is kept at the cut-off must have helped by the other voices' trials as well.
- In use (`harms`), a voice's outcomes weigh no more than all others together: their weights are
  scaled down to that. And the lift has to be below zero without any one voice too: it must not
  be what one key says against what all others do.
- In the votes on an example's label (`rules_store.policy.votes`), a voice goes three quarters of
  the way from the prior to "more likely wrong than right".
- In the guard of `operations.effect`, what is left without any one voice has to show harm too, if
  less surely: by chance alone it looks like harm half of the time.

`None` stands for what no key has said: the agreement of an exploration's own answers, and the
word of an operator's key. It is not bounded. Evidence whose key was never noted is one voice, ''.

Why a bound and not a count of keys: a second key that says next to nothing must not open the door
to the first one, and honest keys that agree lose hardly anything by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rules_store.policy.gate import DEFAULT_GATE, GateOptions, Verdict, verdict
from rules_store.policy.lift import NOTHING, Lift, Tally, lift

T = TypeVar("T")
Voice = str | None
"""The key that some evidence comes from; None where it is nobody's word."""


@dataclass(frozen=True, slots=True)
class Count:
    """Trials by one voice: those that showed help, harm, and all of them."""

    helped: int = 0
    harmed: int = 0
    tried: int = 0

    def plus(self, effect: int) -> Count:
        """One more trial; `effect`: 1 helped, -1 harmed, 0 neither."""
        return Count(self.helped + (effect > 0), self.harmed + (effect < 0), self.tried + 1)


def most_steps(options: GateOptions) -> int:
    """By how much a voice may move the test of `policy.gate`: one less than a decision takes."""
    step = math.log(options.effect / (1 - options.effect))
    return max(1, math.ceil(math.log((1 - options.error) / options.error) / step) - 1)


def verdict_of_voices(
    counts: Mapping[Voice, Count], options: GateOptions = DEFAULT_GATE
) -> Verdict | None:
    """As `policy.gate.verdict`, of trials by voice, no voice's deciding alone."""
    most = most_steps(options)
    nets = {
        voice: count.helped - count.harmed
        if voice is None
        else max(-most, min(most, count.helped - count.harmed))
        for voice, count in counts.items()
    }
    tried = sum(
        count.tried if voice is None else min(count.tried, options.replays // 2)
        for voice, count in counts.items()
    )
    net = sum(nets.values())
    judged = verdict(max(0, net), max(0, -net), tried, options)
    largest = max((value for voice, value in nets.items() if voice is not None), default=0)
    if judged is Verdict.HELPFUL and net - max(0, largest) <= 0:
        return Verdict.USELESS if tried >= options.replays else None
    return judged


@dataclass(frozen=True, slots=True)
class Tallies:
    """Outcomes by one voice, with the item and without it."""

    with_item: Tally = NOTHING
    without_item: Tally = NOTHING

    @property
    def size(self) -> float:
        return self.with_item.size + self.without_item.size

    def scaled(self, factor: float) -> Tallies:
        return Tallies(self.with_item.aged(factor), self.without_item.aged(factor))


def lift_of_voices(tallies: Mapping[Voice, Tallies]) -> Lift:
    """The lift where no voice weighs more than all others together."""
    total = sum(each.size for each in tallies.values())
    bounded = {
        voice: each
        if voice is None or each.size <= 0
        else each.scaled(min(1.0, max(0.0, total - each.size) / each.size))
        for voice, each in tallies.items()
    }
    return _lift(bounded)


def harms(tallies: Mapping[Voice, Tallies]) -> Lift | None:
    """The bounded lift where it is below zero with its whole interval and its mean is below zero
    without any one voice, too; else None."""
    bounded = lift_of_voices(tallies)
    if bounded.high >= 0:
        return None
    return bounded if without_any(tallies, lambda left: _lift(left).mean < 0) else None


def without_any(told: Mapping[Voice, T], holds: Callable[[Mapping[Voice, T]], bool]) -> bool:
    """Whether it holds of what is left without any one voice. `None` is always left in."""
    return all(
        holds({other: said for other, said in told.items() if other != voice})
        for voice in told
        if voice is not None
    )


def _lift(tallies: Mapping[Voice, Tallies]) -> Lift:
    return lift(
        _sum([each.with_item for each in tallies.values()]),
        _sum([each.without_item for each in tallies.values()]),
    )


def _sum(tallies: list[Tally]) -> Tally:
    return Tally(sum(each.hits for each in tallies), sum(each.misses for each in tallies))
