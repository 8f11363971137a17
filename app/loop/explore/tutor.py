"""The Tutor: other wordings of a question, so that Students do not all stumble at the same word.

A wording that lost a number or a formula asks another question, and its answer would count as a
vote; so fewer variants are better than wrong ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from app.domain.lenient_json import tolerant_json
from app.domain.trajectory import Observation
from app.loop.explore.forms import names_form
from app.prompt_library import PromptLibrary, Rendered

_LONGEST = 4000
"""Characters of a question that the Tutor is given; a longer one is answered as it is."""
_GROWTH = 2.0
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FORMULA = re.compile(
    r"\$\$.{1,400}?\$\$|\$[^$\n]{1,400}\$|\\\[.{1,400}?\\\]|\\\(.{1,400}?\\\)|`[^`\n]{1,400}`",
    re.DOTALL,
)
_OPTION = re.compile(r"(?:^|(?<=\s))\(?([A-J])[).](?=\s)", re.MULTILINE)

# A capital inside a sentence is a name in most languages; where every noun has one, all are kept.
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][^\W\d_]{2,}")
_REQUEST = re.compile(
    r"(?:^|[.,;:] )(?:then )?(?:find|determine|calculate|compute|work out|figure out|give|state"
    r"|name|tell|explain|list|say|identify)\b",
    re.IGNORECASE,
)


class Tutor:
    """Renders and parses the Tutor's prompt; sending is the explorer's work."""

    def __init__(self, library: PromptLibrary) -> None:
        self._library = library

    @staticmethod
    def useful(observation: Observation) -> bool:
        """Whether there is a question to restate at all."""
        return 0 < len(observation.question.strip()) <= _LONGEST

    @staticmethod
    def room(observation: Observation, n: int) -> int:
        """Tokens that `n` wordings and their JSON may take: twice as long as the question."""
        return n * (len(observation.question) // 2 + 48) + 32

    def render(self, observation: Observation, n: int) -> Rendered:
        """The prompt that asks for `n` wordings."""
        prompt = self._library.get(observation.domain, "explore/tutor")
        return prompt.render(question=observation.question.strip(), count=n)

    @staticmethod
    def schema(n: int) -> dict[str, Any]:
        """JSON schema of the reply, for structured output."""
        return {
            "type": "object",
            "properties": {
                "variants": {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": n,
                    "maxItems": n,
                }
            },
            "required": ["variants"],
            "additionalProperties": False,
        }

    @staticmethod
    def parse(reply: Mapping[str, Any] | str | None, question: str, n: int) -> list[str]:
        """At most `n` wordings that ask the same as `question`, each another one.

        Dropped: empty, too long, the same as the question or as one another, and any in which a
        number, formula, option or name is missing or new, any that asks nothing, and any that has
        lost the form of the answer where the question names one.
        """
        kept: list[str] = []
        seen = {_flat(question)}
        for variant in _variants(reply):
            text = variant.strip().strip('"').strip()
            if text and _flat(text) not in seen and _faithful(text, question):
                seen.add(_flat(text))
                kept.append(text)
        return kept[:n]


def _variants(reply: Mapping[str, Any] | str | None) -> list[str]:
    value: Any = reply
    if isinstance(reply, str):
        value = tolerant_json(reply, "{[")
    if isinstance(value, Mapping):
        value = value.get("variants") or next(
            (v for v in value.values() if isinstance(v, list)), []
        )
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _flat(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _faithful(variant: str, question: str) -> bool:
    if len(variant) > _GROWTH * len(question) + 40:
        return False
    return (
        _numbers(variant) == _numbers(question)
        and _formulas(variant) == _formulas(question)
        and Counter(_OPTION.findall(variant)) == Counter(_OPTION.findall(question))
        and set(_NAME.findall(question)) <= _words(variant)
        and set(_NAME.findall(variant)) <= _words(question)
        and ("?" not in question or _asks(variant))
        and (not names_form(question) or names_form(variant))
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _asks(text: str) -> bool:
    """A question or a request; a small model likes to answer instead."""
    return "?" in text or _REQUEST.search(text) is not None


def _numbers(text: str) -> set[str]:
    """Numbers as a set: a wording may say one twice, or once what was said twice."""
    return {number.replace(",", "").rstrip(".") for number in _NUMBER.findall(text)}


def _formulas(text: str) -> set[str]:
    return {"".join(piece.split()).strip("$\\()[]` .,") for piece in _FORMULA.findall(text)}
