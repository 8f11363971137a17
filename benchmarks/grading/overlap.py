"""Measures of closeness to a reference answer, for open tasks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.exceptions import ConfigurationError
from app.loop.reflect.answers import strip_reasoning
from benchmarks.grading.base import Grade, UnreadableGold

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")


def sentences(text: str) -> str:
    """One sentence a line: ROUGE-Lsum takes lines for sentences."""
    return "\n".join(part.strip() for part in _SENTENCE_END.split(text) if part.strip())


@dataclass(frozen=True, slots=True)
class _Reference:
    text: str
    measure: Callable[[str, str], float]

    async def grade(self, text: str) -> Grade:
        answer = strip_reasoning(text)
        return Grade(self.measure(self.text, answer) if answer else 0.0, None)


class RougeGrader:
    """F-measure of ROUGE-Lsum, both sides split into sentences, words stemmed."""

    name = "rouge"
    graded = True

    def __init__(self) -> None:
        # Imported here: it brings NLTK, and tasks with one right answer do without it.
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer = RougeScorer(["rougeLsum"], use_stemmer=True)

    async def read(self, gold: str, question: str) -> _Reference:
        return _Reference(_reference(gold), self.measure)

    def measure(self, gold: str, text: str) -> float:
        """In [0, 1]; an empty text has 0."""
        score = self._scorer.score(sentences(gold), sentences(text))
        return float(score["rougeLsum"].fmeasure)


class BertScoreGrader:
    """F1 of BERTScore (extra `bertscore`); the model is loaded at the first text.

    `model` is a hub name or a folder, `layer` the one whose output is compared; the defaults of
    `TaskFile` are those of the authors for English. Not rescaled: values of two models are not
    comparable.
    """

    name = "bertscore"
    graded = True

    def __init__(self, model: str, layer: int) -> None:
        try:
            import bert_score
        except ImportError as error:
            raise ConfigurationError(
                "the grader bertscore needs the package bert-score: pip install 'ttcl[bertscore]'"
            ) from error
        self._module = bert_score
        self._model, self._layer = model, layer
        self._scorer: Any = None

    async def read(self, gold: str, question: str) -> _Reference:
        return _Reference(_reference(gold), self._measure)

    def _measure(self, gold: str, text: str) -> float:
        if self._scorer is None:
            self._scorer = self._load()
        _, _, f1 = self._scorer.score([text], [gold])
        return min(1.0, max(0.0, float(f1[0])))

    def _load(self) -> Any:
        try:
            return self._module.BERTScorer(model_type=self._model, num_layers=self._layer)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"BERTScore's model {self._model} can't be loaded: name a folder or a hub name "
                "that can be reached (bertscore.model in the task's file)"
            ) from error


def _reference(gold: str) -> str:
    if not gold.strip():
        raise UnreadableGold("it is empty")
    return gold.strip()
