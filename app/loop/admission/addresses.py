"""Addresses of hosts, however they are written: by the public suffix list (publicsuffix.org, in the
package publicsuffixlist), after the dots that look like dots are dots."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_DOTS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61\u2024\u2027\u00b7\u30fb\ua78f", "."))
_BRACKETED = re.compile(r"\s?[\[({<]\s?(?:\.|dot)\s?[\])}>]\s?", re.IGNORECASE)
"""A dot that keeps programs from seeing an address."""
_HOST = re.compile(r"(?<![\w.@-])(?:[^\W_][\w-]{0,62}\.){1,8}([^\W\d_][\w-]{1,62})(?![\w-])(/)?")
_SPOKEN = re.compile(
    r"([^\W_][\w-]{1,62})\s{1,3}(?:dot|punkt|point|punto|ponto|\[dot\]|\(dot\))\s{1,3}([a-z]{2,24})\b",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"\b(?:javascript|vbscript|data|file|blob|mailto|tel|sms|magnet|view-source):(?=\S)",
    re.IGNORECASE,
)
_FILE_ENDINGS = """
py rs md sh pl so cc ps ml mm in zip mov js ts go tf pm st id is it
"""
_FILES = frozenset(_FILE_ENDINGS.split())
"""Top-level domains that are as often the ending of a file, an abbreviation or a word after a dot
without its space; with a path behind them they are addresses all the same."""
_USUAL = frozenset({"com", "net", "org"})
_SHORT_WORDS = """
in is it at to so my me no be by as a the of on and or do go
"""
_WORDS = frozenset(_SHORT_WORDS.split())
"""Top-level domains that are words, as after 'dot'."""


def address(text: str) -> str | None:
    """The first address in a text, in quotes."""
    plain = _BRACKETED.sub(".", unicodedata.normalize("NFKC", text.translate(_DOTS)))
    if match := _SCHEME.search(plain):
        return f"'{match[0]}'"
    for match in _HOST.finditer(plain):
        host, ending, path = match[0].rstrip("/"), match[1], match[2]
        if ending.istitle() and ending.lower() not in _USUAL:
            continue  # 'units.In' is a space that is missing
        if ending.lower() in _FILES and not path:
            continue
        if _suffixes().privatesuffix(host.lower()) is not None:
            return f"'{host}'"
    for match in _SPOKEN.finditer(plain):
        name, ending = match[1].lower(), match[2].lower()
        if ending in _WORDS or name in _WORDS:
            continue
        if _suffixes().privatesuffix(f"{name}.{ending}") is not None:
            return f"'{match[0]}'"
    return None


@cache
def _suffixes() -> Any:
    # Here: it reads the list, which takes a fifth of a second.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_unknown=False)
