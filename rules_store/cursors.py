"""Opaque cursors: the sequence number after which a listing goes on."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

from rules_store.errors import InvalidCursor
from rules_store.types import Page

_T = TypeVar("_T")


def encode(kind: str, seq: int) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{seq}".encode()).decode().rstrip("=")


def decode(kind: str, cursor: str | None) -> int | None:
    """The sequence number, None for the first page. Raises InvalidCursor."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        plain = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor from error
    found, _, seq = plain.partition(":")
    if found != kind or not seq.isascii() or not seq.isdigit() or len(seq) > 18:
        raise InvalidCursor
    return int(seq)


def page(kind: str, found: list[tuple[int, _T]], total: int, limit: int) -> Page:
    """A page from up to limit + 1 found items with their sequence numbers."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(
        items=[item for _, item in shown],
        total=total,
        next_cursor=encode(kind, shown[-1][0]) if more and shown else None,
    )
