"""JSON as it is stored: whatever a model or a client wrote must be storable.

NaN and infinity become null; lone surrogates and NUL characters, which databases refuse, become
U+FFFD.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_ESCAPED_NUL = b"\\u0000"
_UNSTORABLE = re.compile("[\ud800-\udfff\x00]")


def storable(text: str) -> str:
    """`text` with what no database stores replaced."""
    return _UNSTORABLE.sub("\ufffd", text)


def dumps(value: Any) -> str:
    try:
        encoded = orjson.dumps(value)
        if _ESCAPED_NUL in encoded:
            encoded = orjson.dumps(_cleaned(value), option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, or a key that is no text
        encoded = orjson.dumps(_cleaned(value), option=orjson.OPT_NON_STR_KEYS)
    return encoded.decode()


def loads(text: str | bytes) -> Any:
    return orjson.loads(text)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
