"""The delimiters of the rules block in hostile text: made harmless in what is put into the block,
and taken out, with what stands between them, of what must not contain it."""

from __future__ import annotations

import re

# Every repetition is possessive (`*+`): what it took it keeps, or a run of spaces would be tried in
# as many ways as it is long.
_HIDDEN = "[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*+"
_NAME = _HIDDEN.join(
    # As a model might read it: with look-alikes from Cyrillic and Greek.
    ["[a\u0430\u03b1\u0251]", "[d\u0501]", "[v\u0475\u03bd]", "[i\u0456\u03b9\u0131]",
     "[c\u0441\u03f2]", "[e\u0435\u04bd]"]
)  # fmt: skip
_OPENS = r"(?:[<\uff1c\ufe64\u2039\u3008\u27e8]|&lt;|&#0*60;|&#x0*3c;|%3c|\\u003c)"
_CLOSES = r"(?:[>\uff1e\ufe65\u203a\u3009\u27e9]|&gt;|&#0*62;|&#x0*3e;|%3e|\\u003e)"
_SPACE = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*+"
_FRAME = re.compile(
    rf"{_OPENS}{_SPACE}(?P<end>[/\uff0f\u2215\u2044])?{_SPACE}{_NAME}(?!\w)[^<>\uff1e\n]{{0,40}}?"
    rf"{_CLOSES}|{_OPENS}{_SPACE}(?P<cut>[/\uff0f\u2215\u2044])?{_SPACE}{_NAME}(?!\w)",
    re.IGNORECASE,
)
# What chat templates give a meaning to, even within a message's text.
_TEMPLATE = re.compile(
    r"<[|\uff5c][^<>]{0,60}>|<[|\uff5c]|[|\uff5c]>|\[/?(?:INST|SYS|TOOL_CALLS|AVAILABLE_TOOLS)\]"
    r"|<</?SYS>>|</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|tool_calls?|tool_response|think)>",
    re.IGNORECASE,
)


_ROUNDS = 8
_BRACKETS = dict.fromkeys(map(ord, "<>[]|&%\\\uff1c\uff1e\ufe64\ufe65\u2039\u203a\uff5c"
                              "\u3008\u3009\u27e8\u27e9"), " ")  # fmt: skip


def defused(text: str) -> str:
    """The text in one line that neither opens nor ends a block or a chat message."""
    return " ".join(harmless(text).split())


def harmless(text: str) -> str:
    """The same with its lines as they are, for a message of its own."""
    # What is taken out may have kept the halves of another one apart.
    for _ in range(_ROUNDS):
        before, text = text, _TEMPLATE.sub(" ", _FRAME.sub(" ", text))
        if text == before:
            return text.strip()
    # Nested so deeply only to get through: nothing is left to open or close with.
    return text.translate(_BRACKETS).strip()


def without_blocks(text: str) -> str:
    """The text without rules blocks, nested and unfinished ones included. Who wrote them does not
    matter: a forged block is no evidence of anything either."""
    kept: list[str] = []
    position = depth = 0
    for tag in _FRAME.finditer(text):
        if depth == 0:
            kept.append(text[position : tag.start()])
        depth = max(0, depth - 1) if tag["end"] or tag["cut"] else depth + 1
        position = tag.end()
    if depth == 0:
        kept.append(text[position:])
    return "".join(kept)
