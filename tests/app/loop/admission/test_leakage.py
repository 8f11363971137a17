"""Which right answers a rule may name."""

from __future__ import annotations

import pytest

from app.loop.admission.leakage import is_name


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("card_arrival", True),
        ("top_up_by_bank_transfer", True),
        ("Überweisung", True),
        ("42", False),
        ("42 apples", False),
        ("(B)", False),
        ("no", False),
        (r"\frac{a}{bcd}", False),
        ("x = yes", False),
        ("a sentence of its own that belongs to one question and no other", False),
    ],
)
def test_a_category_is_a_name_and_what_is_right_once_is_none(answer: str, name: bool) -> None:
    assert is_name(answer) == name
