"""One gateway, or one copy, to a SQLite file: a lock that ends with its process, however that
ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rules_store.database.private import make_folder
from rules_store.errors import StoreUnavailable


@contextmanager
def held_alone(database: Path, what: str = "gateway") -> Iterator[None]:
    """`what` the process is that holds it. Raises StoreUnavailable, naming the process, where
    somebody else holds it. The file beside the database stays: to delete it would let two in."""
    # By whatever name it is reached, it is one file.
    database = database.resolve()
    path = database.with_name(f"{database.name}.lock")
    try:
        make_folder(path.parent)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path} can't be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder, _, process = os.read(file, 64).decode(errors="replace").strip().partition(" ")
            raise StoreUnavailable(
                f"Another {holder or 'process'} (process {process or 'unknown'}) has the database "
                f"file {database}: stop it, give this one a data folder of its own, or share a "
                "PostgreSQL."
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{what} {os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)
