"""The form of an answer: the client's own goes before the loop's.

Where a client says how an answer is to look, Teacher and Students are told nothing about it, and
what they say is compared as it stands (JSON by its value). Else they are asked to box a definite
answer, and the client gets it without the box.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.trajectory import Message, Task
from app.loop.steer.injector import SYSTEM_ROLES, last_user, text_of

_SAY = r"\b(?:reply|respond|answer|return|output|write|print|give|provide)\b"
_ONLY = r"\b(?:only|just|nothing (?:but|else)|exclusively|strictly|solely|exactly|verbatim)\b"
_LANGUAGE = r"(?:json|xml|yaml|csv|toml|html|sql|latex|markdown)"
_UNIT = r"(?:words?|letters?|numbers?|lines?|sentences?|tokens?|digits?|characters?|labels?)"
# To say, and only, in other languages; what stands between the two is on one line.
_SAY_ELSEWHERE = (
    r"(?:\b(?:r[ée]pon[ds]\w*|donne\w*|[ée]cri[svt]\w*|renvoi\w*|retourne\w*|indique\w*"
    r"|antwort\w*|gib|geben|schreib\w*|nenne\w*|liefer\w*"
    r"|respond\w*|contest\w*|devuelv\w*|escrib\w*|indica\w*|rispond\w*|restitui\w*|scriv\w*"
    r"|fornisci|devolv\w*|escrev\w*|antwoord\w*|geef|schrijf|svar\w*|skriv\w*|ange"
    r"|odpowied\w*|podaj\w*|napisz\w*|zwróć|ответ\w*|напиш\w*|вывед\w*|верни\w*|укаж\w*"
    r"|yan\u0131tla\w*|cevap\w*|yaz|ver)\b|回答|输出|輸出|返回|给出|回复|答え|出力|返し|답|출력|أجب|أخرج|उत्तर)"
)
_ONLY_ELSEWHERE = (
    r"(?:\b(?:seulement|uniquement|exclusivement|juste|sans|par une? (?:seule? )?\w+|au format"
    r"|nur|ausschließlich|lediglich|ohne|im format|s[oó]lo|solamente|únicamente|unicamente"
    r"|exclusivamente|sin|en formato|soltanto|esclusivamente|senza|in formato|apenas|somente|só"
    r"|sem|em formato|alleen|enkel|uitsluitend|zonder|bara|endast|kun|bare|tylko|wyłącznie|bez"
    r"|только|лишь|исключительно|без|sadece|yaln\u0131zca)\b|只|仅|僅|不要|だけ|のみ|만|فقط|केवल|सिर्फ)"
)
# Where an order begins.
_NOW = r"(?:^[\s>*\-#]{0,4}|[.:;,!?] |\bplease |\bmust |\bshould |\band )"
_ENDS = r"(?= please|\s?[.!,;:)]|\s?$)"
_FORM = re.compile(
    "|".join(
        (
            # nothing else
            rf"{_SAY}[^.?!\n]{{0,30}}{_ONLY}",
            rf"(?:^|[.:;,]\s*|please )(?:only|just|simply) {_SAY}",
            r"\b(?:no|without)\b.{0,20}\b(?:explanations?|(?:other|extra) text|prose|commentary"
            r"|preamble|introduction)\b",
            r"\b(?:do not|don't|never) (?:explain|(?:include|add|give|write|provide|output|say)"
            r" (?:any|an|other|extra|your|anything|explanations?|reasons?|text|prose|steps)\b)",
            rf"\b(?:just|only) the (?:\w+ )?\w+{_ENDS}",
            r"\b(?:answer|number|label|word|letter|code)s? only\b",
            # a language or a notation
            rf"\b(?:in|as|into|valid|a|an|of|to|the) (?:\w+ )?{_LANGUAGE}\b",
            rf"(?:{_SAY}|\b(?:emit|produce)) {_LANGUAGE}\b",
            rf"\b{_LANGUAGE} (?:object|array|schema|format|mode|table|list|header|with)\b",
            r"\bjson\.loads|\bYYYY-MM-DD",
            r"\bas an? (?:\w+ )?(?:list|dict\w*|array|tuple|table)\b",
            r"\b(?:in|use|using|inside|between) (?:\w+ )?(?:brackets|backticks|bullet points"
            r"|bullets|uppercase|lowercase|capital letters|rhyme)\b",
            rf"\bcomma[- ]separated\b|{_SAY}[^.?!\n]{{0,40}}\bseparated by (?:commas|\w+s)\b",
            # a pattern that is shown
            r"\b(?:in|use|using|follow)\b.{0,20}\b(?:this|following|that|exact)"
            r" (?:\w+ )?(?:form|format|template|structure|schema)\b",
            r"\b(?:form|format|template|schema) below\b|\bformat: ?\S|\bkey: value\b",
            r"\b(?:output|response|answer|reply) (?:format|schema|template)\b",
            r"\bformat (?:your|the|all) (?:answers?|responses?|outputs?|repl(?:y|ies))\b",
            r"\b(?:last|final|first) line (?:must|should|of your|is to)\b",
            r"\b(?:begin|start|end|finish|prefix|wrap|keep|limit) (?:your|the|each|every)"
            r" (?:reply|answer|response|message|output)\b",
            r"\b(?:final answer|answer|thought|action|observation|action input):",
            r"<(?:answer|output|result|response|final)>|####|\\boxed",
            # how much, or which of some
            r"\b(?:in|with|by|as|using) (?:one|a single|single|a bare|two|three)"
            rf" {_UNIT}\b",
            rf"(?:{_SAY}|\b(?:in|use|using))[^.?!\n]{{0,20}}\b(?:at most|no more than|exactly"
            rf"|not more than|fewer than|under|up to|maximum(?: of)?) (?:\w+ )?{_UNIT}\b",
            r"\b(?:one|single)-(?:word|letter|line|sentence)\b",
            r"\b(?:yes|ja|oui|s[ií]|sim|да) (?:or|oder|ou|o|или) (?:no|nein|non|n[aã]o|нет)\b",
            r"\b(?:yes/no|true/false|true or false)\b(?! questions?)",
            r"\bone of (?:the following|these|those|the)? ?(?:labels|categories|options|classes)\b",
            r"\b(?:label|tag|classify|categori[sz]e)\b[^.?!\n]{0,60}\b(?:as|into|with|one of)\b",
            rf"{_NOW}(?:answer|reply|respond) (?:only )?(?:with|as|using|['\"]?(?:yes|true)\b)",
            rf"{_NOW}(?:return|output|emit) (?:an?|the|one|true|only)\b",
            r"\b(?:your|the) (?:answer|response|output|reply) (?:should|must|has to|needs to) be\b"
            r"(?! (?:in )?(?:simpl|the form|terms|exact))",
            r"\bnumeric(?:al)? (?:answer|value)\b",
            # the same in other languages
            rf"{_SAY_ELSEWHERE}[^.?!\n]{{0,40}}{_ONLY_ELSEWHERE}",
            rf"{_ONLY_ELSEWHERE}[^.?!\n]{{0,40}}{_SAY_ELSEWHERE}",
            r"\b(?:r[ée]pond(?:s|ez) (?:par|en un|avec)|antworte(?:n sie)? (?:mit|als)"
            r"|respond[ea]n? (?:con|com|en una|em uma)|contesta con|rispondi (?:con|in una)"
            r"|antwoord met|odpowiedz (?:jednym|tak)|ответь (?:одним|да))\b",
        )
    ),
    re.IGNORECASE | re.MULTILINE,
)
"""Narrow on purpose: "in simplest form" or "ends with 5" is about the question."""
_SCANNED = 4_000
"""Characters at either end of a text that are looked at."""
_BOX = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"(?<!\\)[{}]")


def prescribed(messages: Sequence[Message], params: Mapping[str, Any]) -> bool:
    """Whether the client has said how the answer is to look."""
    wanted = params.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
        return True
    # Log-probabilities are of the tokens of the very text.
    if params.get("logprobs") or any(name in params for name in _GUIDED):
        return True
    at = last_user(messages)
    told = [each for each in messages if each.get("role") in SYSTEM_ROLES]
    asked = "" if at is None else text_of(messages[at].get("content"))
    # Together: there may be any number of them.
    return names_form("\n".join(text_of(each.get("content")) for each in told)) or names_form(asked)


def names_form(text: str) -> bool:
    """Whether a text says how an answer is to look."""
    return any(_FORM.search(part) for part in (text[:_SCANNED], text[-_SCANNED:]))


_GUIDED = (
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "json_schema",
)


def boxes(messages: Sequence[Message], params: Mapping[str, Any], task: Task) -> bool:
    """Whether a definite answer is asked for in a box that the client did not ask for."""
    return task is not Task.OPEN and not prescribed(messages, params)


def asks_for_box(prompt: str) -> bool:
    return _BOX.search(prompt) is not None


def unboxed(text: str) -> str:
    r"""The text with what is in each `\boxed{...}` in its place."""
    closing = _pairs(text)
    made: list[str] = []
    position = 0
    for box in _BOX.finditer(text):
        end = closing.get(box.end() - 1)
        if box.start() < position or end is None:
            continue
        made += [text[position : box.start()], text[box.end() : end]]
        position = end + 1
    return "".join([*made, text[position:]])


def _pairs(text: str) -> dict[int, int]:
    """Position of each brace that is closed, and of the one that closes it."""
    open_braces: list[int] = []
    pairs: dict[int, int] = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            open_braces.append(brace.start())
        elif open_braces:
            pairs[open_braces.pop()] = brace.start()
    return pairs
