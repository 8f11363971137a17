"""Explore: one question answered by Teacher and Students, with the Tutor's wordings."""

from app.loop.explore.exploration import Explored, ExplorerOptions, Spending
from app.loop.explore.explorer import Explorer
from app.loop.explore.tutor import Tutor

__all__ = [
    "Explored",
    "Explorer",
    "ExplorerOptions",
    "Spending",
    "Tutor",
]
