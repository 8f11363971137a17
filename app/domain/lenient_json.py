"""Reads the JSON that a language model wrote, however untidily."""

from __future__ import annotations

import json
import re
from typing import Any

import json_repair

MAX_PARSED = 20_000
"""Characters that are looked at ..."""
MAX_MENDED = 400
"""... and opening brackets with which what is no JSON is mended: the time for that grows with the
square of them."""
_OPENING = re.compile(r"[{\[]")


def tolerant_json(text: str, opening: str = "{") -> Any:
    """The value that begins at the first of the `opening` brackets; None when there is none or it
    can't be read."""
    start = re.search(f"[{re.escape(opening)}]", text)
    if start is None:
        return None
    said = text[start.start() : start.start() + MAX_PARSED]
    try:
        if len(_OPENING.findall(said)) > MAX_MENDED:
            return json.JSONDecoder().raw_decode(said)[0]
        return json_repair.loads(said)
    except (ValueError, RecursionError):
        return None  # nested beyond all measure
