"""A wording that asks something else would vote on another question, so it is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from app.loop.explore.tutor import Tutor
from app.prompt_library import PromptLibrary
from tests.app.loop.group import asked

QUESTION = "Then Maria buys 12 pens for $3.50 each. How much does Maria pay in all?"
GOOD = [
    "Maria buys 12 pens and each costs $3.50. How much does Maria pay in all?",
    "How much does Maria pay for 12 pens at $3.50 each?",
    "What is the total price for Maria when 12 pens cost $3.50 each?",
    "Each of the 12 pens that Maria buys costs $3.50; find the total.",
]


def parse(variants: Any, question: str = QUESTION, n: int = 10) -> list[str]:
    return Tutor.parse({"variants": variants}, question, n)


def test_faithful_wordings_are_kept_in_order_and_at_most_n() -> None:
    assert parse(GOOD) == GOOD
    assert parse(GOOD, n=2) == GOOD[:2]


BAD = {
    "a number is lost": "Maria buys pens for $3.50 each. How much does Maria pay in all?",
    "a number is new": "Maria buys 12 pens for $3.50 each. How much does Maria pay for all 24?",
    "a number is another": "Maria buys 13 pens for $3.50 each. How much does Maria pay in all?",
    "the question is lost": "Maria buys 12 pens, and each pen costs $3.50.",
    "an answer": "Maria pays $42.00 for 12 pens at $3.50 each.",
    "empty": "",
    "blank": "  \n",
    "the question itself": QUESTION,
    "the question in other letters": QUESTION.upper().replace("MARIA", "Maria"),
    "far too long": GOOD[0] + " That is to say, how much in all?" * 20,
    "only quotes": '""',
}


@pytest.mark.parametrize("variant", BAD.values(), ids=BAD.keys())
def test_an_unfaithful_wording_is_dropped(variant: str) -> None:
    assert parse([variant, GOOD[0]]) == [GOOD[0]]


PAIRS = [
    (
        "no new name",
        "Each of the 3 girls eats 7 figs. How many figs do they eat?",
        "Each of the 3 girls, among them Anna, eats 7 figs. How many figs do they eat?",
        "How many figs do 3 girls eat when each eats 7?",
    ),
    (
        "a name",
        "Every day Tom and also Anna eat 3 figs. How many figs are that in 7 days?",
        "Two children, Tom and Ben, eat 3 figs every day. How many do they eat in 7 days?",
        "In 7 days, how many figs do Tom and Anna eat, with 3 figs every day?",
    ),
    (
        "an option",
        "Which is a prime?\nA) 4\nB) 7\nC) 9",
        "Which of these is a prime?\nA) 4\nB) 7, 9",
        "Which one of these numbers is a prime?\nA) 4\nB) 7\nC) 9",
    ),
    (
        "a formula",
        "What is the slope of $y = 2x + 1$?",
        "What is the slope of $y = x + 12$?",
        "Which slope does the line $y=2x+1$ have?",
    ),
    (
        "an order of thousands",
        "How many are 10% of 1,200?",
        "How many are 10% of 1,20?",
        "What do you get for 10% of 1200?",
    ),
]


@pytest.mark.parametrize(("what", "question", "bad", "good"), PAIRS, ids=[p[0] for p in PAIRS])
def test_what_must_be_kept(what: str, question: str, bad: str, good: str) -> None:
    assert parse([bad, good], question) == [good]


def test_duplicates_are_dropped() -> None:
    again = GOOD[0].replace(". How", ", how").lower().replace("maria", "Maria")
    assert parse([GOOD[0], GOOD[0], again, f'"{GOOD[0]}"', GOOD[1]]) == GOOD[:2]


def test_a_request_without_a_question_mark_may_stay_one() -> None:
    question = "Describe how bees make honey."
    assert parse(["Explain the way in which bees make honey."], question) != []


ARRAY = f'["{GOOD[0]}", "{GOOD[1]}"]'
MESSY = [
    f'{{"variants": {ARRAY}}}',
    f'```json\n{{"variants": {ARRAY}}}\n```',
    f'Here you are:\n{{"variants": {ARRAY}}}\nI hope this helps!',
    f'{{"variants": ["{GOOD[0]}", "{GOOD[1]}",],}}',
    f'{{"variants": ["{GOOD[0]}", "{GOOD[1]}"',
    f'{{"questions": {ARRAY}}}',
    ARRAY,
    f"{{'variants': ['{GOOD[0]}', '{GOOD[1]}']}}",
    f'{{"variants": [1, null, "{GOOD[0]}", {{"a": 1}}, "{GOOD[1]}"]}}',
]


@pytest.mark.parametrize("reply", MESSY)
def test_messy_replies(reply: str) -> None:
    assert Tutor.parse(reply, QUESTION, 4) == GOOD[:2]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "",
        "I can't.",
        "{",
        "[",
        "{}",
        "[]",
        '{"variants": null}',
        '{"variants": "a"}',
        {},
        {"variants": 7},
        {"variants": [None]},
        "[" * 50000,
        '{"a":' * 50000,
    ],
    ids=lambda reply: repr(reply)[:20],
)
def test_nothing_to_be_read(reply: Any) -> None:
    assert Tutor.parse(reply, QUESTION, 4) == []


def test_the_prompt_has_the_question_and_the_count() -> None:
    tutor = Tutor(PromptLibrary.bundled())
    text = tutor.render(asked(QUESTION), 3).text
    assert QUESTION in text
    assert "3 different ways" in text
    assert "1 different way." in tutor.render(asked(QUESTION), 1).text


def test_the_schema_asks_for_exactly_n() -> None:
    array = Tutor.schema(3)["properties"]["variants"]
    assert (array["minItems"], array["maxItems"]) == (3, 3)


@pytest.mark.parametrize(
    ("question", "useful"), [(QUESTION, True), (" ", False), ("a" * 9000, False)]
)
def test_useful(question: str, useful: bool) -> None:
    assert Tutor.useful(asked(question)) is useful


def test_room_is_enough_for_what_is_kept() -> None:
    assert Tutor.room(asked(QUESTION), 3) >= 3 * len(QUESTION) / 4
    assert Tutor.room(asked(QUESTION), 4) > Tutor.room(asked(QUESTION), 3)
