"""What holds an example back, and what must not."""

from __future__ import annotations

import time

import pytest

from app.loop.admission.examples import objections, screened
from rules_store.models.examples import NewExample, Trust
from rules_store.models.rules import RuleState


@pytest.mark.parametrize(
    ("text", "name", "detail"),
    [
        ("The password is hunter2, why does it not work?", "secret", "'passwo...'"),
        ("I sign with AKIAABCDEFGHIJKL and get a 403.", "secret", "'AKIAAB...'"),
        ("Write to ann.bell@example.com about my card.", "personal_data", "e-mail"),
        ("Call me at +49 170 1234567.", "personal_data", "phone number"),
        ("Call me at (212) 555-0199.", "personal_data", "phone number"),
        ("I paid with 4111 1111 1111 1111 and was refused.", "personal_data", "card number"),
        ("Pay into DE89 3704 0044 0532 0130 00.", "personal_data", "account number"),
    ],
)
def test_what_belongs_to_somebody_is_objected_to_wherever_it_stands(
    text: str, name: str, detail: str
) -> None:
    for given in ((text, "yes", None), ("yes", text, None), ("yes", "yes", text)):
        assert [(each.name, each.detail) for each in objections(*given)] == [(name, detail)]


@pytest.mark.parametrize(
    "text",
    [
        "My card was charged twice for one coffee.",
        "Options:\n(A) 12/11/1937\n(B) 12/25/1937\n(C) 01/04/1938",
        'What does <path d="M 55.57,80.69 L 57.38,65.80 M 57.38,65.80"/> draw?',
        "Revenue was 1234567890 and net income 4111111111111112.",
        "Add +12 and -7, then 0.4111111111111111.",
        "Alice gives Bob three of her 48 pens.",
    ],
)
def test_numbers_names_and_markup_are_no_objection(text: str) -> None:
    assert objections(text, text, text) == []


def test_what_is_objected_to_waits_in_quarantine_with_the_reason() -> None:
    bad = NewExample("shop", "Mail ann@example.com", "The password is hunter2.", Trust.LABEL)
    held, found = screened(bad)
    assert (held.state, held.reason) == (RuleState.QUARANTINED, "secret: 'passwo...'")
    assert [each.name for each in found] == ["secret", "personal_data"]
    good = NewExample("shop", "Mail whom?", "Nobody.", Trust.LABEL)
    assert screened(good) == (good, [])


def test_long_texts_are_screened_in_no_time() -> None:
    started = time.process_time()
    for run in ("1 ", "1", "a@", "+1", "a1", "(1", "-"):
        objections(run * (32_000 // len(run)), "yes")
    assert time.process_time() - started < 5
