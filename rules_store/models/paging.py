"""Pages of listings, and their opaque cursors: the place after which a listing goes on, one
number or several."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, TypeVar

from rules_store.errors import InvalidCursor

_T = TypeVar("_T")
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing. `total` is exact, `next_cursor` is None on the last page."""

    items: list[Any]
    total: int
    next_cursor: str | None = None


Position = tuple[int, ...]
"""What a listing is ordered by, of its last item; its sequence number comes last."""


def encode(kind: str, *place: int) -> str:
    plain = f"{kind}:{'.'.join(map(str, place))}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def decode(kind: str, cursor: str | None) -> int | None:
    """The sequence number, None for the first page. Raises InvalidCursor."""
    place = decode_place(kind, cursor, 1)
    return None if place is None else place[0]


def decode_place(kind: str, cursor: str | None, numbers: int) -> Position | None:
    """So many numbers, None for the first page. Raises InvalidCursor."""
    if cursor is None:
        return None
    found, _, place = _plain(cursor).partition(":")
    parts = place.split(".")
    if found != kind or len(parts) != numbers:
        raise InvalidCursor
    if not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts):
        raise InvalidCursor
    numbers_found = tuple(map(int, parts))
    if max(numbers_found) > _LARGEST:  # PostgreSQL refuses to compare an integer with it
        raise InvalidCursor
    return numbers_found


def _plain(cursor: str) -> str:
    """Raises InvalidCursor."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor from error


def page(kind: str, found: list[tuple[int, _T]], total: int, limit: int) -> Page:
    """A page from up to limit + 1 found items with their sequence numbers."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(
        items=[item for _, item in shown],
        total=total,
        next_cursor=encode(kind, shown[-1][0]) if more and shown else None,
    )


def page_of_places(kind: str, found: list[tuple[Position, _T]], total: int, limit: int) -> Page:
    """As `page`, of a listing that is ordered by more than sequence numbers."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(
        items=[item for _, item in shown],
        total=total,
        next_cursor=encode(kind, *shown[-1][0]) if more and shown else None,
    )


def encode_name(kind: str, name: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{name}".encode()).decode().rstrip("=")


def decode_name(kind: str, cursor: str | None) -> str | None:
    """The name after which the listing goes on, None for the first page. Raises InvalidCursor."""
    if cursor is None:
        return None
    found, _, name = _plain(cursor).partition(":")
    if found != kind or not name.isprintable():
        raise InvalidCursor
    return name
