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
# Narrow on purpose: "in simplest form" or "ends with 5" is about the question.
_FORM = re.compile(
    rf"{_SAY}[^.?!\n]{{0,30}}{_ONLY}"
    rf"|(?:^|[.:;,]\s*|please )(?:only|just|simply) {_SAY}"
    r"|\b(?:no|without)\b.{0,20}\b(?:explanations?|(?:other|extra) text|prose|commentary)\b"
    rf"|\b(?:in|as|into|valid|a|an|of|to|the) (?:\w+ )?{_LANGUAGE}\b"
    rf"|{_SAY} {_LANGUAGE}\b"
    rf"|\b{_LANGUAGE} (?:object|array|schema|format|mode|table|list|header|with)\b"
    r"|\b(?:in|use|using|follow)\b.{0,20}\b(?:this|following|that|exact)"
    r" (?:\w+ )?(?:form|format|template|structure|schema)\b"
    r"|\b(?:output|response|answer|reply) (?:format|schema|template)\b"
    r"|\bformat (?:your|the|all) (?:answers?|responses?|outputs?|repl(?:y|ies))\b"
    rf"|{_SAY} (?:in|with|by|as) (?:one|a single|single|a bare|exactly \w+) {_UNIT}\b"
    rf"|\b(?:at most|no more than|not more than|exactly|fewer than|up to|maximum(?: of)?|max\.?)"
    rf" (?:\w+ )?{_UNIT}\b"
    rf"|{_SAY_ELSEWHERE}[^.?!\n]{{0,40}}{_ONLY_ELSEWHERE}"
    rf"|{_ONLY_ELSEWHERE}[^.?!\n]{{0,40}}{_SAY_ELSEWHERE}"
    r"|\b(?:yes or no|true or false)\b"
    r"|\b(?:last|final|first) line (?:must|should|of your|is to)\b"
    r"|\b(?:begin|start|end|finish|prefix) (?:your|the|each|every)"
    r" (?:reply|answer|response|message|output)\b"
    r"|\b(?:final answer|answer|thought|action|observation|action input):"
    r"|<(?:answer|output|result|response|final)>|####|\\boxed",
    re.IGNORECASE | re.MULTILINE,
)
_SCANNED = 8_000
"""Characters at either end of a text that are looked at."""
_BOX = re.compile(r"\\boxed\s*\{")


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
    texts = [
        text_of(each.get("content")) for each in [*told, *([] if at is None else [messages[at]])]
    ]
    return any(names_form(text) for text in texts)


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


def unboxed(text: str) -> str:
    r"""The text with what is in each `\boxed{...}` in its place."""
    made: list[str] = []
    position = 0
    for box in _BOX.finditer(text):
        end = _closing(text, box.end())
        if box.start() < position or end is None:
            continue
        made += [text[position : box.start()], text[box.end() : end]]
        position = end + 1
    return "".join([*made, text[position:]])


def _closing(text: str, start: int) -> int | None:
    """Position of the brace that closes the one before `start`."""
    open_braces = 1
    for position in range(start, min(len(text), start + _SCANNED)):
        if text[position - 1] == "\\":
            continue
        open_braces += {"{": 1, "}": -1}.get(text[position], 0)
        if open_braces == 0:
            return position
    return None
