"""No voice decides alone; two that agree do, and an operator's needs no other."""

from __future__ import annotations

import pytest

from rules_store.policy.gate import DEFAULT_GATE, Verdict, verdict
from rules_store.policy.lift import Tally
from rules_store.policy.voices import (
    Count,
    Tallies,
    Voice,
    harms,
    lift_of_voices,
    most_steps,
    verdict_of_voices,
)
from rules_store.policy.votes import Vote, is_wrong

HELPFUL, HARMFUL, USELESS = Verdict.HELPFUL, Verdict.HARMFUL, Verdict.USELESS
MANY = 1000
USUAL = [Vote(0.9, n % 10 > 0, "c") for n in range(100)]


def helped(count: int, tried: int | None = None) -> Count:
    return Count(max(0, count), max(0, -count), abs(count) if tried is None else tried)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": helped(MANY)}, None),
        ({"a": helped(-MANY)}, None),
        ({"a": Count(0, 0, MANY)}, None),
        ({"a": helped(MANY), "b": Count(0, 0, MANY)}, USELESS),
        ({"a": helped(MANY), "b": helped(1)}, HELPFUL),
        ({"a": helped(-MANY), "b": helped(-1)}, HARMFUL),
        ({"a": helped(MANY), None: helped(1)}, HELPFUL),
        ({"a": helped(MANY), None: helped(-1)}, None),
        ({"a": helped(MANY), "b": helped(-MANY)}, USELESS),
        ({"": helped(MANY)}, None),
        ({None: helped(3)}, HELPFUL),
    ],
)
def test_one_voice_does_not_decide_at_the_gate(
    counts: dict[Voice, Count], expected: Verdict | None
) -> None:
    assert verdict_of_voices(counts) is expected


def test_without_voices_the_gate_is_as_it_was() -> None:
    for net in range(-4, 5):
        for tried in (4, 47, 48):
            alone = verdict_of_voices({None: Count(max(0, net), max(0, -net), tried)})
            assert alone is verdict(max(0, net), max(0, -net), tried)


def test_a_voice_is_one_step_short_of_a_decision() -> None:
    most = most_steps(DEFAULT_GATE)
    assert verdict(most, 0, most) is None
    assert verdict(most + 1, 0, most + 1) is HELPFUL


BAD, GOOD = Tallies(Tally(0, 15), Tally(5, 0)), Tallies(Tally(15, 0), Tally(0, 5))
FEW_BAD = Tallies(Tally(0, 1))


@pytest.mark.parametrize(
    ("tallies", "harmful"),
    [
        ({"a": BAD}, False),
        ({"a": BAD, "b": FEW_BAD}, False),  # together as much as twice the little that b says
        ({"a": BAD, "b": BAD}, True),
        ({"a": BAD, "b": GOOD}, False),
        ({"a": BAD, None: BAD}, True),
        ({None: BAD}, True),
        ({"a": BAD, "b": BAD, "c": GOOD}, False),
        ({"a": Tallies(Tally(0, 1500), Tally(500, 0)), None: GOOD}, False),
    ],
)
def test_one_voice_does_not_condemn_what_is_used(
    tallies: dict[Voice, Tallies], harmful: bool
) -> None:
    assert (harms(tallies) is not None) == harmful


def test_what_one_voice_says_weighs_as_much_as_all_others() -> None:
    one, others = Tallies(Tally(0, MANY)), Tallies(Tally(4, 0))
    assert lift_of_voices({"a": one, "b": others}) == lift_of_voices({None: Tallies(Tally(4, 4))})


@pytest.mark.parametrize(
    ("voices", "wrong"),
    [("aaa", False), ("a" * MANY, False), ("aab", True), ("abc", True), (["", "", ""], False)],
)
def test_one_voice_does_not_refute_an_example(voices: list[str], wrong: bool) -> None:
    own = [Vote(0.9, False, voice) for voice in voices]
    assert is_wrong(own, USUAL)
    assert is_wrong(own, USUAL, bounded=True) == wrong


def test_an_operators_votes_are_not_bounded() -> None:
    assert is_wrong([Vote(0.9, False, None)] * 3, USUAL, bounded=True)
