"""What is handed to SQLite's driver directly is what SQLAlchemy would have handed over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite import dialect

from rules_store.database.compiled import moment_to_text
from rules_store.database.schema import UtcDateTime

pytestmark = pytest.mark.sqlite
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-7)), timezone(timedelta(minutes=345))])


@given(
    st.none()
    | st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 30), timezones=ZONES)
    | st.just(datetime(2026, 1, 1, tzinfo=UTC))
)
def test_a_moment_is_written_as_sqlalchemy_writes_it(moment: datetime | None) -> None:
    sqlite = dialect()
    convert = UtcDateTime().dialect_impl(sqlite).bind_processor(sqlite)
    assert convert is not None
    assert moment_to_text(moment) == convert(moment)


def test_a_moment_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        moment_to_text(datetime(2026, 1, 1))
