"""Steer: which rules and examples a request gets, how many fit, and where they are put."""

from app.loop.steer.budget import TokenCounter
from app.loop.steer.experience import Experience
from app.loop.steer.explain import Explainer, Explanation
from app.loop.steer.retriever import Retrieval, Retriever
from app.loop.steer.writer import ExperienceWriter

__all__ = [
    "Experience",
    "ExperienceWriter",
    "Explainer",
    "Explanation",
    "Retrieval",
    "Retriever",
    "TokenCounter",
]
