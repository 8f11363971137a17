"""JSON from outside, read and written within bounds, whatever it holds.

orjson is strict where others are not: it takes no lone surrogates (half of a character, which a
model that is cut off writes, and JavaScript sends), and reads deeper than it writes. What it
refuses for the former the standard library reads, and writes as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import orjson

MAX_DEPTH = 200
"""Levels. orjson reads 1024 but writes 254, and the job and the trace of an episode put a few
around a request's own."""
MOST_VALUES = 100_000
"""Objects, lists and what stands in them, of one body: each costs far more than its bytes."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE_OR_NO_NUMBER = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity")


def loads(raw: bytes) -> Any:
    """Raises ValueError for what is no JSON, and for what is nested too deeply."""
    return _loads(raw, _SURROGATE, _refuse)


def loads_lenient(raw: bytes) -> Any:
    """As `loads`, of a model server that writes numbers that are none (NaN, Infinity): they are
    read as null."""
    return _loads(raw, _SURROGATE_OR_NO_NUMBER, lambda name: None)


def _loads(raw: bytes, mendable: re.Pattern[bytes], constant: Callable[[str], Any]) -> Any:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        if not mendable.search(raw):
            raise
        try:
            value = json.loads(raw, parse_constant=constant)
        except RecursionError:
            raise TooDeep from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise TooDeep
    return value


class TooDeep(ValueError):
    """Nested deeper than `MAX_DEPTH`."""

    def __init__(self) -> None:
        super().__init__(f"nested deeper than {MAX_DEPTH} levels")


def has_more_values(raw: bytes, most: int) -> bool:
    """Whether these bytes, read as JSON, have more values than that: objects, lists and what stands
    in them. Nothing is made of them for it, and the time is that of looking through them a few
    times."""
    if _values(raw) <= most:
        return False  # were there no strings at all
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * (most + 1):
        return True  # a value has a name at most, and is a string at most
    return _values(b"".join(plain.split(b'"')[::2])) > most


def _values(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def dumps(value: Any) -> bytes:
    """Of what `loads` gave, with what was put around it."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate: escaped, as it came
        return json.dumps(value, separators=(",", ":")).encode()


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        containers = [v for v in level if isinstance(v, dict | list)]
        if not containers:
            return False
        level = [item for c in containers for item in (c.values() if isinstance(c, dict) else c)]
    return any(isinstance(value, dict | list) for value in level)
