"""Which words of a client say how an answer is to look."""

from __future__ import annotations

import pytest

from app.loop.explore.forms import names_form, unboxed

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It is \\boxed{7}.", "It is 7."),
        ("\\boxed{\\frac{1}{2}} and \\boxed{3}", "\\frac{1}{2} and 3"),
        ("\\boxed{open", "\\boxed{open"),
        ("no box", "no box"),
    ],
)
def test_a_box_is_taken_off(text: str, shown: str) -> None:
    assert unboxed(text) == shown
