"""The admin key: configured, or made at the first start and kept in the data folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from app.exceptions import ConfigurationError
from app.settings import Settings

SHORTEST = 5
"""Characters of an admin key; fewer are guessed."""


def admin_key_file(settings: Settings) -> Path:
    return settings.data_dir / "admin.key"


def load_admin_key(settings: Settings) -> str:
    """The configured key, else the one in DATA_DIR/admin.key, made with mode 0600 if need be."""
    if settings.admin_api_key is not None:
        return _checked(settings.admin_api_key.get_secret_value(), settings)
    path = admin_key_file(settings)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"{secrets.token_urlsafe(32)}\n")
        key = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"TTCL_DATA_DIR: {settings.data_dir} can't be written: {error.strerror}"
        ) from error
    if not key:
        raise ConfigurationError(f"{path} is empty: delete it, or set TTCL_ADMIN_API_KEY")
    return key


def _checked(key: str, settings: Settings) -> str:
    """Raises `ConfigurationError` for one that is guessed, or that clients have."""
    if len(key) < SHORTEST:
        raise ConfigurationError(f"TTCL_ADMIN_API_KEY: needs at least {SHORTEST} characters")
    if any(key == client.get_secret_value() for client in settings.api_keys):
        raise ConfigurationError("TTCL_ADMIN_API_KEY: is one of TTCL_API_KEYS as well")
    return key
