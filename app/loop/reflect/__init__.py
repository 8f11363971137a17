"""Reflect: judge a group of trajectories, choose, and write down the difference as rules.

    answers      extracts the final answer of a text
    equivalence  groups answers that mean the same (math-verify in a worker process)
    scoring      perplexity, degeneration, similarity; pure
    selection    answer groups or similarities -> Selection
    distiller    Selection -> prompt -> rules

Nothing here talks to a model or a store.
"""

from app.loop.reflect.answers import Answer, extract
from app.loop.reflect.distiller import Distiller
from app.loop.reflect.equivalence import Equivalence
from app.loop.reflect.selection import select_closed, select_open

__all__ = [
    "Answer",
    "Distiller",
    "Equivalence",
    "extract",
    "select_closed",
    "select_open",
]
