"""Rules and examples as JSON lines, many at a time: what both share on their way in and out.

A line that can't be taken is reported with its number and the reason; the others go on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from app.access.callers import change_by
from app.api.schemas.rules import Refused
from app.exceptions import InvalidRequest
from rules_store.errors import InvalidVector
from rules_store.index.rule_index import unit
from rules_store.models.events import Change
from rules_store.models.rules import Vector

MEDIA_TYPE = "application/x-ndjson"
MOST_LINES = 20_000
AT_ONCE = 200
"""Lines of one transaction, and at most so many embedded before it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """How to import. `namespace`: all lines go there; None: each goes where it says."""

    namespace: str | None
    dry_run: bool
    actor: str
    reason: str
    reaches: Callable[[str], bool] = lambda namespace: True

    @property
    def change(self) -> Change:
        """Who and why, for the event log."""
        return change_by(self.actor, self.reason)

    def target(self, named: str | None) -> str:
        """Where a line goes that names this namespace. Raises ValueError with the reason of a
        refusal."""
        namespace = self.namespace or named
        if namespace is None:
            raise ValueError("namespace: missing, and none was given for all lines")
        if not self.reaches(namespace):
            raise ValueError(f"namespace: there is no '{namespace}'")
        return namespace


def download(lines: AsyncIterator[bytes], name: str) -> StreamingResponse:
    """Lines as a file of this name."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=MEDIA_TYPE, headers=headers)


def body_of(line: str) -> dict[str, Any]:
    """What an endpoint that takes lines like this one says of its body."""
    content = {MEDIA_TYPE: {"schema": {"type": "string"}, "example": line}}
    return {"requestBody": {"required": True, "content": content}}


def read(
    content: bytes, parse: Callable[[bytes], T], refused: list[Refused]
) -> Iterator[tuple[int, T]]:
    """What `parse` makes of each line that is not blank, with its number from 1. A line of which
    it raises ValueError or ValidationError goes to `refused`.

    Raises `InvalidRequest` for too many lines.
    """
    # No more of them are made than may be: a body may be line ends alone.
    lines = content.split(b"\n", 2 * MOST_LINES)
    if len(lines) > 2 * MOST_LINES or sum(bool(line.strip()) for line in lines) > MOST_LINES:
        raise InvalidRequest(f"body: at most {MOST_LINES} lines at once", param="body")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed = parse(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            refused.append(Refused(line=number, reason=f"{where}: {first['msg']}"))
        except ValueError as error:
            refused.append(Refused(line=number, reason=str(error)))
        else:
            yield number, parsed


def chunks(
    items: Iterator[tuple[int, T]], namespace: Callable[[T], str]
) -> Iterator[list[tuple[int, T]]]:
    """Of one namespace each, in the order of the lines."""
    chunk: list[tuple[int, T]] = []
    for item in items:
        other = chunk and namespace(chunk[0][1]) != namespace(item[1])
        if other or len(chunk) >= AT_ONCE:
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk


def json_of(line: bytes) -> Any:
    """Raises ValueError."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None


def packed(vector: Vector | None) -> str | None:
    """Little-endian float32 in base64."""
    return None if vector is None else base64.b64encode(vector.astype("<f4").tobytes()).decode()


def unpacked(text: str | None, dimension: int, field: str) -> Vector | None:
    """The unit vector of `packed`. Raises ValueError that names the field."""
    if text is None:
        return None
    try:
        return unit(np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4"), dimension)
    except (binascii.Error, InvalidVector, ValueError) as error:
        raise ValueError(f"{field}: {error}") from None
