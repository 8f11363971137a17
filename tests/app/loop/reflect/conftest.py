"""The comparison process, which starts only when two formulas meet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.loop.reflect.equivalence import Equivalence


@pytest.fixture
async def equivalence() -> AsyncIterator[Equivalence]:
    made = Equivalence()
    yield made
    await made.close()
