"""The admission check: a rule that must not steer other requests is refused, with the reason.

A pipeline of small named checks; the first that objects names the refusal. A refused rule is kept
in quarantine, so a check may rather refuse too much than too little. What is checked is wording
only: whether a rule helps is measured later, by use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.reflect import hygiene
from app.reflect.answers import strip_reasoning
from app.reflect.wording import (
    capitals,
    content_words,
    longest_shared,
    numbers,
    script,
    spelled,
)
from app.templates import Rendered
from app.trajectory import DistilledRule, Observation, Selection, Task
from rules_store.types import Polarity


@dataclass(frozen=True, slots=True)
class Refusal:
    check: str
    detail: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule was learned from. All of it may be empty, for rules that an operator wrote."""

    question: str = ""
    answers: tuple[str, ...] = ()
    trajectories: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()
    instructions: str = ""
    """The fixed part of the distiller's prompt."""
    closed: bool = False


def judge(
    rules: Sequence[DistilledRule],
    observation: Observation,
    selection: Selection,
    *,
    prompt: Rendered | None = None,
) -> list[DistilledRule]:
    """The rules with `refusal` filled in where a check objects, as `check: detail`.

    `prompt` is what the distiller was sent; a rule that repeats its instructions is refused.
    """
    contrast = [t for t in (selection.better, selection.worse) if t is not None]
    instructions = [
        str(message["content"])
        for message in (prompt.messages if prompt else ())
        if message.get("role") == "system"
    ]
    context = Context(
        question=observation.question,
        answers=tuple(sorted({j.answer for j in selection.judged if j.answer})),
        trajectories=tuple(strip_reasoning(t.text) for t in contrast),
        injected=tuple(hit.text for hit in observation.hits),
        instructions="\n".join(instructions),
        closed=selection.task is Task.CLOSED,
    )
    return [_judged(rule, context) for rule in rules]


def _judged(rule: DistilledRule, context: Context) -> DistilledRule:
    refused = refusal(rule.text, context, polarity=rule.polarity, trigger=rule.trigger)
    return replace(rule, refusal=f"{refused.check}: {refused.detail}" if refused else None)


def refusal(
    text: str, context: Context, *, polarity: Polarity | None = None, trigger: str = ""
) -> Refusal | None:
    """The first check that objects to a rule or to its trigger; None when all admit it."""
    found: list[tuple[str, str | None]] = [(c.__name__, c(text)) for c in _TEXT_CHECKS]
    if polarity is not None:
        found.append(("wrong_polarity", hygiene.wrong_polarity(text, polarity)))
    found += [(c.__name__, c(text, context)) for c in _ORIGIN_CHECKS]
    if trigger:
        found += [(c.__name__, _in_trigger(c(trigger))) for c in _TRIGGER_CHECKS]
        found += [
            (c.__name__, _in_trigger(c(trigger, context))) for c in (question_number, answer_leak)
        ]
    return next((Refusal(name, detail) for name, detail in found if detail is not None), None)


def _in_trigger(detail: str | None) -> str | None:
    return None if detail is None else f"in the trigger: {detail}"


# Each check takes the text and what it was learned from, and returns what it objects to, or None.


def question_number(text: str, context: Context) -> str | None:
    """A number of the question or of a solution, in digits, or spelled out from eleven on; small
    number words are ordinary words of advice ('in two steps')."""
    seen = numbers(context.question).union(*(numbers(t) for t in context.trajectories))
    in_digits = sorted(numbers(text) & seen)
    if in_digits:
        return in_digits[0]
    folded = f" {' '.join(re.findall(r'[a-z]+', text.casefold()))} "
    return next((n for n in sorted(seen) if (word := spelled(n)) and f" {word} " in folded), None)


_COMMON_ANSWERS = frozenset({"yes", "no", "true", "false", "none", "all", "both", "it", "the", "a"})


def answer_leak(text: str, context: Context) -> str | None:
    """An answer of the group, right or wrong, as whole words."""
    folded = " ".join(text.casefold().split())
    for answer in context.answers:
        plain = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\1", answer)
        plain = " ".join(plain.casefold().split()).strip(" .$")
        if (len(plain) < 2 and not plain.isdigit()) or plain in _COMMON_ANSWERS:
            continue
        if re.search(rf"(?<![\w.]){re.escape(plain)}(?!\w)", folded):
            return answer
        if (word := spelled(plain)) and f" {word} " in f" {folded.replace('-', ' ').strip('. ')} ":
            return answer
    return None


def language(text: str, context: Context) -> str | None:
    mine, theirs = script(text), script(context.question)
    if mine is None or theirs is None or mine == theirs:
        return None
    return f"{mine.lower()} letters for a question in {theirs.lower()} ones"


_ECHOED_PROMPT = 6
_ECHOED_RULE = 6
_ECHOED_QUESTION = 4
_ECHOED_CONTENT = 3


def echo(text: str, context: Context) -> str | None:
    """Words of the distiller's instructions, of the question, or part of an injected rule."""
    if run := longest_shared(text, context.instructions, _ECHOED_PROMPT):
        return f"the instructions say '{run}'"
    run = longest_shared(text, context.question, _ECHOED_QUESTION)
    if run and len(content_words(run)) >= _ECHOED_CONTENT:
        return f"the question says '{run}'"
    for rule in context.injected:
        # The same rule found again is a repetition to be counted; a piece of one is a copy.
        if " ".join(rule.casefold().split()) == " ".join(text.casefold().split()):
            continue
        if run := longest_shared(text, rule, _ECHOED_RULE):
            return f"an injected rule says '{run}'"
    return None


_QUESTION_SHARE = 0.6


def question_content(text: str, context: Context) -> str | None:
    """Advice that consists of the question's own things (ducks, eggs, muffins) is about it only."""
    mine, theirs = content_words(text), content_words(context.question)
    shared = mine & theirs
    if context.closed and len(mine) >= 4 and len(shared) >= _QUESTION_SHARE * len(mine):
        return ", ".join(sorted(shared))
    return None


def proper_noun(text: str, context: Context) -> str | None:
    """A name out of a closed question. Open questions are about their names (a language, a
    product), and named theorems carry over."""
    if not context.closed:
        return None
    return next((name for name in sorted(capitals(text) & capitals(context.question))), None)


_TEXT_CHECKS: tuple[Callable[[str], str | None], ...] = (
    hygiene.control_characters,
    hygiene.too_short,
    hygiene.too_long,
    hygiene.boxed,
    hygiene.role_or_tool_token,
    hygiene.url,
    hygiene.instruction_override,
    hygiene.placeholder,
    hygiene.context_reference,
    hygiene.calculation,
    hygiene.gibberish,
    hygiene.statement,
)
_ORIGIN_CHECKS: tuple[Callable[[str, Context], str | None], ...] = (
    question_number,
    answer_leak,
    language,
    echo,
    question_content,
    proper_noun,
)
_TRIGGER_CHECKS = (
    hygiene.control_characters,
    hygiene.boxed,
    hygiene.role_or_tool_token,
    hygiene.url,
    hygiene.instruction_override,
)
