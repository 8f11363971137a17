"""Explore: one question answered by Teacher and Students, with the Tutor's wordings."""

from app.loop.explore.exploration import ExplorerOptions, ExplorerResult, RunningCost
from app.loop.explore.explorer import Explorer
from app.loop.explore.tutor import Tutor

__all__ = [
    "Explorer",
    "ExplorerOptions",
    "ExplorerResult",
    "RunningCost",
    "Tutor",
]
