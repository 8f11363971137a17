"""Reads the JSON that a language model wrote, however untidily."""

from __future__ import annotations

import re
from typing import Any

import json_repair

MAX_PARSED = 20_000
"""Characters that are looked at: the repair is not linear."""


def tolerant_json(text: str, opening: str = "{") -> Any:
    """The value that begins at the first of the `opening` brackets; None when there is none or it
    can't be read."""
    start = re.search(f"[{re.escape(opening)}]", text)
    if start is None:
        return None
    try:
        return json_repair.loads(text[start.start() : start.start() + MAX_PARSED])
    except (ValueError, RecursionError):
        return None  # nested beyond all measure
