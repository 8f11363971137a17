"""What `make bench-check` names."""

from __future__ import annotations

from benchmarks.serving.check import worse


def test_what_is_worse_by_more_than_a_fifth_is_named() -> None:
    known = {"off": 2.0, "steer": 1.5, "gone": 1.0}
    assert worse(known, {"off": 2.39, "steer": 1.81, "new": 9.0}) == ["steer"]
    assert worse(known, {"off": 1.0, "steer": 1.0}) == []
