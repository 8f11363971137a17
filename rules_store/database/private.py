"""Folders and files that nobody but their owner may read."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_folder(path: Path) -> None:
    """Makes it where there is none. One that is there stays as its owner wants it. Raises
    OSError."""
    path.mkdir(mode=FOLDER, parents=True, exist_ok=True)


def make_file(path: Path) -> None:
    """Makes an empty one where there is none, and its folder; takes from others what they may do
    with one that is there. Raises OSError."""
    make_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE))
    keep_private(path)


def keep_private(path: Path) -> None:
    """Takes from others what they may do with a file, where it is ours; nothing where it is not, or
    is not there."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if mode & _OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)


def is_private(path: Path) -> bool:
    """Whether others may do nothing with it. Raises OSError."""
    return not path.stat().st_mode & _OTHERS
