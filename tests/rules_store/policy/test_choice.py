"""Which kinds of experience a request is given."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from rules_store.policy.choice import (
    FLOOR,
    PRIOR_MEANS,
    Given,
    beliefs_of,
    choose,
    kernel,
    on_offer,
)
from rules_store.policy.lift import Tally

NONE, RULES, EXAMPLES, BOTH = Given

TALLIES = st.dictionaries(
    st.sampled_from(list(Given)),
    st.builds(Tally, st.floats(0, 500), st.floats(0, 500)),
)


@pytest.fixture(autouse=True)
def database_kind() -> None:
    """Nothing here needs a database."""


@pytest.mark.parametrize(
    ("rules", "examples", "expected"),
    [
        (False, False, (NONE,)),
        (True, False, (NONE, RULES)),
        (False, True, (NONE, EXAMPLES)),
        (True, True, (NONE, RULES, EXAMPLES, BOTH)),
    ],
)
def test_what_can_be_chosen(rules: bool, examples: bool, expected: tuple[Given, ...]) -> None:
    assert on_offer(rules=rules, examples=examples) == expected
    assert Given.of(rules=rules, examples=examples) is expected[-1]


def test_without_outcomes_the_priors_best_stands_whatever_is_drawn() -> None:
    beliefs = beliefs_of({})
    assert beliefs.of(NONE).mean == pytest.approx(PRIOR_MEANS[0])
    for offered in (on_offer(rules=r, examples=e) for r in (True, False) for e in (True, False)):
        chosen = {choose(beliefs, offered, random.Random(n)) for n in range(200)}
        assert chosen == {offered[-1]}


def test_outcomes_of_the_hard_and_of_the_easy_move_no_difference() -> None:
    """A namespace where everything fails is no reason to stop giving examples."""
    hard = beliefs_of({EXAMPLES: Tally(30, 70)})
    assert hard.of(EXAMPLES).mean < PRIOR_MEANS[0]
    assert hard.best((NONE, EXAMPLES)) is EXAMPLES


def test_what_harms_gives_way_but_is_tried_still() -> None:
    beliefs = beliefs_of({NONE: Tally(60, 40), EXAMPLES: Tally(30, 70)})
    assert beliefs.best((NONE, EXAMPLES)) is NONE
    chosen = Counter(choose(beliefs, (NONE, EXAMPLES), random.Random(n)) for n in range(4000))
    share = chosen[EXAMPLES] / 4000
    assert 0.5 * FLOOR < share < 3 * FLOOR


def test_rules_that_help_are_added_to_examples_that_help() -> None:
    beliefs = beliefs_of(
        {NONE: Tally(40, 60), RULES: Tally(60, 40), EXAMPLES: Tally(60, 40), BOTH: Tally(80, 20)}
    )
    assert beliefs.best(list(Given)) is BOTH


def test_the_same_draws_choose_the_same() -> None:
    beliefs = beliefs_of({NONE: Tally(10, 10), EXAMPLES: Tally(11, 9)})
    first = [choose(beliefs, (NONE, EXAMPLES), random.Random(n)) for n in range(50)]
    assert first == [choose(beliefs, (NONE, EXAMPLES), random.Random(n)) for n in range(50)]
    assert len(set(first)) == 2


def test_near_outcomes_move_the_choice_where_they_are_many() -> None:
    known = beliefs_of({NONE: Tally(52, 48), EXAMPLES: Tally(65, 35)})
    offered = (NONE, EXAMPLES)
    few = known.near({EXAMPLES: Tally(0, 2), NONE: Tally(2, 0)})
    many = known.near({EXAMPLES: Tally(5, 45), NONE: Tally(45, 5)})
    assert few.best(offered) is EXAMPLES
    assert many.best(offered) is NONE
    assert known.near({}) is known
    # What is thought of the namespace is as sure, or unsure, as before.
    assert np.array_equal(known.spread, many.spread)


@drawn(tallies=TALLIES, near=TALLIES)
def test_beliefs_of_any_outcomes_are_numbers(
    tallies: dict[Given, Tally], near: dict[Given, Tally]
) -> None:
    beliefs = beliefs_of(tallies).near(near)
    for each in Given:
        belief = beliefs.of(each)
        assert np.isfinite(belief.mean)
        assert belief.low >= 0.0
        assert belief.high <= 1.0
    assert choose(beliefs, list(Given), random.Random(1)) in set(Given)


def test_the_kernel_is_one_for_the_same_and_nothing_below_the_floor() -> None:
    weights = kernel(np.array([1.0, 0.75, 0.5, -1.0], dtype=np.float32), 0.5)
    assert weights == pytest.approx([1.0, 0.25, 0.0, 0.0])
