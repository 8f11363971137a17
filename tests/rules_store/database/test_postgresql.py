"""What stands between us and a PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from rules_store.database.interface import translated
from rules_store.database.postgresql import is_pooled
from rules_store.errors import StoreUnavailable


def test_a_pooler_shows_by_the_process_that_serves() -> None:
    assert not is_pooled(4711, 4711)
    assert is_pooled(12, 4711)


def test_a_pooler_that_takes_no_options_is_named() -> None:
    said = Exception("FATAL: unsupported startup parameter in options: lock_timeout")
    with pytest.raises(StoreUnavailable, match="ignore_startup_parameters"), translated():
        raise OperationalError("SELECT 1", None, said)
