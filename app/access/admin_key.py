"""The admin key: configured, or made at the first start and kept in the data folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from app.exceptions import ConfigurationError
from app.settings import Settings


def admin_key_file(settings: Settings) -> Path:
    return settings.data_dir / "admin.key"


def load_admin_key(settings: Settings) -> str:
    """The configured key, else the one in DATA_DIR/admin.key, made with mode 0600 if need be."""
    if settings.admin_api_key is not None:
        return settings.admin_api_key.get_secret_value()
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
