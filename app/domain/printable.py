"""Text that others wrote, on its way to a terminal or a log line: what a terminal obeys instead of
showing it is written out."""

from __future__ import annotations

import re

# C0 but for line end and tab, DEL and C1 (ESC and CSI among them), and what turns the direction of
# writing or hides: an order may read as another one.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


def printable(text: str) -> str:
    """The text with each such character as its escape (`\\x1b`)."""
    return _OBEYED.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def json_printable(line: bytes) -> bytes:
    """JSON lines that mean the same and hold nothing of that."""
    text = line.decode("utf-8", "surrogatepass")
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode("utf-8", "replace")
