"""When votes say that an example's label is wrong."""

from __future__ import annotations

import random

import pytest

from rules_store.policy.votes import LEAST_USUAL, LEAST_VOTES, Vote, is_wrong

# Of near questions nine votes of ten are right, of far ones one of ten.
USUAL = [Vote(0.9, n % 10 > 0) for n in range(100)] + [Vote(0.4, n % 10 == 0) for n in range(100)]
NEAR_MISS, NEAR_HIT, FAR_MISS = Vote(0.9, False), Vote(0.9, True), Vote(0.4, False)


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        ([NEAR_MISS] * 3, True),
        ([NEAR_MISS] * 2, False),  # too few to say
        ([FAR_MISS] * 3, False),  # as is usual at that distance
        ([FAR_MISS] * 30, False),
        ([NEAR_MISS, NEAR_MISS, NEAR_HIT], False),
        ([NEAR_MISS] * 6 + [NEAR_HIT], True),
        ([NEAR_HIT] * 10, False),
        ([], False),
    ],
)
def test_misses_count_by_how_unusual_they_are(own: list[Vote], wrong: bool) -> None:
    assert is_wrong(own, USUAL) == wrong


def test_where_little_is_known_nothing_is_usual() -> None:
    assert not is_wrong([NEAR_MISS] * LEAST_VOTES, USUAL[: LEAST_USUAL - 1])
    assert not is_wrong([NEAR_MISS] * 100, [NEAR_MISS] * 100)


def test_a_label_as_good_as_the_others_seldom_goes() -> None:
    rng = random.Random(5)

    def gone(rate: float) -> int:
        """Of 1,000 examples, each looked at after every one of its eight votes."""
        lost = 0
        for _ in range(1000):
            votes = [Vote(0.9, rng.random() < rate) for _ in range(8)]
            lost += any(is_wrong(votes[:n], USUAL) for n in range(1, 9))
        return lost

    assert gone(0.9) < 10
    assert gone(0.03) > 950


def test_equal_similarities_are_not_told_apart_by_their_outcome() -> None:
    mixed = [Vote(0.8, n % 2 == 0) for n in range(40)]
    assert is_wrong([Vote(0.8, False)] * 8, mixed)
    assert not is_wrong([Vote(0.8, False)] * 3, mixed)
