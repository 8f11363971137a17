"""Reflect / distil: one call that turns a contrast into at most one rule of each polarity.

The class renders what is sent and reads what comes back; sending is the loop's work. Question and
trajectories are shown without thoughts and without anything of the rules that were injected into
them, so that rules do not breed rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.lenient_json import tolerant_json
from app.domain.tokens import CHARACTERS_PER_TOKEN
from app.domain.trajectory import (
    Case,
    Contrast,
    DistilledRule,
    Observation,
    Selection,
    Task,
)
from app.loop.reflect.answers import strip_reasoning
from app.loop.steer.delimiters import without_blocks
from app.loop.steer.injector import instructions_text
from app.prompt_library import PromptLibrary, Rendered, is_latin
from rules_store.models.rules import Polarity

_LONGEST_RULE = 240
"""Characters; 32 words of usual length."""
_LONGEST_TRIGGER = 80
_LONGEST_LABEL = 400
_ONE_SIDED = frozenset({Case.UNANIMOUS, Case.HOMOGENEOUS})
_TWO_SIDED = frozenset({Case.MAJORITY, Case.TIE, Case.CONTRASTED, Case.VERIFIED})


_ALIKE = 0.02
"""Values of two answers to an open question that tell nothing, in cosines."""


@dataclass(frozen=True, slots=True)
class TriedOn:
    """A stored question that was answered without rules and with them."""

    question: str
    without: str
    """The answer without them, as is the value before the last."""
    answer: str
    before: float
    after: float

    @property
    def gained(self) -> bool:
        return self.after > self.before + _ALIKE

    @property
    def verdicts(self) -> tuple[str, str]:
        """On the answer without and on the one with the rules, in words."""
        if abs(self.after - self.before) <= _ALIKE:
            return ("good", "as good") if self.before > 0.5 else ("bad", "as bad")
        return ("worse", "better") if self.gained else ("better", "worse")


@dataclass(frozen=True, slots=True)
class Names:
    """The answer that is right, one of those that a task allows, and the wrong one; None where that
    is none of them."""

    right: str
    wrong: str | None

    @property
    def advice(self) -> str:
        """How a rule about them begins."""
        return f"answer {self.right}{f', not {self.wrong},' if self.wrong else ''} when"

    @property
    def listed(self) -> tuple[str, ...]:
        return (self.right,) if self.wrong is None else (self.right, self.wrong)


_NAME = re.compile(r"[A-Za-z][A-Za-z_' -]{2,59}")
"""As it is, part of a pattern and of JSON: nothing in it has to be escaped there."""


def names_in(observation: Observation, selection: Selection) -> Names | None:
    """Of a verified contrast, where the task's instructions list the right answer."""
    if selection.case is not Case.VERIFIED or selection.right is None or selection.worse is None:
        return None
    told = instructions_text(observation.messages).casefold()

    def listed(answer: str) -> bool:
        if _NAME.fullmatch(answer) is None:
            return False
        return re.search(rf"(?<!\w){re.escape(answer.casefold())}(?!\w)", told) is not None

    right, wrong = selection.right.strip(), strip_reasoning(selection.worse.text).strip()
    if not listed(right) or right.casefold() == wrong.casefold():
        return None
    return Names(right, wrong if listed(wrong) else None)


def is_two_sided(selection: Selection) -> bool:
    """Whether it has both a better and a worse side to learn from."""
    return selection.worse is not None and selection.case in _TWO_SIDED


class Distiller:
    """Renders and parses the distiller prompts.

    `question_tokens` and `trajectory_tokens` bound the parts of the prompt, at four characters a
    token; a question keeps its beginning and its end, a trajectory its end.
    """

    def __init__(
        self,
        library: PromptLibrary,
        *,
        question_tokens: int = 400,
        trajectory_tokens: int = 400,
    ) -> None:
        self._library = library
        self._question_length = question_tokens * CHARACTERS_PER_TOKEN
        self._trajectory_length = trajectory_tokens * CHARACTERS_PER_TOKEN

    @staticmethod
    def teaches(selection: Selection) -> bool:
        """Whether a rule may be learned from this selection at all."""
        return selection.better is not None and selection.case in _ONE_SIDED | _TWO_SIDED

    def render(
        self,
        observation: Observation,
        selection: Selection,
        *,
        others: Sequence[Contrast] = (),
        names: Names | None = None,
        english: bool = True,
    ) -> Rendered:
        """The prompt for a selection that teaches; ValueError for any other. `others`: contrasts of
        near questions, which are shown beside one that has two sides. `names`: what the rules are
        to be about. `english`: whether that is what the question is in; rules are written in its
        language."""
        if selection.better is None or not self.teaches(selection):
            raise ValueError(f"nothing is learned from the case {selection.case}")
        if names is not None:
            prompt = self._named(observation, selection, names)
        elif others and is_two_sided(selection):
            prompt = self._cluster(observation, selection, others)
        else:
            prompt = self._single(observation, selection)
        return self._in_language(prompt, observation, english)

    def render_revision(
        self,
        observation: Observation,
        rules: Sequence[str],
        tried: Sequence[TriedOn],
        *,
        english: bool = True,
    ) -> Rendered:
        """The prompt that writes rules once more, after they were tried."""
        injected = [hit.text for hit in observation.hits]
        prompt = self._library.get(observation.domain, "reflect/revise").render(
            question=self._asked(observation.question, injected),
            rules=list(rules),
            replays=[self._replay(each, rules) for each in tried],
        )
        return self._in_language(prompt, observation, english)

    def _replay(self, tried: TriedOn, rules: Sequence[str]) -> dict[str, str]:
        before, after = tried.verdicts
        return {
            "question": self._asked(tried.question, rules),
            "without": self._shown(tried.without, rules),
            "before": before,
            "answer": self._shown(tried.answer, rules),
            "after": after,
        }

    def _named(self, observation: Observation, selection: Selection, names: Names) -> Rendered:
        assert selection.worse is not None, "a verified contrast has two sides"
        injected = [hit.text for hit in observation.hits]
        return self._library.get(observation.domain, "reflect/distil_named").render(
            task=self._asked(instructions_text(observation.messages), injected),
            question=self._asked(observation.question, injected),
            right=names.right,
            worse=self._shown(selection.worse.text, injected),
            advice=names.advice,
        )

    def _cluster(
        self, observation: Observation, selection: Selection, others: Sequence[Contrast]
    ) -> Rendered:
        assert selection.better is not None, "it teaches"
        assert selection.worse is not None, "it is two-sided"
        verified = selection.case is Case.VERIFIED
        own = Contrast(observation.question, selection.better.text, selection.worse.text, verified)
        injected = [hit.text for hit in observation.hits]
        cases = [
            {
                "question": self._asked(each.question, injected),
                "better": self._shown(each.better, injected),
                "worse": self._shown(each.worse, injected),
                "verified": each.verified,
            }
            for each in (own, *others)
        ]
        return self._library.get(observation.domain, "reflect/distil_cluster").render(cases=cases)

    def _single(self, observation: Observation, selection: Selection) -> Rendered:
        assert selection.better is not None, "it teaches"
        injected = [hit.text for hit in observation.hits]
        values = {
            "question": self._asked(observation.question, injected),
            "better": self._shown(selection.better.text, injected),
        }
        return self._prompt(observation, selection, values, injected)

    def _in_language(self, prompt: Rendered, observation: Observation, english: bool) -> Rendered:
        """In the question's own, which the system's part asks for last."""
        if english or not is_latin(observation.question):
            return prompt
        asked = self._library.get(observation.domain, "reflect/language").render().text
        first, *others = prompt.messages
        return replace(
            prompt, messages=({**first, "content": f"{first['content']}\n{asked}"}, *others)
        )

    def _prompt(
        self,
        observation: Observation,
        selection: Selection,
        values: dict[str, str],
        injected: Iterable[str],
    ) -> Rendered:
        if selection.case is Case.VERIFIED:
            return self._verified(observation, selection, values, injected)
        if selection.case in _TWO_SIDED and selection.worse is not None:
            values["worse"] = self._shown(selection.worse.text, injected)
            open_task = selection.task is Task.OPEN
            name = "reflect/distil_open" if open_task else "reflect/distil_closed"
        else:
            name = "reflect/distil_agree"
        return self._library.get(observation.domain, name).render(**values)

    def _verified(
        self,
        observation: Observation,
        selection: Selection,
        values: dict[str, str],
        injected: Iterable[str],
    ) -> Rendered:
        """Somebody knows what is right: the prompt says so, and says what it is."""
        assert selection.worse is not None, "a verified contrast has two sides"
        values["worse"] = self._shown(selection.worse.text, injected)
        if selection.right is None:
            return self._library.get(observation.domain, "reflect/distil_corrected").render(
                **values
            )
        values["right"] = selection.right[:_LONGEST_LABEL]
        return self._library.get(observation.domain, "reflect/distil_verified").render(**values)

    def _asked(self, question: str, injected: Iterable[str]) -> str:
        return _middle_cut(without_rules(question, injected), self._question_length)

    def _shown(self, text: str, injected: Iterable[str]) -> str:
        return _end_of(without_rules(strip_reasoning(text), injected), self._trajectory_length)

    def schema(
        self, case: Case, *, question: str = "", names: Names | None = None, english: bool = True
    ) -> dict[str, Any]:
        """JSON schema of the reply, for structured output.

        A rule is held to words: no digits, braces, backslashes, quotes, angle brackets or line
        breaks. Where `question` is in English (as far as is known: in Latin letters) it is one
        sentence in English that begins as advice or as a warning. Of `names` one rule says both.
        """
        latin = english and is_latin(question)
        phrase = _NAMING_PHRASE if case is Case.VERIFIED else _PHRASE
        do = _DO
        if names is not None:
            do = f"{_DO}{names.advice} "
        properties: dict[str, Any] = {
            "positive": _string(f"^{do}{phrase}" if latin else _ANY_RULE, _LONGEST_RULE)
        }
        if case in _TWO_SIDED and names is None:
            negative = f"^{_DO_NOT}{phrase}" if latin else _ANY_RULE
            properties["negative"] = _string(negative, _LONGEST_RULE)
        # The trigger comes last: written first, it restates the question, and the rules follow it.
        properties["trigger"] = _string(_TRIGGER if latin else _ANY_TRIGGER, _LONGEST_TRIGGER)
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def parse(self, case: Case, reply: Mapping[str, Any] | str | None) -> list[DistilledRule]:
        """The rules in a reply, not yet judged: at most one of each polarity that the case allows.

        Takes an object or a text, however untidy; what can't be understood gives no rule.
        """
        fields = _fields(reply)
        trigger = _line(_first(fields, "trigger"))[:_LONGEST_TRIGGER]
        allowed = [Polarity.POSITIVE]
        if case in _TWO_SIDED:
            allowed.append(Polarity.NEGATIVE)
        rules = []
        for polarity in allowed:
            text = _imperative(_line(_first(fields, polarity.value)))
            if text and text.casefold().strip(" .-") not in _NOTHING:
                rules.append(DistilledRule(polarity=polarity, text=text, trigger=trigger))
        return rules


# Free of everything that JSON would escape or that starts markup. The fixed beginnings make even a
# model of 135M parameters advise instead of narrate; `parse` turns them into imperatives. Flat
# repetitions: bounds inside bounds take llama.cpp a second a token and gigabytes of memory. None
# beyond 128: vLLM's grammar engine fails on those, or crashes (mlc-ai/xgrammar, issue 863).
def _many(character: str, least: int) -> str:
    return f"{character}{{{least}}}{character}{{0,128}}"


_DO, _DO_NOT = "It is important to ", "It is a mistake to "
_PHRASE = "[a-z]" + _many("[A-Za-z',; -]", 15) + "\\.$"
_NAMING_PHRASE = "[a-z]" + _many("[A-Za-z_',; -]", 15) + "\\.$"
"""Where the right answer may be named: names of categories have underscores."""
_TRIGGER = "^[Qq]uestions about( [A-Za-z][A-Za-z'-]*){1,6}$"
_ANY_CHARACTER = r"[^0-9{}<>\[\]\\\"|`#*=\n\r\t]"
_ANY_RULE = f"^{_many(_ANY_CHARACTER, 6)}$"
_ANY_TRIGGER = f"^{_ANY_CHARACTER}{{2,60}}$"


def _string(pattern: str, longest: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": longest, "pattern": pattern}


def without_rules(text: str, injected: Iterable[str]) -> str:
    """`text` without a repeated rules block and without the verbatim wording of any injected rule,
    whatever its case and spacing."""
    text = without_blocks(text)
    for rule in injected:
        words = rule.split()
        if words:
            # Marks in front of it go as well; a run of them is looked through from its start only.
            marks = r"(?:(?<![-*\s])[-*\s]++)?"
            pattern = marks + r"\s++".join(re.escape(word) for word in words)
            text = re.sub(pattern, " ", text, flags=re.IGNORECASE)
    return text.strip()


def _end_of(text: str, length: int) -> str:
    """The last `length` characters, from the start of a word on: the end holds the answer and the
    steps that led to it."""
    if len(text) <= length:
        return text
    return "... " + text[-length:].partition(" ")[2].strip()


def _middle_cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half].rpartition(' ')[0]} ... {text[-half:].partition(' ')[2]}"


_NAMES = {
    "positive": ("positive", "do", "good", "helpful", "advice"),
    "negative": ("negative", "avoid", "dont", "bad", "warning"),
    "trigger": ("trigger", "when", "applies", "kind", "condition"),
}
_NOTHING = frozenset({"none", "null", "n/a", "na", "nothing", "no rule", "empty", "no"})
_LABELLED = re.compile(
    r"^[ \t\-*#\"'{]*+(positive|negative|trigger)(?:[ _]rule)?[ \t*\"']*+[:=-]++[ \t]*+(\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)


def _fields(reply: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Key to value, keys reduced to lower-case letters, nested objects flattened."""
    if isinstance(reply, str):
        text = strip_reasoning(reply)
        fields = _flatten(tolerant_json(text))
        # Labels fill what no JSON gave: small models write "Positive: ..." lines.
        for label, value in _LABELLED.findall(text):
            fields.setdefault(label.casefold(), value.rstrip())
        return fields
    return _flatten(reply)


def _flatten(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, Mapping)), None)
    if not isinstance(value, Mapping):
        return {}
    fields: dict[str, Any] = {}
    for key, item in value.items():
        name = re.sub(r"[^a-z]", "", str(key).casefold().replace("rules", "").replace("rule", ""))
        if isinstance(item, Mapping) and not ({"text", "rule"} & item.keys()):
            for inner, nested in _flatten(item).items():
                fields.setdefault(inner, nested)
        else:
            fields.setdefault(name, item)
    return fields


def _first(fields: Mapping[str, Any], name: str) -> str:
    """The text under the first known spelling of `name`; of a list, its first text."""
    for spelling in _NAMES[name]:
        value = fields.get(spelling)
        if isinstance(value, Mapping):
            value = value.get("text") or value.get("rule")
        if isinstance(value, list):
            value = next((item for item in value if isinstance(item, str) and item.strip()), None)
        if isinstance(value, str) and value.strip():
            return value
    return ""


_LEAD = re.compile(
    # A list mark has a space behind it; '-x' and '**all of it**' begin with none.
    r"\A(?:[-*>]\s+|•\s*|\d+[.)]\s)*"
    r"(?:\*{0,2}(?:positive|negative|trigger)(?:\s+rule)?\*{0,2}\s*:\*{0,2}\s*)?",
    re.IGNORECASE,
)


_ADVICE = re.compile(
    r"\A(?:it is|it's) (important|a mistake|best|better|helpful|useful) (not )?to (?=\w)", re.I
)


def _imperative(text: str) -> str:
    """'It is important to check X' as 'Check X', 'It is a mistake to do X' as 'Do not do X'."""
    match = _ADVICE.match(text)
    if match is None:
        return text
    rest = text[match.end() :]
    if (match[1].casefold() == "a mistake") != bool(match[2]):
        return f"Do not {rest}"
    return rest[0].upper() + rest[1:]


def _line(text: str) -> str:
    """One line without list marks, labels and surrounding quotes; every letter of it kept."""
    line = " ".join(text.split())
    line = _LEAD.sub("", line, count=1).strip()
    for quote in ("**", '"', "'", "`"):
        if len(line) > 2 * len(quote) and line.startswith(quote) and line.endswith(quote):
            line = line[len(quote) : -len(quote)].strip()
    return line
