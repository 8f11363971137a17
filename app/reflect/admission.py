"""The admission check: a rule that must not steer other requests is refused, with the reason.

A pipeline of small named checks; the first that objects names the refusal. A refused rule is kept
in quarantine, so a check may rather refuse too much than too little. What is checked is wording
only: whether a rule helps is measured later, by use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.reflect.answers import strip_reasoning
from app.reflect.wording import (
    capitals,
    content_words,
    longest_shared,
    numbers,
    script,
    spelled,
    words,
)
from app.templates import Rendered
from app.trajectory import DistilledRule, Observation, Selection, Task
from rules_store.types import Polarity

LONGEST_RULE = 32
"""Words. Letters of scripts without spaces count as half a word each."""
SHORTEST_RULE = 4


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
    for check in _CHECKS:
        if (detail := check(text, context)) is not None:
            return Refusal(check.__name__.lstrip("_"), detail)
    if polarity is not None and (detail := _wrong_polarity(text, polarity)) is not None:
        return Refusal("wrong_polarity", detail)
    for check in _TRIGGER_CHECKS:
        if trigger and (detail := check(trigger, context)) is not None:
            return Refusal(check.__name__.lstrip("_"), f"in the trigger: {detail}")
    return None


# Each check takes the text and returns what it objects to, or None.


def _control_characters(text: str, context: Context) -> str | None:
    # Cf has the direction marks and zero-width signs that hide text from a reader.
    odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn")]
    return f"U+{ord(odd[0]):04X}" if odd else None


def _too_short(text: str, context: Context) -> str | None:
    count = words(text)
    return f"{count:g} words" if count < SHORTEST_RULE else None


def _too_long(text: str, context: Context) -> str | None:
    count = words(text)
    return f"{count:g} words" if count > LONGEST_RULE else None


_BOXED = re.compile(r"(?:\\f|\\|\x08)?boxed\b|####", re.IGNORECASE)


def _boxed(text: str, context: Context) -> str | None:
    return _found(_BOXED, text)


_ROLE_OR_TOOL_TOKEN = re.compile(
    r"<\||\|>|<[/!?A-Za-z]|\[/?(?:INST|SYS)|```|<<|>>"
    r"|(?:^|[\n.!?]\s*)(?:system|user|assistant|human|ai|developer|tool)\s*:"
    r"|\b(?:tool|function)[_ ]calls?\b|###",
    re.IGNORECASE,
)


def _role_or_tool_token(text: str, context: Context) -> str | None:
    return _found(_ROLE_OR_TOOL_TOKEN, text)


_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,15}://|\bwww\.|\bmailto:|[\w.+-]+@[\w-]+\.\w|\b(?:\d{1,3}\.){3}\d{1,3}\b"
    r"|\b[\w-]{2,}\.(?:com|org|net|io|ai|dev|info|app|co|xyz|ru|cn|de|uk|eu|edu|gov)\b",
    re.IGNORECASE,
)


def _url(text: str, context: Context) -> str | None:
    return _found(_URL, text)


_AUTHORITY = (
    r"(?:instructions?|prompts?|system|developers?|guidelines?|polic(?:y|ies)|safety|safeguards?"
    r"|restrictions?|guardrails?|user|client|operator|rules|warnings?|refusals?)"
)
_INSTRUCTION_OVERRIDE = re.compile(
    rf"\b(?:ignor|disregard|overrid|overrul|bypass|forget|circumvent|disobey|skip)\w*\b[^.]{{0,40}}"
    rf"\b{_AUTHORITY}\b"
    r"|\b(?:ignor|disregard|forget|overrid)\w*\s+(?:all|any|every)?\s*(?:of\s+)?(?:the\s+|your\s+)?"
    r"(?:previous|prior|above|earlier|preceding|everything)"
    r"|\b(?:reveal|disclos|leak|expos|divulg|exfiltrat)\w*\b[^.]{0,40}"
    r"\b(?:prompts?|system|instructions?|secrets?|passwords?|keys?|tokens?|credentials?|rules|data)\b"
    r"|\b(?:repeat|print|output|show|recite)\w*\b[^.]{0,25}\b(?:prompts?|instructions?|passwords?)\b"
    r"|\b(?:system|developer|hidden)\s+(?:prompt|message|mode|instructions?)\b"
    r"|\b(?:contact|e-?mail|call|phone|text|message|visit|write\s+to|send)\w*\s+[^.]{0,30}"
    r"\b(?:us|me|support|address|hotline|website|site|link|server|account|phone\s+number)\b"
    r"|\b(?:you\s+are\s+now|act\s+as|pretend\s+to|role-?play|jailbreak|do\s+anything\s+now)\b"
    r"|\b(?:never|don't|do\s+not|avoid)\s+(?:refus|declin|warn|mention\w*\s+(?:risks|dangers|safety))"
    r"|\bcomply\s+with\s+(?:any|every|all)\b|\bwithout\s+(?:any\s+)?(?:warnings?|disclaimers?)\b",
    re.IGNORECASE,
)


def _instruction_override(text: str, context: Context) -> str | None:
    return _found(_INSTRUCTION_OVERRIDE, text)


_PLACEHOLDER = re.compile(
    r"[{}]|\[[^\]\d]{2,}\]|\.\.\.|…|_{2,}|\bXXX?\b|\b(?:TODO|TBD|FIXME|lorem ipsum|N/A)\b"
    r"|\b(?:insert|your) (?:rule|text|answer|sentence) here\b"
    r"|\b(?:positive|negative) (?:rule|advice)\b|\bplaceholder\b",
    re.IGNORECASE,
)


def _placeholder(text: str, context: Context) -> str | None:
    return _found(_PLACEHOLDER, text)


_CONTEXT_REFERENCE = re.compile(
    r"\b(?:attempt|solution|answer|response|trajectory|student)s? (?:A|B|one|two)\b"
    r"|\b(?:both|better|worse|preferred|first|second|other|two|same) "
    r"(?:attempt|solution|answer|response)s?\b"
    r"|\b(?:this|that|the (?:given|above|present)) (?:attempt|question|problem|answer|solution)\b"
    r"|\bthe attempt\b|\bthe JSON\b|\bnobody has checked\b",
    re.IGNORECASE,
)


def _context_reference(text: str, context: Context) -> str | None:
    """A rule is read without the texts it was learned from."""
    return _found(_CONTEXT_REFERENCE, text)


_CALCULATION = re.compile(
    r"\d\s*(?:[-+*/x×÷^=%]|\\times)\s*\$?\d|=\s*\S|\\frac|\\sqrt|\d+(?:\.\d+)?\s*%"
)


def _calculation(text: str, context: Context) -> str | None:
    """The solution of one question, written out."""
    return _found(_CALCULATION, text)


def _question_number(text: str, context: Context) -> str | None:
    """A number of the question or of a solution, in digits, or spelled out from eleven on; small
    number words are ordinary words of advice ('in two steps')."""
    seen = numbers(context.question).union(*(numbers(t) for t in context.trajectories))
    in_digits = sorted(numbers(text) & seen)
    if in_digits:
        return in_digits[0]
    folded = f" {' '.join(re.findall(r'[a-z]+', text.casefold()))} "
    return next((n for n in sorted(seen) if (word := spelled(n)) and f" {word} " in folded), None)


_COMMON_ANSWERS = frozenset({"yes", "no", "true", "false", "none", "all", "both", "it", "the", "a"})


def _answer_leak(text: str, context: Context) -> str | None:
    """An answer of the group, right or wrong, as whole words."""
    folded = " ".join(text.casefold().split())
    for answer in context.answers:
        plain = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\1", answer)
        plain = " ".join(plain.casefold().split()).strip(" .$")
        if len(plain) < 2 and not plain.isdigit() or plain in _COMMON_ANSWERS:
            continue
        if re.search(rf"(?<![\w.]){re.escape(plain)}(?!\w)", folded):
            return answer
        if (word := spelled(plain)) and f" {word} " in f" {folded.replace('-', ' ').strip('. ')} ":
            return answer
    return None


def _language(text: str, context: Context) -> str | None:
    mine, theirs = script(text), script(context.question)
    if mine is None or theirs is None or mine == theirs:
        return None
    return f"{mine.lower()} letters for a question in {theirs.lower()} ones"


_ECHOED_PROMPT = 6
_ECHOED_RULE = 6
_ECHOED_QUESTION = 4
_ECHOED_CONTENT = 3


def _echo(text: str, context: Context) -> str | None:
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


def _question_content(text: str, context: Context) -> str | None:
    """Advice that consists of the question's own things (ducks, eggs, muffins) is about it only."""
    mine, theirs = content_words(text), content_words(context.question)
    shared = mine & theirs
    if context.closed and len(mine) >= 4 and len(shared) >= _QUESTION_SHARE * len(mine):
        return ", ".join(sorted(shared))
    return None


def _proper_noun(text: str, context: Context) -> str | None:
    """A name out of a closed question. Open questions are about their names (a language, a
    product), and named theorems carry over."""
    if not context.closed:
        return None
    return next((name for name in sorted(capitals(text) & capitals(context.question))), None)


Check = Callable[[str, Context], str | None]

_CHECKS: tuple[Check, ...] = (
    _control_characters,
    _too_short,
    _too_long,
    _boxed,
    _role_or_tool_token,
    _url,
    _instruction_override,
    _placeholder,
    _context_reference,
    _calculation,
    _question_number,
    _answer_leak,
    _language,
    _echo,
    _question_content,
    _proper_noun,
)
_TRIGGER_CHECKS: tuple[Check, ...] = (
    _control_characters,
    _boxed,
    _role_or_tool_token,
    _url,
    _instruction_override,
    _question_number,
    _answer_leak,
)

_WARNING = re.compile(
    r"\A(?:please\s+)?(?:avoid|never|don't|do not|refrain|beware|stop|not)\b", re.IGNORECASE
)
_ENCOURAGEMENT = re.compile(
    r"\A(?:please\s+)?(?:always|make sure|ensure|remember to|be sure|use|check|verify|try to)\b",
    re.IGNORECASE,
)


def _wrong_polarity(text: str, polarity: Polarity) -> str | None:
    """A warning among the advice or advice among the warnings would say its opposite."""
    pattern = _WARNING if polarity is Polarity.POSITIVE else _ENCOURAGEMENT
    match = pattern.match(text)
    return f"'{match[0]}' in a {polarity.value} rule" if match else None


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return f"'{match[0].strip()}'" if match else None
