"""Takes the final answer out of a model's text, and says how sure the reading is.

Ways, in this order: JSON where it is expected, the last `\\boxed{...}`, a `#### 18` line, a
statement such as 'the answer is 18', an option letter where the question lists options, the whole
text when it is short, and at last the formula or number that ends the text. Nothing is evaluated
and nothing is reduced to a number: LaTeX, tuples, intervals and words come out as written.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from app.loop.reflect.options import Options, find_options

SHORT_TEXT = 60
"""Characters up to which a whole text counts as an answer."""
_SCANNED = 20_000
"""Characters at the end of a text that are searched, so that a hostile one costs no more."""
_LONGEST_BOX = 1_000
_STATED_LENGTH = 120
_STATED_WORDS = 14


class AnswerForm(StrEnum):
    JSON = "json"
    BOXED = "boxed"
    MARKED = "marked"  # "#### 18"
    STATED = "stated"  # "the answer is 18"
    CHOICE = "choice"
    SHORT = "short"  # the whole text
    LAST = "last"  # the last formula or number of a longer text


_EXPLICIT = frozenset(
    {AnswerForm.JSON, AnswerForm.BOXED, AnswerForm.MARKED, AnswerForm.STATED, AnswerForm.CHOICE}
)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    how: AnswerForm

    @property
    def explicit(self) -> bool:
        """True when the model marked this as its final answer."""
        return self.how in _EXPLICIT


_THOUGHT = re.compile(
    r"<(?P<end>/?)(?:think|thinking|thought|reasoning|reflection)>", re.IGNORECASE
)


def strip_reasoning(text: str) -> str:
    """The text without think blocks.

    A block that was opened by the chat template (only its end is in the text) and one that was
    never closed are thoughts too.
    """
    kept: list[str] = []
    position, inside = 0, False
    for tag in _THOUGHT.finditer(text):
        if tag["end"]:
            if not inside:
                kept.clear()
            position, inside = tag.end(), False
        elif not inside:
            kept.append(text[position : tag.start()])
            inside = True
    if not inside:
        kept.append(text[position:])
    return "".join(kept).strip()


# As keyboards for Chinese and Japanese write ASCII: letters, digits, signs and the space.
_FULLWIDTH = {0x3000: " ", **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}}


def extract(text: str, question: str = "", *, json_expected: bool = False) -> Answer | None:
    """The final answer of `text`, or None when there is none to be found."""
    text = strip_reasoning(text).translate(_FULLWIDTH)
    if not text:
        return None
    if (found := _json(text, json_expected)) is not None:
        return Answer(found, AnswerForm.JSON)
    text, options = text[-_SCANNED:], find_options(question)
    for how, candidate in (
        (AnswerForm.BOXED, _boxed(text)),
        (AnswerForm.MARKED, _marked(text)),
        (AnswerForm.STATED, _stated(text)),
    ):
        if candidate is not None:
            return Answer(options.letter_of(candidate) or candidate, how)
    if (letter := options.chosen_in(text)) is not None:
        return Answer(letter, AnswerForm.CHOICE)
    return _unmarked(_UNFILLED_BOX.sub("", text).strip(), question, options)


_FENCED = re.compile(r"\A```(?:json)?(?=\s)(.*)```\Z", re.DOTALL)


def _json(text: str, expected: bool) -> str | None:
    """Canonical JSON (sorted keys, no spaces). Unasked, only an object counts: `[1, 2]` may as
    well be an interval."""
    body = _FENCED.sub(r"\1", text).strip()
    if not body.startswith(("{", "[") if expected else "{"):
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# A backslash that was lost, or that a JSON reader turned into a backspace, is forgiven.
_BOX = re.compile(r"(?:\\f?|\x08|(?<![A-Za-z\\]))(?:oxed|box(?:ed)?)\s*(?=\{)")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s{}$\\.,]+)")
_BOXES = 50
_UNFILLED_BOX = re.compile(r"\\boxed\{[^{}]*\}")
_EMPTY_BOXES = frozenset({"", "answer", "your answer", "final answer", "the answer", "...", "?"})


def _boxed(text: str) -> str | None:
    for match in reversed(list(_BOX.finditer(text))[-_BOXES:]):
        content = _balanced(text, match.end())
        if content is None:
            continue
        content = _boxed(content) or strip_delimiters(content)
        if content.casefold().strip(" .\\{}") not in _EMPTY_BOXES:
            return content
    bare = _BARE_BOX.findall(text)
    return str(bare[-1]) if bare else None


def _balanced(text: str, start: int) -> str | None:
    """What stands between the brace at `start` and its partner; escaped braces don't count."""
    depth, position = 0, start
    end = min(len(text), start + _LONGEST_BOX)
    while position < end:
        character = text[position]
        if character == "\\":
            position += 2
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[start + 1 : position]
        position += 1
    return None


def _marked(text: str) -> str | None:
    lines = re.findall(r"^[ \t]*####[ \t]*([^#\s].*)$", text, re.MULTILINE)
    # A Markdown heading is longer than an answer.
    if lines and len(lines[-1]) <= SHORT_TEXT and not _is_heading(lines[-1]):
        return strip_delimiters(lines[-1])
    return None


def _is_heading(line: str) -> bool:
    return line.rstrip().endswith(":") or re.match(r"(?:step|part|case)\b", line, re.I) is not None


_STATEMENT = re.compile(
    r"\b(?:final|correct|right)?[ \t]*(?:answer|result|solution)(?:[ \t]+to[ \t][^.:\n]{1,80}?)?"
    r"[*_]*+[ \t]*+(?:\bis\b(?:[ \t]++(?:thus|therefore|then|just|simply))?[ \t]*+:?|[:=])"
    r"[*_]*+\s*+(?P<rest>\S[^\n]*+)",
    re.IGNORECASE,
)
_FIRM = re.compile(r"\b(?:answer|final[ \t]+\w+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[^\s.])\.(?:\s|$)|[;!?](?:\s|$)")
_REASON = re.compile(
    r"(?:,|(?<![ \t]))[ \t]++(?:because|since|as we|as it|which|so that)\b", re.IGNORECASE
)


def _stated(text: str) -> str | None:
    for match in reversed(list(_STATEMENT.finditer(text))):
        if not _FIRM.search(match[0][: match.start("rest") - match.start()]):
            continue
        rest = _REASON.split(_SENTENCE_END.split(match["rest"], maxsplit=1)[0], maxsplit=1)[0]
        rest = strip_delimiters(rest)
        if (
            not rest
            or "\\boxed" in rest
            or rest.casefold().startswith(("not ", "that ", "to ", "as follows"))
        ):
            continue
        if len(rest) <= _STATED_LENGTH and len(rest.split()) <= _STATED_WORDS:
            return rest
    return None


_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
_LAYERS = 20
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("*", "*"))


def strip_delimiters(text: str) -> str:
    """Without Markdown and math delimiters around the whole, or punctuation at the end."""
    # Nobody wraps an answer in more; a run of marks would be taken off one by one.
    for _ in range(_LAYERS):
        previous = text
        text = text.strip().rstrip(",;:").strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for left, right in (*_WRAPPERS, *_QUOTES):
            inner = text[len(left) : len(text) - len(right)]
            whole = len(text) > len(left) + len(right)
            if whole and text.startswith(left) and text.endswith(right) and left not in inner:
                text = inner
        if text.count("**") == 1:
            text = text.removeprefix("**").removesuffix("**")
        if text == previous:
            break
    return text


NUMBER = re.compile(
    r"(?<![\w.])(?:[-+\u2212]\s?)?[$€£¥]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
    r"(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?(?:\s?\\?%)?(?!\d|(?:st|nd|rd|th)\b)"
)
_FORMULA = re.compile(
    r"\$\$(.{1,400}?)\$\$|\\\[(.{1,400}?)\\\]|\\\((.{1,400}?)\\\)"
    r"|(?<![\\\d])\$(?!\s)([^$\n]{1,400}?)(?<!\\)\$",
    re.DOTALL,
)
_LIST_INDEX = re.compile(r"^[^\S\n]*+\d++[.)]\s++", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_COPULA = re.compile(
    r"\b(?:is|are|was|were|equals)\b"
    r"(?: (?:actually|also|exactly|equal to|now|simply|therefore))*:?",
    re.IGNORECASE,
)
_POINTERS = frozenset({"it", "this", "that", "the", "so", "therefore"})
_FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi)\b", re.IGNORECASE)
_CONNECTIVES = frozenset({"and", "or"})


def _unmarked(text: str, question: str, options: Options) -> Answer | None:
    if len(text) <= SHORT_TEXT and "\n" not in text:
        short = _short(strip_delimiters(text), question)
        return Answer(options.letter_of(short) or short, AnswerForm.SHORT) if short else None
    last = _last(text)
    return Answer(last, AnswerForm.LAST) if last else None


def _short(text: str, question: str) -> str:
    """The answer in a text of a few words: what follows an equals sign or a repetition of the
    question, the only number in a sentence, else all of it."""
    if _FORMULA.search(text) and (last := _last(text)):
        return last
    head, equals, tail = text.rpartition("=")
    if equals and NUMBER.search(head) and tail.strip() and not head.endswith(("<", ">", "!")):
        return strip_delimiters(tail)
    asked = set(re.findall(r"\w+", question.casefold())) | _POINTERS
    for match in _COPULA.finditer(text):
        said = set(re.findall(r"\w+", text[: match.start()].casefold()))
        if said and said <= asked and text[match.end() :].strip():
            return strip_delimiters(text[match.end() :])
    words = [w for w in _WORD.findall(text) if w.casefold() not in _CONNECTIVES]
    numbers = NUMBER.findall(text)
    if (
        len(numbers) == 1
        and words
        and not _FUNCTION.search(text)
        and not NUMBER.match(text)
        and "\\" not in text
    ):
        return strip_delimiters(numbers[0])
    return text


def _last(text: str) -> str | None:
    """The formula in the last line if there is one, right of its last equals sign; else the last
    number of the text."""
    body = _LIST_INDEX.sub("", text)
    last_line = body.rstrip().rpartition("\n")[2]
    formulas = ["".join(groups) for groups in _FORMULA.findall(last_line)]
    if not formulas and last_line.strip() in {"$$", "\\]"}:
        formulas = ["".join(groups) for groups in _FORMULA.findall(body)]
    if formulas:
        return strip_delimiters(re.split(r"(?<![<>!])=|\\approx", formulas[-1])[-1]) or None
    numbers = NUMBER.findall(body)
    return strip_delimiters(numbers[-1]) if numbers else None
