"""The index as a file, so that a start does not read every vector out of SQL.

Layout: magic (8 bytes), SHA-256 of all that follows (32), length of the header (8, little-endian),
header (JSON), then for each shelf of the header its ids (int64) and vectors (float32).
A file that is missing, damaged, of another store or of another embedding model is no error: the
index is built from SQL instead.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from rules_store.database.private import make_folder
from rules_store.index.rule_index import Entry, RuleIndex
from rules_store.index.shelf import Arrays
from rules_store.models.rules import Polarity, RuleState, ShelfKey

logger = logging.getLogger(__name__)

_MAGIC = b"ttclidx1"
_PREFIX = len(_MAGIC) + 32 + 8


@dataclass(frozen=True, slots=True)
class Origin:
    """What a snapshot must have been made from to be of use."""

    store: str
    """The identity that the database was given when it was created."""
    model: str
    """Name of the embedding model."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An index as arrays that no longer share memory with FAISS."""

    dimension: int | None
    last_event: int
    entries: dict[int, Entry]
    shelves: dict[ShelfKey, Arrays]


def copy(index: RuleIndex) -> Copy:
    """Taken on the thread that owns the index; `write` may then run on any."""
    shelves = {key: index.shelf(key) for key in index.shelf_keys()}
    return Copy(index.dimension, index.last_event, index.entries(), shelves)


def write(path: Path, origin: Origin, what: Copy, last_event_mark: str) -> None:
    """Replaces the file atomically. `last_event_mark` describes the event `what.last_event`.
    Raises OSError."""
    header = orjson.dumps(
        {
            "store": origin.store,
            "model": origin.model,
            "dimension": what.dimension,
            "last_event": what.last_event,
            "mark": last_event_mark,
            "entries": [
                [seq, entry.id, *entry.key, entry.text, entry.trigger]
                for seq, entry in what.entries.items()
            ],
            "shelves": [[*key, len(shelf.ids)] for key, shelf in what.shelves.items()],
        }
    )
    parts = [len(header).to_bytes(8, "little"), header]
    for shelf in what.shelves.values():
        parts += [shelf.ids.astype("<i8").tobytes(), shelf.vectors.astype("<f4").tobytes()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([_MAGIC, digest.digest(), *parts])
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path, origin: Origin) -> tuple[RuleIndex, str] | None:
    """The index and the mark of its last event, or None (logged) where the file is of no use."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("index snapshot %s can't be read (%s); rebuilding from SQL", path, error)
        return None
    try:
        return _parse(content, origin)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        logger.warning("index snapshot %s is of no use (%s); rebuilding from SQL", path, error)
        return None


def _parse(content: bytes, origin: Origin) -> tuple[RuleIndex, str]:
    if content[: len(_MAGIC)] != _MAGIC or len(content) < _PREFIX:
        raise ValueError("not a snapshot")
    body = memoryview(content)[len(_MAGIC) + 32 :]
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : len(_MAGIC) + 32]:
        raise ValueError("damaged")
    length = int.from_bytes(body[:8], "little")
    header: dict[str, Any] = orjson.loads(body[8 : 8 + length])
    if header["store"] != origin.store or header["model"] != origin.model:
        raise ValueError("of another store or embedding model")
    entries = {
        seq: Entry(id, (namespace, Polarity(polarity), RuleState(state)), text, trigger)
        for seq, id, namespace, polarity, state, text, trigger in header["entries"]
    }
    shelves = _shelves(body[8 + length :], header)
    index = RuleIndex.restore(header["dimension"], header["last_event"], entries, shelves)
    return index, header["mark"]


def _shelves(blob: memoryview, header: dict[str, Any]) -> dict[ShelfKey, Arrays]:
    shelves: dict[ShelfKey, Arrays] = {}
    dimension, offset = header["dimension"], 0
    for namespace, polarity, state, count in header["shelves"]:
        ids = np.frombuffer(blob, dtype="<i8", count=count, offset=offset)
        offset += ids.nbytes
        vectors = np.frombuffer(blob, dtype="<f4", count=count * dimension, offset=offset)
        offset += vectors.nbytes
        key = (namespace, Polarity(polarity), RuleState(state))
        shelves[key] = Arrays(
            np.require(ids, requirements="A"),
            np.require(vectors, requirements="A").reshape(count, dimension),
        )
    return shelves
