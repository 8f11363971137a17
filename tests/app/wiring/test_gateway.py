"""What keeps a gateway from starting."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.exceptions import ConfigurationError
from app.main import create_app
from app.settings import Settings
from rules_store.models.events import Change
from rules_store.models.keys import NewKey, Permission
from rules_store.store import RuleStore
from tests.fakes import HashEmbedder

WHO = Change("tester", "test")


async def started(data_dir: Path, **settings: object) -> None:
    given = {"upstream_base_url": "http://127.0.0.1:9", "data_dir": data_dir, **settings}
    app = create_app(Settings(_env_file=None, **given), embedder=HashEmbedder())  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        pass


async def test_beyond_loopback_a_key_is_needed_and_one_of_the_database_is_enough(
    tmp_path: Path,
) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org", ""):
        with pytest.raises(ConfigurationError, match=r"ttcl keys create.*TTCL_API_KEYS"):
            await started(tmp_path, host=host)
    await started(tmp_path, host="0.0.0.0", api_keys=("one",))
    url = f"sqlite:///{tmp_path / 'ttcl.db'}"
    store = await RuleStore.open(url, embedding_model="m")
    # The admin key is no client's, rotated or not.
    await store.keys.rotate_admin("present", overlap=timedelta(0), change=WHO)
    with pytest.raises(ConfigurationError):
        await started(tmp_path, host="0.0.0.0")
    key, _ = await store.keys.create(NewKey("app", ("a",), (Permission.CHAT,)), change=WHO)
    await started(tmp_path, host="0.0.0.0")
    await store.keys.revoke(key.id, change=WHO)
    await started(tmp_path, host="0.0.0.0")
    await store.close()
