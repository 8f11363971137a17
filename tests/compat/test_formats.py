"""Explore answers in the client's form: fifty requests that are bound to one.

The model answers in the form that the client asks for, and does what else it is told: a box that
the loop asks for, or a rule that asks for prose, would show.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.compat.helpers import script_loop
from tests.fakes import Reply, ScriptedUpstream, is_structured_step, is_tutor, text_of
from tests.gateway import MODEL, Gateway, running_gateway

Valid = Callable[[str], object]
QUESTION = "How many apples are left of twelve when five are eaten?"
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"count": {"type": "integer"}},
            "required": ["count"],
        },
    },
}


def matches(pattern: str) -> Valid:
    return lambda text: re.fullmatch(pattern, text) or pytest.fail(f"{text!r} is not {pattern}")


def rows(text: str) -> object:
    found = list(csv.reader(text.splitlines()))
    assert len({len(row) for row in found}) == 1 < len(found[0])
    return found


def is_json(text: str) -> Any:
    return json.loads(text)


def is_python(text: str) -> object:
    return compile(text, "answer", "exec")


REACT = "Thought: five of twelve are eaten\nFinal Answer: 7"
# (what the client says, what a model that does it answers, what holds of that)
FORMS: list[tuple[str, str, Valid]] = [
    ('Reply ONLY with a JSON object {"answer": <integer>}.', '{"answer": 7}', is_json),
    ("Return valid JSON with the keys count and unit.", '{"count": 7, "unit": "apple"}', is_json),
    ("Output a JSON array of numbers and nothing else.", "[7]", is_json),
    ("Answer in JSON.", '{"answer": 7}', is_json),
    ("Respond in XML: <answer><count>...</count></answer>", "<answer><count>7</count></answer>",
     ElementTree.fromstring),
    ("Wrap the answer in <result> tags.", "<result>7</result>", ElementTree.fromstring),
    ("Give the answer as YAML with one key, count.", "count: 7", yaml.safe_load),
    ("Reply with a bare number.", "7", matches(r"7")),
    ("Answer with just the number.", "7", matches(r"7")),
    ("Only output the number, no explanation.", "7", matches(r"7")),
    ("Write CSV with a header line: what,count", "what,count\napples,7", rows),
    (f"Use this format:\n{REACT.replace('7', '...')}", REACT,
     matches(r"Thought: .*\nFinal Answer: 7")),
    ("Thought: your reasoning\nAction: the tool\nAction Input: its input",
     "Thought: count\nAction: subtract\nAction Input: 12 5",
     matches(r"Thought: .*\nAction: .*\nAction Input: .*")),
    ("Answer with one word.", "seven", matches(r"\w+")),
    ("Reply with a single word in lower case.", "seven", matches(r"[a-z]+")),
    ("Answer yes or no: are more than six left?", "yes", matches(r"yes|no")),
    ("True or false: seven are left.", "true", matches(r"true|false")),
    ("Reply with the letter only. A) 5 B) 6 C) 7", "C", matches(r"[ABC]")),
    ("Classify as one of: few, some, many. Output the label only.", "some", matches(r"\w+")),
    ("The last line must be 'Answer: N'.", "Five are gone.\nAnswer: 7",
     matches(r"[\s\S]*\nAnswer: 7")),
    ("End with #### and the number.", "12 - 5 = 7\n#### 7", matches(r"[\s\S]*#### 7")),
    (r"Put the final answer in \boxed{}.", r"It is \boxed{7}", matches(r".*\\boxed\{7\}")),
    ("Write a Markdown table with two columns.", "| what | count |\n|---|---|\n| apples | 7 |",
     matches(r"(\|.*\|\n?)+")),
    ("Return only Python code that prints the number.", "print(12 - 5)", is_python),
    ("Write one SQL statement, no other text.", "SELECT 12 - 5;", matches(r"SELECT .*;")),
    ("Answer in at most three words.", "seven apples", matches(r"\w+( \w+){0,2}")),
    ("Respond with exactly one sentence.", "Seven apples are left.", matches(r"[^.]+\.")),
    ("Format your answer as KEY=VALUE.", "COUNT=7", matches(r"\w+=\d+")),
    ("Start your reply with 'Result:'.", "Result: 7", matches(r"Result: 7")),
    ("Give the answer as an ISO 8601 duration, nothing else.", "P7D", matches(r"P\d+D")),
    ("Réponds uniquement par un nombre.", "7", matches(r"7")),
    ("Réponds par une seule étiquette : PEU, MOYEN ou BEAUCOUP.", "MOYEN",
     matches(r"PEU|MOYEN|BEAUCOUP")),
    ("Donne seulement l'étiquette, sans explication.", "MOYEN", matches(r"[A-Z]+")),
    ("Réponds au format JSON.", '{"nombre": 7}', is_json),
    ("Antworte nur mit einer Zahl.", "7", matches(r"7")),
    ("Antworte ausschließlich mit dem Label: WENIG oder VIEL.", "WENIG", matches(r"WENIG|VIEL")),
    ("Gib nur JSON aus, ohne Erklärung.", '{"zahl": 7}', is_json),
    ("Responde solo con un número.", "7", matches(r"7")),
    ("Devuelve únicamente la etiqueta: POCO o MUCHO.", "POCO", matches(r"POCO|MUCHO")),
    ("Rispondi soltanto con una parola.", "sette", matches(r"\w+")),
    ("Responda apenas com um número.", "7", matches(r"7")),
    ("Antwoord alleen met een getal.", "7", matches(r"7")),
    ("Odpowiedz tylko liczbą.", "7", matches(r"7")),
    ("Ответь только числом.", "7", matches(r"7")),
    ("只回答一个数字,不要解释。", "7", matches(r"7")),
    ("数字だけで答えてください。", "7", matches(r"7")),
    ("Sadece rakam yaz.", "7", matches(r"7")),
]  # fmt: skip
FIELDS: list[tuple[dict[str, Any], str, Valid]] = [
    ({"response_format": {"type": "json_object"}}, '{"answer": 7}', is_json),
    ({"response_format": SCHEMA}, '{"count": 7}', is_json),
    ({"guided_choice": ["few", "many"]}, "few", matches("few|many")),
]
PLACES = ("system", "after", "before")


def asked(number: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The messages and fields of a request; the form stands in one of three places."""
    said = f"Case {number}. {QUESTION}"
    if number >= len(FORMS):
        return [{"role": "user", "content": said}], FIELDS[number - len(FORMS)][0]
    form = FORMS[number][0]
    place = PLACES[number % 3]
    if place == "system":
        told = [{"role": "system", "content": form}]
        return [*told, {"role": "user", "content": said}], {}
    text = f"{said}\n{form}" if place == "after" else f"{form}\n\n{said}"
    return [{"role": "user", "content": text}], {}


def case_of(body: dict[str, Any]) -> int:
    return int(re.findall(r"Case (\d+)\.", text_of(body))[-1])


CASES = [*FORMS, *FIELDS]


def answer(body: dict[str, Any]) -> Reply:
    """In the client's form where it stands in this very prompt, with what is added to it."""
    number = case_of(body)
    text = text_of(body)
    form = CASES[number][0]
    said = CASES[number][1]
    if isinstance(form, str) and form not in text:
        said = "Five of the twelve were eaten. The answer is 7."
    if "\\boxed" in text and "\\boxed" not in str(form):
        said += "\n\nSo the answer is \\boxed{7}."
    return Reply(said)


def wordings(lost: bool) -> Callable[[dict[str, Any]], Reply]:
    def tutor(body: dict[str, Any]) -> Reply:
        number = case_of(body)
        form = CASES[number][0]
        kept = "" if lost or not isinstance(form, str) or PLACES[number % 3] == "system" else form
        ends = ("in the basket", "on the table", "at home", "in the kitchen")
        question = "How many of twelve apples are left, when five are eaten,"
        return Reply.of_json(
            {"variants": [f"Case {number}. {question} {end}?\n{kept}".strip() for end in ends]}
        )

    return tutor


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Gateway, ScriptedUpstream]]:
    with (
        ScriptedUpstream() as upstream,
        running_gateway(upstream, learn=False, students=4) as gateway,
    ):
        yield gateway, upstream


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
async def test_fifty_answers_are_in_the_form_that_was_asked_for(running, lost) -> None:
    """Also where the Tutor's wordings have lost it."""
    gateway, upstream = running
    assert len(CASES) == 50
    upstream.reset()
    upstream.when(is_tutor, wordings(lost))
    script_loop(upstream)
    upstream.when(lambda body: not is_structured_step(body) or "Case" in text_of(body), answer)
    wrong = []
    for number, (_, said, valid) in enumerate(CASES):
        messages, fields = asked(number)
        body = {"model": MODEL, "messages": messages, **fields}
        response = await gateway.post({**body, "ttcl": {"mode": "explore"}})
        assert response.status_code == 200, response.text
        told = response.json()
        assert told["ttcl"]["mode"] == "explore", told["ttcl"]["degraded"]
        text = told["choices"][0]["message"]["content"]
        try:
            valid(text)
            assert text == said
        except BaseException as error:  # pytest's own failures among them
            wrong.append((number, CASES[number][0], text, str(error)[:60]))
    assert not wrong, "\n".join(map(str, wrong))
