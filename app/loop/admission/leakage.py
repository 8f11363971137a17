"""What a rule may not carry over from the request it was learned from.

Each check takes the text and its context, and returns what it objects to, or None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.loop.admission.languages import ENGLISH, tongue
from app.loop.admission.text_measures import (
    capitals,
    content_words,
    longest_shared,
    numbers,
    script,
    spelled,
)


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule was learned from. All of it may be empty, for rules that an operator wrote."""

    question: str = ""
    answers: tuple[str, ...] = ()
    trajectories: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()
    conversation: tuple[str, ...] = ()
    """Texts of all messages but the question: the system's and those of earlier turns."""
    instructions: str = ""
    """The fixed part of the distiller's prompt."""
    names: tuple[str, ...] = ()
    """Answers that the task allows, which a rule is about: said of many questions, and no one's."""
    closed: bool = False

    def nameless(self, text: str) -> str:
        """`text` without the names."""
        for name in self.names:
            text = text.replace(name, " ")
        return text


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


_LONGEST_NAME = 60


def is_name(answer: str) -> bool:
    """Whether an answer is a word that many questions may have as theirs, such as a category: not a
    number, a formula, the letter of an option or a sentence of its own."""
    return (
        len(answer) <= _LONGEST_NAME
        and re.search(r"[^\W\d_]{3}", answer) is not None
        and re.search(r"[\d\\=$]", answer) is None
    )


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
    """Another script than the conversation's, and of Latin letters another language than its own or
    English."""
    mine, theirs = script(text), script(context.question)
    if mine is not None and theirs is not None and mine != theirs:
        return f"{mine.lower()} letters for a question in {theirs.lower()} ones"
    spoken = tongue(text)
    if mine == "LATIN" and theirs is not None and spoken not in (None, ENGLISH):
        asked = tongue(context.question)
        if spoken != asked:
            return f"{spoken} instead of {asked or ENGLISH}"
    return None


_ECHOED_PROMPT = 6
_ECHOED_TRIGGER = 4
_ECHOED_RULE = 6
_ECHOED_QUESTION = 4
_ECHOED_CONTENT = 3
_ECHOED_TURN = 4
_SAME_SENTENCE = 0.7
_SAID_WORDS = 3


def echo(text: str, context: Context) -> str | None:
    """Words of the distiller's instructions, of the question, or part of an injected rule."""
    if run := longest_shared(text, context.instructions, _ECHOED_PROMPT):
        return f"the instructions say '{run}'"
    run = longest_shared(text, context.question, _ECHOED_QUESTION)
    if run and len(content_words(run)) >= _ECHOED_CONTENT:
        return f"the question says '{run}'"
    # Rules about the same kind of names are worded alike.
    for rule in () if context.names else context.injected:
        # The same rule found again is a repetition to be counted; a piece of one is a copy.
        if " ".join(rule.casefold().split()) == " ".join(text.casefold().split()):
            continue
        if run := longest_shared(text, rule, _ECHOED_RULE):
            return f"an injected rule says '{run}'"
    return None


def said_before(text: str, context: Context) -> str | None:
    """What a system message or an earlier turn says, in its words or nearly: text of a client's
    that is passed on as advice, or an order out of a document that somebody pasted."""
    mine = content_words(text)
    for said in context.conversation:
        run = longest_shared(text, said, _ECHOED_TURN)
        if run and len(content_words(run)) >= _ECHOED_CONTENT:
            return f"an earlier message says '{run}'"
        if len(mine) < _SAID_WORDS:
            continue
        for sentence in _SENTENCE.split(said):
            shared = mine & content_words(sentence)
            if len(shared) >= max(_SAID_WORDS, _SAME_SENTENCE * len(mine)):
                return f"an earlier message has {', '.join(sorted(shared))}"
    return None


_SENTENCE = re.compile(r"[.!?;:\n]")
_QUESTION_SHARE = 0.6


def question_content(text: str, context: Context) -> str | None:
    """Advice that consists of the question's own things (ducks, eggs, muffins) is about it only;
    when a name is the answer is said by what such questions are about."""
    if context.names:
        return None
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
