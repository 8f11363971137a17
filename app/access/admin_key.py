"""The admin key: configured, or made at the first start and kept in the data folder. Once rotated
it is a key of the store (`KeyOperations.rotate_admin`); the one here is what to start with.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import structlog

from app.exceptions import ConfigurationError
from app.settings import Settings
from rules_store.database.private import keep_private, make_folder

log = structlog.get_logger(__name__)

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
        make_folder(settings.data_dir)
        if not path.exists():
            _write(path, secrets.token_urlsafe(32))
        keep_private(path)
        key = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"TTCL_DATA_DIR: {settings.data_dir} can't be written: {error.strerror}"
        ) from error
    if not key:
        raise ConfigurationError(f"{path} is empty: delete it, or set TTCL_ADMIN_API_KEY")
    return key


def present_admin_key(settings: Settings) -> str:
    """The key that gateways of these settings were started with; makes none. Raises
    `ConfigurationError` where there is none."""
    if settings.admin_api_key is None and not admin_key_file(settings).exists():
        raise ConfigurationError(
            f"There is no admin key: neither TTCL_ADMIN_API_KEY nor {admin_key_file(settings)}. "
            "Set the one that the gateways were started with"
        )
    return load_admin_key(settings)


async def keep_admin_key(settings: Settings, key: str) -> bool:
    """Puts a new admin key into the data folder where the present one is kept there, for the next
    start. False where it is not kept there, or can't be written."""
    if settings.admin_api_key is not None:
        return False
    try:
        await asyncio.to_thread(_write, admin_key_file(settings), key)
    except OSError as error:
        log.warning("the new admin key is not in the data folder", error=error)
        return False
    return True


def _write(path: Path, key: str) -> None:
    """All of it or nothing, whoever reads meanwhile, and for nobody else to read."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{key}\n")
    os.replace(fresh, path)


def _checked(key: str, settings: Settings) -> str:
    """Raises `ConfigurationError` for one that is guessed, or that clients have."""
    if len(key) < SHORTEST:
        raise ConfigurationError(f"TTCL_ADMIN_API_KEY: needs at least {SHORTEST} characters")
    if any(key == client.get_secret_value() for client in settings.api_keys):
        raise ConfigurationError("TTCL_ADMIN_API_KEY: is one of TTCL_API_KEYS as well")
    return key
