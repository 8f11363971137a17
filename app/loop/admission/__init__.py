"""Refuses rules that must not be used; `pipeline` has the checks in their order."""

from app.loop.admission.pipeline import Check, Finding, findings, judge, refusal

__all__ = [
    "Check",
    "Finding",
    "findings",
    "judge",
    "refusal",
]
