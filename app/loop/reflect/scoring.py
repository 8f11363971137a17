"""Measures of a trajectory: confidence, degeneration, likeness. Pure functions."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.domain.bounds import LONGEST_TEXT
from app.domain.trajectory import Trajectory
from app.loop.reflect.answers import strip_reasoning

Vector = NDArray[np.float32]
"""A unit vector of shape (d,)."""

_UNKNOWN_LOGPROB = -1000.0
"""Servers write about -9999 where they know no probability; nothing that was sampled is this
unlikely."""


def perplexity(logprobs: Sequence[float] | None) -> float | None:
    """exp(-mean(log p)) over the sampled tokens (shape (n,), natural logarithms), at least 1.

    None without log-probabilities, or when fewer than half of them are known; never inf or NaN.
    """
    if not logprobs:
        return None
    known = [min(p, 0.0) for p in logprobs if math.isfinite(p) and p > _UNKNOWN_LOGPROB]
    if 2 * len(known) < len(logprobs):
        return None
    # exp() overflows a float at 709; no comparison needs values up there.
    return math.exp(min(-math.fsum(known) / len(known), 700.0))


def exclusion(trajectory: Trajectory) -> str | None:
    """Why a trajectory may neither vote nor be learned from; None when it may.

    failed | too_long | truncated | empty | degenerate
    """
    if trajectory.failure is not None:
        return "failed"
    if len(trajectory.text) > LONGEST_TEXT:
        return "too_long"
    text = strip_reasoning(trajectory.text)
    if trajectory.truncated:
        # A cut-off answer that also runs in circles is reported as what the reader will see first.
        return "degenerate" if text and degenerate(text) else "truncated"
    if not text:
        return "empty"
    return "degenerate" if degenerate(text) else None


_SMALLEST = 120
"""Characters of repetition below which nothing is called degenerate."""
_CODE = re.compile(r"```.*?```", re.DOTALL)
_LOOP_REPEATS = 5
_LONGEST_PERIOD = 300
_COMPRESSED = 0.12
"""zlib's ratio on long text: prose 0.4-0.55, step-by-step arithmetic and tables 0.25-0.45,
loops under 0.1."""
_LONG = 600
_DISTINCT = 0.2
"""Share of distinct word 4-grams: worked mathematics above 0.6, loops under 0.15."""


def degenerate(text: str) -> bool:
    """Whether the text runs in circles: a loop at its end, or hardly anything new in all of it.

    Finished code blocks are left out; tables and generated code repeat for good reasons.
    """
    prose = _CODE.sub("", text).strip()
    if len(prose) < _SMALLEST:
        return False
    return _ends_in_loop(prose) or _says_little(prose)


def _ends_in_loop(text: str) -> bool:
    """The last characters have a period that fills at least five turns and 120 characters."""
    tail = text[-_LONGEST_PERIOD * (_LOOP_REPEATS + 1) :].casefold()
    for period in range(1, _LONGEST_PERIOD + 1):
        length = max(_SMALLEST, period * _LOOP_REPEATS)
        if length > len(tail):
            break
        # A loop is cut anywhere, so only the stretch before the end has to be periodic.
        if tail[-length:-period] == tail[-length + period :]:
            return True
    return False


def _says_little(text: str) -> bool:
    if len(text) < _LONG:
        return False
    if len(zlib.compress(text.encode("utf-8", "replace"), 6)) < _COMPRESSED * len(text):
        return True
    words = text.casefold().split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(grams) >= 40 and len(set(grams)) < _DISTINCT * len(grams)


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of two unit vectors of shape (d,), in [-1, 1]."""
    return float(np.clip(np.dot(a, b), -1.0, 1.0))


def medoid(vectors: Sequence[Vector]) -> int:
    """Index of the vector with the largest mean cosine to all others; the first on a tie.

    `vectors`: n unit vectors of shape (d,), n >= 1. ValueError when empty.
    """
    if not vectors:
        raise ValueError("the medoid of nothing")
    stacked = np.stack(vectors).astype(np.float64)
    # Unit vectors in float32 are off by some 1e-7, which must not break a tie.
    return int(np.argmax(np.round(stacked @ stacked.sum(axis=0), 6)))
