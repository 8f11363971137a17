"""What an example must not hold: it shows one client's words to others of its namespace. What is
objected to is kept in quarantine until a person releases it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from app.loop.admission import personal_data
from app.loop.admission.pipeline import Finding
from rules_store.models.examples import NewExample
from rules_store.models.rules import RuleState

CHECKS: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    ("secret", personal_data.secret),
    ("personal_data", personal_data.personal_data_among_numbers),
)
"""By name, in order. A person's name is no objection: questions are full of invented ones."""


def objections(question: str, answer: str, label: str | None = None) -> list[Finding]:
    """All objections to these texts, at most one of each check."""
    texts = [text for text in (question, answer, label) if text]
    found = ((name, next(filter(None, map(check, texts)), None)) for name, check in CHECKS)
    return [Finding(name, detail) for name, detail in found if detail is not None]


def screened(new: NewExample) -> tuple[NewExample, list[Finding]]:
    """The example as it may be stored, in quarantine where a check objects; and the objections."""
    found = objections(new.question, new.answer, new.label)
    if not found or new.state is RuleState.RETIRED:
        return new, found
    return replace(new, state=RuleState.QUARANTINED, reason=reason_of(found)), found


def reason_of(found: Sequence[Finding]) -> str:
    """Why an example with these objections is in quarantine."""
    return f"{found[0].name}: {found[0].detail}"
