"""The final answer of a text: every way of marking one, and what is no answer."""

from __future__ import annotations

import time

import pytest

from app.loop.reflect.answers import AnswerForm, extract, strip_reasoning

CHOICES = "Which planet is the largest?\nA) Mars\nB) Jupiter\nC) Venus\nD) Earth"

BOXED = [
    (r"So \boxed{42}.", "42"),
    (r"\boxed{\frac{3}{4}}", r"\frac{3}{4}"),
    (r"It is \boxed{\sqrt{\frac{a^{2}}{b}}} in all.", r"\sqrt{\frac{a^{2}}{b}}"),
    (r"First \boxed{1}, but after a check \boxed{2}.", "2"),
    (r"The answer is \boxed{7}. I wrote \boxed{}.", "7"),
    (r"\boxed{7} in the form \boxed{answer}", "7"),
    (r"\boxed{(1, 2)}", "(1, 2)"),
    (r"\boxed{[0, 1)}", "[0, 1)"),
    (r"\boxed{\{1, 2, 3\}}", r"\{1, 2, 3\}"),
    (r"\boxed{(-\infty, 3]}", r"(-\infty, 3]"),
    (r"\boxed{-5}", "-5"),
    (r"\boxed{1,234.50}", "1,234.50"),
    (r"\boxed{x^2 + 2x + 1}", "x^2 + 2x + 1"),
    (r"\boxed{\text{Tuesday}}", r"\text{Tuesday}"),
    ("boxed{9} has lost its backslash", "9"),
    ("\x08oxed{9} was read by a JSON reader", "9"),
    (r"#### 3 and then \boxed{4}", "4"),
]


@pytest.mark.parametrize(("text", "expected"), BOXED)
def test_boxed(text: str, expected: str) -> None:
    answer = extract(text, "What is it?")
    assert answer is not None
    assert (answer.text, answer.how, answer.explicit) == (expected, AnswerForm.BOXED, True)


MARKED = [
    ("5 + 5 = 10\n#### 10", "10"),
    ("#### 3\nNo, wait.\n#### 4", "4"),
    ("#### -7", "-7"),
    ("#### 1,200", "1,200"),
]


@pytest.mark.parametrize(("text", "expected"), MARKED)
def test_a_line_of_four_hashes(text: str, expected: str) -> None:
    answer = extract(text, "What is it?")
    assert answer is not None
    assert (answer.text, answer.how) == (expected, AnswerForm.MARKED)


STATED = [
    ("We add 5 and 13 and get 18 apples in the two baskets.\nThe answer is 18.", "18"),
    ("First we add the parts, then we halve them.\n\nThe final answer is: 3.5", "3.5"),
    ("After some work with both equations.\n**Answer:** 12", "12"),
    ("We compare both of the fractions.\nTherefore, the answer is -3/4.", "-3/4"),
    ("We look at the calendar, page by page.\nThe answer is Tuesday.", "Tuesday"),
]


@pytest.mark.parametrize(("text", "expected"), STATED)
def test_a_statement(text: str, expected: str) -> None:
    answer = extract(text, "What is it?")
    assert answer is not None
    assert (answer.text, answer.how) == (expected, AnswerForm.STATED)


UNMARKED = [
    ("Paris", "Paris", AnswerForm.SHORT),
    ("42", "42", AnswerForm.SHORT),
    ("$1,250", "$1,250", AnswerForm.SHORT),
    ("30%", "30%", AnswerForm.SHORT),
    ("-8", "-8", AnswerForm.SHORT),
    ("5/6", "5/6", AnswerForm.SHORT),
    ("0.125", "0.125", AnswerForm.SHORT),
    ("(3, 4)", "(3, 4)", AnswerForm.SHORT),
    ("[0, 1)", "[0, 1)", AnswerForm.SHORT),
    ("{1, 2}", "{1, 2}", AnswerForm.SHORT),
    ("3 + 4 = 7", "7", AnswerForm.SHORT),
    ("She has 7 left.", "7", AnswerForm.SHORT),
    (
        "He sells 3 boxes of 20 for the usual price, less the rent.\nSo he has $1,250 left over.",
        "$1,250",
        AnswerForm.LAST,
    ),
    (
        "We move all terms to one side and divide by two, which gives\n"
        r"the solution $x = \frac{3}{4}$",
        r"\frac{3}{4}",
        AnswerForm.LAST,
    ),
]


@pytest.mark.parametrize(("text", "expected", "how"), UNMARKED)
def test_an_unmarked_answer(text: str, expected: str, how: AnswerForm) -> None:
    answer = extract(text, "What is it?")
    assert answer is not None
    assert (answer.text, answer.how, answer.explicit) == (expected, how, False)


LETTERS = [
    "B",
    "(B)",
    "B) Jupiter",
    "**B**",
    "Jupiter",
    r"\boxed{B}",
    r"\boxed{\text{(B)}}",
    r"\boxed{Jupiter}",
    "It is by far the heaviest of all.\nThe answer is B.",
    "The correct option is (B), as it has the largest mass of all planets around the Sun by far.",
    "Mars and Venus are small, and so is Earth; gas giants are not.\n\nAnswer: (B) Jupiter",
]


@pytest.mark.parametrize("text", LETTERS)
def test_a_letter_where_options_are_listed(text: str) -> None:
    answer = extract(text, CHOICES)
    assert answer is not None
    assert answer.text == "B"


@pytest.mark.parametrize("text", [r"\boxed{Jupiter}", "Jupiter"])
def test_no_letter_where_no_options_are_listed(text: str) -> None:
    answer = extract(text, "Which planet is the largest?")
    assert answer is not None
    assert answer.text == "Jupiter"


def test_a_letter_that_is_no_option_stays_what_it_is() -> None:
    answer = extract(r"\boxed{E}", CHOICES)
    assert answer is not None
    assert answer.text == "E"


def test_a_quantity_named_like_an_option_is_no_choice() -> None:
    text = "Option A costs 20 a month and option C costs 35 a month, so we look at a year of both."
    answer = extract(text, "Which plan is cheaper over a year?")
    assert answer is None or answer.how is not AnswerForm.CHOICE


JSON = [
    ('{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'),
    ('```json\n{"a": 1}\n```', '{"a":1}'),
    ("[1, 2, 3]", "[1,2,3]"),
    ('{"name": "Zoë"}', '{"name":"Zoë"}'),
]


@pytest.mark.parametrize(("text", "expected"), JSON)
def test_json_where_it_is_expected(text: str, expected: str) -> None:
    answer = extract(text, json_expected=True)
    assert answer is not None
    assert (answer.text, answer.how) == (expected, AnswerForm.JSON)


def test_a_list_is_an_interval_where_no_json_is_expected() -> None:
    answer = extract("[1, 2]", "What is the range of f?")
    assert answer is not None
    assert (answer.text, answer.how) == ("[1, 2]", AnswerForm.SHORT)


THOUGHTS = [
    ("<think>Is it 5? No.</think>It is 7.", "It is 7."),
    ("Is it 5? No.</think>It is 7.", "It is 7."),
    ("It is 7.<think>Or perhaps 5", "It is 7."),
    ("<think>5</think>It is <thinking>6</thinking>7.", "It is 7."),
    ("<THINK>5</THINK> It is 7.", "It is 7."),
    ("<think>never closed: 5", ""),
    ("It is 7.", "It is 7."),
    ("a < b and b > c", "a < b and b > c"),
]


@pytest.mark.parametrize(("text", "expected"), THOUGHTS)
def test_thoughts_are_no_part_of_the_text(text: str, expected: str) -> None:
    assert strip_reasoning(text) == expected


def test_no_answer_is_taken_out_of_thoughts() -> None:
    answer = extract(r"<think>\boxed{5}</think>\boxed{7}")
    assert answer is not None
    assert answer.text == "7"
    assert extract(r"<think>\boxed{5}") is None
    assert extract(r"<think>\boxed{5}</think>") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        r"\boxed{}",
        "I am sorry, but there is nothing in the text that would tell us anything about the price.",
    ],
)
def test_none_when_there_is_nothing(text: str) -> None:
    assert extract(text, "What does it cost?") is None


HOSTILE = [
    r"\boxed{" * 20_000,
    r"\boxed{1}" * 20_000,
    "{" * 200_000,
    "[" * 200_000,
    "<think>" * 50_000,
    "1," * 100_000,
    "$" * 200_000,
    "9" * 200_000,
    "the answer is " * 20_000,
    "#### " * 50_000,
    "(A) " * 50_000,
    " " * 100_000 + "x",
    "= " * 100_000,
    "\\" * 200_001,
    "is it " * 50_000,
    "```json\n" * 30_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("json_expected", [False, True])
def test_a_hostile_text_is_quick(text: str, json_expected: bool) -> None:
    before = time.thread_time()
    extract(text, CHOICES, json_expected=json_expected)
    extract("7", text, json_expected=json_expected)
    assert time.thread_time() - before < 2.0


@pytest.mark.parametrize("text", ["The answer is" + " " * 20_000, "The answer is x" + ".;" * 9_990])
def test_a_run_of_signs_costs_no_more_than_its_length(text: str) -> None:
    began = time.thread_time()
    extract(text)
    assert time.thread_time() - began < 0.1
