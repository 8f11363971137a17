"""The environment read strictly: a misspelt setting that nothing reads is worse than a message."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from app.exceptions import ConfigurationError

# Read by the test tools and the Makefile, not by the service.
FOREIGN = {"TTCL_TEST_VLLM", "TTCL_VLLM_PYTHON"}


def refuse_unknown(env_file: Path | None, prefix: str, names: Iterable[str]) -> None:
    """Raises `ConfigurationError` for a variable with this prefix that is none of these."""
    known = {f"{prefix}{name}".upper() for name in names} | FOREIGN
    named = {name: "the environment" for name in os.environ if name.upper().startswith(prefix)}
    for line in _lines(env_file):
        if line.error or (line.key is not None and line.value is None):
            text = line.original.string.strip().partition("\n")[0].partition("=")[0]
            raise ConfigurationError(
                f"{env_file}, line {line.original.line}: '{text[:60]}' is not NAME=VALUE"
            )
        if line.key is not None:
            named.setdefault(line.key, str(env_file))
    for name, source in sorted(named.items()):
        if name.upper().startswith(prefix) and name.upper() not in known:
            raise ConfigurationError(f"{name} in {source} is not a setting; see the README's table")


def _lines(env_file: Path | None) -> list[Binding]:
    if env_file is None or not env_file.exists():
        return []
    try:
        with env_file.open(encoding="utf-8") as stream:
            return list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{env_file} can't be read: {error}") from error
