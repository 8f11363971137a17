"""How much of a text is read. What clients and models write can be as long as a body; patterns,
embeddings, comparisons and the store get no more of it than this. What goes to the model server,
and what the client gets, is never cut."""

from __future__ import annotations

LONGEST_TEXT = 32_000
"""Characters of a question or an answer that are read and stored. A longer one is read at its
beginning and its end, where questions are asked and answers given."""
LONGEST_EMBEDDED = 8_000
"""Characters of a text that are embedded; the packaged model reads some thousand of them."""
LARGEST_LEARNED = 400_000
"""Bytes of a request from which anything is learned: a job keeps a copy of it."""
LONGEST_LISTED = 1_000
"""Characters of a text in a list; the whole is where the one thing is shown."""
_LAST_SHARE = 4
"""One part in so many is the end's."""


def bounded(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text in at most `longest` characters: its beginning, a line that says how much is left
    out, and its end."""
    if len(text) <= longest:
        return text
    mark = f"\n[... {len(text)} characters, cut ...]\n"
    last = longest // _LAST_SHARE
    return text[: longest - len(mark) - last] + mark + text[len(text) - last :]
