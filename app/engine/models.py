"""Where the weights are: the packaged SmolLM2, a user's GGUF file, a folder that vLLM loads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from app.engine.weights import find_weights
from app.exceptions import ConfigurationError

PACKAGED_NAME = "SmolLM2-135M-Instruct"
PACKAGED_CONTEXT = 4096
"""Tokens of one call to the packaged model; half of what it was trained for, to save memory."""

_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Gguf:
    """A GGUF file and the model name that clients use for it."""

    path: Path
    name: str
    packaged: bool

    @property
    def context(self) -> int | None:
        """Tokens of one call where we know a good number; None: what the model was trained for."""
        return PACKAGED_CONTEXT if self.packaged else None


def find_gguf(model: str | None) -> Gguf:
    """`model` as a GGUF file, or the packaged one for None. Raises `ConfigurationError`."""
    if model is None:
        return Gguf(_packaged_path(), PACKAGED_NAME, packaged=True)
    path = Path(model).expanduser()
    if not path.is_file():
        raise ConfigurationError(f"the model file {path} does not exist")
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigurationError(
            f"the model file {path} can't be read: {error.strerror}"
        ) from error
    if magic != _MAGIC:
        raise ConfigurationError(f"the model file {path} is not a GGUF file")
    return Gguf(path.resolve(), path.stem, packaged=False)


def _packaged_path() -> Path:
    if (found := find_weights()) is None:
        raise ConfigurationError(
            f"the weights of {PACKAGED_NAME} are not here: run `ttcl engine --fetch` once, or name "
            "a GGUF file of your own with --model"
        )
    return found


def converted_folder(gguf: Gguf, data_dir: Path) -> Path:
    """Where the copy of `gguf` that vLLM loads is kept: named by its content."""
    with gguf.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return data_dir.resolve() / "models" / f"{gguf.name}-{digest[:12]}"
