from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits for a server that does not answer, three quarters of a minute in all; scripted
    ones come back when the test says so."""
    monkeypatch.setattr("benchmarks.session.PAUSES", ())
