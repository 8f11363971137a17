"""The admission check: a rule that must not steer other requests is refused, with the reason.

A pipeline of small named checks; the first that objects names the refusal. A refused rule is kept
in quarantine, so a check may rather refuse too much than too little. What is checked is wording
only: whether a rule helps is measured later, by use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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
from app.trajectory import DistilledRule, Observation, Selection, Task, Trajectory
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
    context = Context(
        question=observation.question,
        answers=tuple(sorted({j.answer for j in selection.judged if j.answer})),
        trajectories=tuple(strip_reasoning(t.text) for t in contrast),
        injected=tuple(hit.text for hit in observation.hits),
        instructions=_instructions(prompt, observation, contrast),
        closed=selection.task is Task.CLOSED,
    )
    mirrored = _mirrored(rules)
    return [_judged(rule, context, mirrored) for rule in rules]


def _instructions(
    prompt: Rendered | None, observation: Observation, contrast: Sequence[Trajectory]
) -> str:
    """The prompt without the question and the trajectories in it, which rules may share words
    with."""
    text = prompt.text if prompt else ""
    for part in (observation.question, *(strip_reasoning(t.text) for t in contrast)):
        text = text.replace(part.strip(), "\n")
    return text


def _judged(rule: DistilledRule, context: Context, mirrored: str | None) -> DistilledRule:
    refused = refusal(rule.text, context, polarity=rule.polarity)
    if refused is None and mirrored:
        refused = Refusal("mirrored", mirrored)
    return replace(
        rule,
        trigger=rule.trigger if trigger_admitted(rule.trigger, context) else "",
        refusal=f"{refused.check}: {refused.detail}" if refused else None,
    )


def refusal(text: str, context: Context, *, polarity: Polarity | None = None) -> Refusal | None:
    """The first check that objects to a rule; None when all admit it."""
    found = _findings(text, context, polarity)
    return next((Refusal(name, detail) for name, detail in found if detail is not None), None)


def _findings(
    text: str, context: Context, polarity: Polarity | None
) -> Iterator[tuple[str, str | None]]:
    # One at a time: the length is checked early, and later checks are slow on a very long text.
    for check in _TEXT_CHECKS:
        yield check.__name__, check(text)
    if polarity is not None:
        yield "wrong_polarity", hygiene.wrong_polarity(text, polarity)
    for origin in _ORIGIN_CHECKS:
        yield origin.__name__, origin(text, context)


def trigger_admitted(trigger: str, context: Context) -> bool:
    """Whether a trigger may be kept. It only helps to find the rule, so a bad one is left out and
    the rule stays."""
    hollow = longest_shared(trigger, context.instructions, _ECHOED_TRIGGER)
    leaks = question_number(trigger, context) or answer_leak(trigger, context)
    return not (hollow or leaks or any(check(trigger) for check in _TRIGGER_CHECKS))


_MIRRORED_SHARE = 0.75


def _mirrored(rules: Sequence[DistilledRule]) -> str | None:
    """What two rules of opposite polarity both say, when it is about all they say: then the model
    did not see a difference, and one of the two is wrong."""
    said = {rule.polarity: content_words(rule.text) for rule in rules}
    if len(said) < 2:
        return None
    one, other = said.values()
    shared = one & other
    if one and other and len(shared) >= _MIRRORED_SHARE * min(len(one), len(other)):
        return ", ".join(sorted(shared))
    return None


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
_ECHOED_TRIGGER = 4
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
    hygiene.unfinished,
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
    hygiene.placeholder,
    hygiene.gibberish,
)
