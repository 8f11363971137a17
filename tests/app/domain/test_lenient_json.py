"""JSON as models write it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.domain.lenient_json import tolerant_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Sure: {"a": 1} as you see', {"a": 1}),
        ("{'a': [1, 2", {"a": [1, 2]}),
        ("no brackets", None),
        ('{"a": "' + "{" * 1_000 + '"}', {"a": "{" * 1_000}),
    ],
)
def test_what_can_be_read_is_read(text: str, value: Any) -> None:
    assert tolerant_json(text) == value


@pytest.mark.parametrize("run", ["{", '{"', "{'", '{"a" ', "[", "{\n"])
def test_brackets_without_end_take_no_time(run: str) -> None:
    began = time.process_time()
    tolerant_json(run * (20_000 // len(run)))
    assert time.process_time() - began < 0.1
