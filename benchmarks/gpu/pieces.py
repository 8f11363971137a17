"""Files cut into pieces that fit one copy each, and joined again where they arrive.

A pack is a folder of pieces and `manifest.json`, which names every file with its size, its SHA-256
and its pieces. A piece is written to its place in the file as soon as it arrives, so no piece is
needed twice and the order does not matter. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

MANIFEST = "manifest.json"
MIB = 1 << 20
_BUFFER = 4 * MIB


class BrokenPack(Exception):
    """A piece or a file is not what the manifest says; the message names it."""


@dataclass(frozen=True, slots=True)
class Piece:
    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PackedFile:
    name: str
    """Path below the folder that the pack is joined in."""
    size: int
    sha256: str
    pieces: tuple[Piece, ...]


def cut(source: Path, name: str, target: Path, piece_bytes: int) -> PackedFile:
    """Write `source` as pieces of at most `piece_bytes` into the folder `target`."""
    whole = hashlib.sha256()
    pieces: list[Piece] = []
    offset = 0
    with source.open("rb") as file:
        while offset < source.stat().st_size or not pieces:
            piece = target / f"{Path(name).name}.{len(pieces):03}"
            digest, size = hashlib.sha256(), 0
            with piece.open("wb") as out:
                for block in _blocks(file, piece_bytes):
                    out.write(block)
                    digest.update(block)
                    whole.update(block)
                    size += len(block)
            pieces.append(Piece(piece.name, offset, size, digest.hexdigest()))
            offset += size
    return PackedFile(name, offset, whole.hexdigest(), tuple(pieces))


def write_manifest(target: Path, files: list[PackedFile], about: dict[str, Any]) -> None:
    text = json.dumps({"about": about, "files": [asdict(file) for file in files]}, indent=1)
    (target / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> tuple[list[PackedFile], dict[str, Any]]:
    """Raises `BrokenPack` where there is none."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [
            PackedFile(f["name"], f["size"], f["sha256"], tuple(Piece(**p) for p in f["pieces"]))
            for f in told["files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenPack(f"{folder / MANIFEST} is missing or damaged: {error}") from error
    return files, told["about"]


class Joiner:
    """Files that are put together piece by piece below `target`; what is done is remembered there,
    so it goes on after an interruption and does nothing twice."""

    def __init__(self, target: Path, files: list[PackedFile]) -> None:
        self._target = target
        self._files = files
        self._state = target / "joined.json"
        target.mkdir(parents=True, exist_ok=True)
        self._done: set[str] = set()
        if self._state.is_file():
            self._done = set(json.loads(self._state.read_text(encoding="utf-8")))

    def take(self, folder: Path) -> int:
        """Put the pieces that lie in `folder` in their places; returns how many were new. Raises
        `BrokenPack` for a piece that was damaged on its way."""
        taken = 0
        for file in self._files:
            for piece in file.pieces:
                source = folder / piece.name
                if self._key(piece) in self._done or not source.is_file():
                    continue
                self._place(file, piece, source)
                self._done.add(self._key(piece))
                taken += 1
        self._state.write_text(json.dumps(sorted(self._done)), encoding="utf-8")
        return taken

    def complete(self, file: PackedFile) -> bool:
        return all(self._key(piece) in self._done for piece in file.pieces)

    def missing(self) -> list[str]:
        """Names of pieces that have not arrived."""
        return [p.name for f in self._files for p in f.pieces if self._key(p) not in self._done]

    def path(self, file: PackedFile) -> Path:
        return self._target / file.name

    def _place(self, file: PackedFile, piece: Piece, source: Path) -> None:
        place = self.path(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        # Its whole size from the start: a GGUF file's header can be read before its weights came.
        with place.open("r+b" if place.exists() else "w+b") as out, source.open("rb") as read:
            os.truncate(out.fileno(), file.size)
            out.seek(piece.offset)
            for block in _blocks(read, piece.size):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != piece.sha256:
            raise BrokenPack(f"the piece {piece.name} was damaged on its way: copy it again")

    @staticmethod
    def _key(piece: Piece) -> str:
        return f"{piece.name} {piece.sha256}"


def _blocks(file: BinaryIO, limit: int) -> Iterator[bytes]:
    while limit > 0 and (block := file.read(min(_BUFFER, limit))):
        limit -= len(block)
        yield block
