"""Graders: from a gold answer and a response to a grade.

math       equal as mathematics (math-verify, strict)
exact      equal as normalised text
choice     the right option letter
rouge      ROUGE-Lsum, for open answers
bertscore  BERTScore, for open answers (extra)
"""

from __future__ import annotations

from app.loop.reflect.equivalence import Equivalence
from benchmarks.grading.base import Gold, Grade, Grader, UnreadableGold
from benchmarks.grading.math import MathGrader
from benchmarks.grading.overlap import BertScoreGrader, RougeGrader
from benchmarks.grading.text import ChoiceGrader, ExactGrader
from benchmarks.taskfile import BertScoreModel

__all__ = ["Gold", "Grade", "Grader", "Graders", "UnreadableGold"]


class Graders:
    """The graders of a run by name, made when first needed; `close()` ends math-verify's worker."""

    def __init__(self, bertscore: BertScoreModel | None = None) -> None:
        self._bertscore = bertscore or BertScoreModel()
        self._equivalence = Equivalence()
        self._made: dict[str, Grader] = {}

    def get(self, name: str) -> Grader:
        """Raises `ConfigurationError` when the grader's package is not installed."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    async def close(self) -> None:
        await self._equivalence.close()

    def _make(self, name: str) -> Grader:
        match name:
            case "math":
                return MathGrader(self._equivalence)
            case "exact":
                return ExactGrader()
            case "choice":
                return ChoiceGrader()
            case "rouge":
                return RougeGrader()
            case "bertscore":
                return BertScoreGrader(self._bertscore.model, self._bertscore.layer)
        raise KeyError(name)
