"""Steer: which rules a request gets, how many fit, and where they are put."""

from app.loop.steer.block import render_block
from app.loop.steer.budget import TokenCounter
from app.loop.steer.explain import Explainer, Explanation
from app.loop.steer.injector import inject
from app.loop.steer.retriever import Retrieval, Retriever

__all__ = [
    "Explainer",
    "Explanation",
    "Retrieval",
    "Retriever",
    "TokenCounter",
    "inject",
    "render_block",
]
