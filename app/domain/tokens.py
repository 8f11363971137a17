"""How many tokens a text has, where nobody has counted them."""

from __future__ import annotations

CHARACTERS_PER_TOKEN = 4
"""English text on average: OpenAI, "What are tokens and how to count them?"."""


def overestimate(text: str) -> int:
    """Tokens of a text that has to fit: a third more than the average, of its bytes in UTF-8."""
    size = len(text.encode("utf-8", "surrogatepass"))
    return -(-4 * size // (3 * CHARACTERS_PER_TOKEN))
