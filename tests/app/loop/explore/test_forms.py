"""Whether a client has said how an answer is to look, and the box that it did not ask for."""

from __future__ import annotations

import time

import pytest

from app.domain.trajectory import Message, Task
from app.loop.explore.forms import boxes, names_form, prescribed, unboxed


def asked(user: str, system: str = "") -> list[Message]:
    own = [{"role": "system", "content": system}] if system else []
    return [*own, {"role": "user", "content": user}]


@pytest.mark.parametrize(
    "text",
    [
        'Reply ONLY with a JSON object {"answer": <integer>}',
        "Respond with nothing but the number.",
        "Answer in one word.",
        "Please just output the SQL.",
        "Use the following format:\n\nQuestion: ...\nThought: ...\nFinal Answer: ...",
        "Return the result as JSON.",
        "Write your answer inside <answer> tags, like <answer>5</answer>.",
        "Put the final answer after ####",
        "End your reply with 'Result = N'.",
        "Answer yes or no.",
        "Your output format is a list of names.",
        "Put your answer in \\boxed{}.",
        "The last line must be ANSWER: X",
    ],
)
def test_a_form_that_was_asked_for(text: str) -> None:
    assert prescribed(asked(text), {})
    assert prescribed(asked("How many are left?", text), {})


@pytest.mark.parametrize(
    "text",
    [
        "How many apples are left when five of the twelve apples in the basket are eaten?",
        "What is 12 times 7?",
        "Explain how a steam engine works.",
        "You are a helpful assistant.",
        "Janet sells 16 eggs and eats three for breakfast. How much does she make every day?",
        "Express x in simplest radical form, if one number is 5 more and ends with a 3.",
        "He can only return the books that she gave him. How many are left in the end?",
        "Which planet is the largest? A) Mars B) Jupiter C) Venus",
    ],
)
def test_a_plain_question_asks_for_no_form(text: str) -> None:
    assert not prescribed(asked(text), {"temperature": 0, "response_format": {"type": "text"}})
    assert boxes(asked(text), {}, Task.AUTO)
    assert not boxes(asked(text), {}, Task.OPEN)


@pytest.mark.parametrize(
    "params",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "[0-9]+"},
        {"structured_outputs": {"choice": ["7"]}},
        {"logprobs": True},
    ],
)
def test_a_field_prescribes_too(params: dict[str, object]) -> None:
    assert prescribed(asked("How many?"), params)


def test_odd_messages_ask_for_nothing() -> None:
    assert not prescribed([{"role": "system", "content": 5}, {"role": "user", "content": None}], {})
    assert not prescribed([], {"response_format": "json"})


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("So it is \\boxed{7}.", "So it is 7."),
        ("\\boxed{\\frac{1}{2}} and \\boxed {x}", "\\frac{1}{2} and x"),
        ("$\\boxed{\\{1, 2\\}}$", "$\\{1, 2\\}$"),
        ("\\boxed{\\boxed{7}}", "\\boxed{7}"),
        ("cut \\boxed{7", "cut \\boxed{7"),
        ("none", "none"),
        ("", ""),
    ],
)
def test_what_is_in_a_box_stays(text: str, plain: str) -> None:
    assert unboxed(text) == plain


FORMS = """
Return a list of numbers separated by commas.
Use bullet points.
Your answer should be a single integer.
The answer must be one of: red, green, blue.
Please provide a numeric answer.
Respond with a number between 1 and 10.
Label the sentiment as positive, negative or neutral.
Choose one of the following labels: A, B, C.
Respond using the schema {"a": int}
Your output must be parseable by json.loads.
Do not include any other text.
No preamble.
Keep your answer under 10 words.
Give a one-word answer.
Respond 'yes' or 'no'.
Number only.
Just the number please.
Wrap your answer in triple backticks.
Answer as a Python list.
Format: name | value
Follow the template below.
Return true/false.
Return the answer in the format YYYY-MM-DD.
Answer with the letter of the correct option.
Emit TOML.
Antworte mit Ja oder Nein.
Réponds en un mot.
Responde sí o no.
""".strip().splitlines()
QUESTIONS = """
What is 12 times 7?
Solve x^2 = 4 in simplest form.
Express your answer as a common fraction.
Enter all such integers, separated by commas.
Express it as a percentage, but do not include the percent sign.
What number ends with 5 and is divisible by 3?
If only 3 of 5 balls are red, give the probability of a red one.
What is the format of a JPEG file?
Tom has at most 5 letters to send. How many stamps does he need?
She reads exactly 3 lines a minute; how many in an hour?
Milly needs to return a book. When is it due?
He got 90% of the true/false questions right. How many?
The list of numbers 3, 4, 5 has what mean?
Wie viele Äpfel bleiben übrig, wenn nur fünf gegessen werden?
""".strip().splitlines()


@pytest.mark.parametrize("text", FORMS)
def test_a_form_is_seen(text: str) -> None:
    assert names_form(f"How many are left? {text}")
    assert names_form(f"{text}\nHow many are left?")


@pytest.mark.parametrize("text", QUESTIONS)
def test_a_question_names_none(text: str) -> None:
    assert not names_form(text)


def test_boxes_and_orders_without_end_take_no_time() -> None:
    orders: list[Message] = [{"role": "system", "content": "1 " * 8_000}] * 200
    began = time.process_time()
    assert unboxed("\\boxed{" * 10_000) == "\\boxed{" * 10_000
    assert not prescribed(orders, {})
    assert time.process_time() - began < 0.3
