"""What a learned rule is found by, beside its own words."""

from __future__ import annotations


def retrieval_key(trigger: str, question: str) -> str:
    """The text whose embedding says when a rule applies: the distiller's trigger, and the question
    that the rule was learned from. A small model's trigger is vague; its question never is, and
    a question like it is where the rule is known to belong."""
    return f"{trigger}\n{question}" if trigger else question
