"""Questions, rules and examples for measurements: as long as real ones, all different, about few
things."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from rules_store.models.rules import Polarity, Rule, RuleState, Vectors
from rules_store.operations.exchange import IncomingRule

_THINGS, _PEOPLE = (
    row.split()
    for row in (
        "pens apples bricks tickets bottles stamps chairs lamps books coins tiles shirts "
        "boxes plants",
        "Ana Ben Cara Deniz Emil Farah Goran Hana Ivo Jana Kofi Lena",
    )
)
_STEPS = (
    "write down what is known before the first calculation",
    "multiply the price by the number bought, then subtract what was returned",
    "convert every quantity to one unit before adding",
    "check the result by putting it back into the sentence",
    "work out the part that is left, not the part that is gone",
    "divide the total among all of them, the giver included",
    "treat a discount as a share of the price before it",
    "count both ends of a row when things stand at its ends",
)
_WHEN = (
    "something is bought and part of it is given away",
    "a total is shared among several people",
    "a price changes twice in a row",
    "two amounts are compared by how many more",
    "a pattern repeats every few days",
    "a rate is given per hour and a time in minutes",
)

_EXAMPLES_FROM = 1_000_000_000


def question(number: int) -> str:
    """Some 35 words; two numbers give two texts, so that nothing is answered from a cache."""
    rng = random.Random(number)
    thing, other = rng.sample(_THINGS, 2)
    person = rng.choice(_PEOPLE)
    return (
        f"{person} buys {rng.randint(3, 99)} {thing} for {rng.randint(2, 40)} coins each and "
        f"gives {rng.randint(1, 9)} of them away. Later {person} trades the rest for "
        f"{rng.randint(2, 60)} {other}. How many coins were spent in order number {number}?"
    )


def rule(number: int) -> tuple[str, str]:
    """Text and trigger of a rule of some 25 words."""
    rng = random.Random(-1 - number)
    thing = rng.choice(_THINGS)
    text = (
        f"When {rng.choice(_WHEN)}, as with {thing} of lot {number}, {rng.choice(_STEPS)}, "
        f"and {rng.choice(_STEPS)}."
    )
    return text, f"a purchase of {thing}, lot {number}"


def example(number: int) -> tuple[str, str]:
    """Question and answer of an example, some 35 and 20 words; the question is none that is asked
    while measuring."""
    rng = random.Random(f"example {number}")
    answer = (
        f"First {rng.choice(_STEPS)}, then {rng.choice(_STEPS)}: that makes "
        f"\\boxed{{{rng.randint(6, 4000)}}}."
    )
    return question(_EXAMPLES_FROM + number), answer


def incoming(
    number: int, vectors: Vectors, *, namespace: str, text: str | None = None
) -> IncomingRule:
    """An active rule to import, of alternating polarity; `text` instead of the number's own."""
    own_text, trigger = rule(number)
    now = datetime.now(UTC)
    made = Rule(
        id=f"rule_{number:024x}",
        namespace=namespace,
        polarity=list(Polarity)[number % 2],
        state=RuleState.ACTIVE,
        text=own_text if text is None else text,
        trigger=trigger,
        domain="default",
        frequency=1,
        exposures=0,
        source_episode=None,
        version=1,
        reason=None,
        created_at=now,
        updated_at=now,
    )
    return IncomingRule(made, vectors)
