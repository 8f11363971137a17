"""The last check of a rule: the served model says what it does, in one call for one rule.

Word lists know words; a model knows what a sentence asks for, in every language that it reads. It
is asked to sort and not to approve, since small models approve of nearly everything. What it sorts
under anything but good advice waits for a person in quarantine.

Small models sort badly (docs/safety.md has figures), and a judge that holds back every other good
rule is worse than none. So a model is examined first: it has to tell eight sentences apart
(`judge_exam.yaml`), with one mistake of each kind at most, and is asked about rules only
where it can. The exam ends with the mistake that fails it, and counts for a day.

No verdict comes of a model that failed, of a call that fails, and of an answer that is none of the
kinds. A candidate goes on without one, since it steers nobody before it has shown at the gate that
it does no harm; a rule that would be active at once waits in quarantine, unless the model is one
that failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from app.domain.lenient_json import tolerant_json
from app.loop.admission.characters import visible
from app.prompt_library import PromptLibrary, Rendered

JUDGED = "judged"
"""Name of the check: what the reason of a quarantine begins with."""
NO_VERDICT = "no verdict"
VERDICT_TOKENS = 80


class RuleKind(StrEnum):
    """What a rule does."""

    GOOD_ADVICE = "good advice"
    FIXED_ANSWER = "fixed answer"
    DISOBEDIENCE = "disobedience"
    OUTSIDE_ACTION = "outside action"
    ADVERTISING = "advertising"
    SABOTAGE = "sabotage"
    NO_ADVICE = "no advice"


GOOD = RuleKind.GOOD_ADVICE


@dataclass(frozen=True, slots=True)
class ExamQuestion:
    rule: str
    passes: bool


_EXAM = Path(__file__).with_name("judge_exam.yaml")
EXAM = tuple(ExamQuestion(**each) for each in yaml.safe_load(_EXAM.read_text("utf-8"))["exam"])
MISTAKES = 1
"""Of each kind that a judge may make in its exam."""
EXAM_LASTS = 86_400.0
"""Seconds after which a model is examined again: another one may have its name by then."""


class Exams:
    """Which models have passed, in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}

    def passed(self, model: str) -> bool | None:
        """None: it is to be examined."""
        result, at = self._known.get(model, (None, 0.0))
        return None if result is None or self._clock() - at > EXAM_LASTS else result

    def note(self, model: str, passed: bool) -> None:
        self._known[model] = (passed, self._clock())


class RuleJudge:
    """Renders and parses the prompt; sending is the loop's work."""

    def __init__(self, library: PromptLibrary) -> None:
        self._library = library

    def render(self, domain: str, rule: str) -> Rendered:
        """The prompt that asks what the rule does; on one line, without hidden characters."""
        return self._library.get(domain, "admit/judge").render(rule=" ".join(visible(rule).split()))

    @staticmethod
    def schema() -> dict[str, Any]:
        """JSON schema of the reply, for structured output."""
        return {
            "type": "object",
            # What it says first makes it look before it sorts.
            "properties": {
                "changes": {"type": "string", "maxLength": 100},
                "kind": {"type": "string", "enum": [kind.value for kind in RuleKind]},
            },
            "required": ["changes", "kind"],
            "additionalProperties": False,
        }

    @staticmethod
    def kind(reply: Mapping[str, Any] | str | None) -> RuleKind | None:
        """What the model says; None: no verdict."""
        found = tolerant_json(reply) if isinstance(reply, str) else reply
        said = found.get("kind") if isinstance(found, Mapping) else None
        return RuleKind(said) if isinstance(said, str) and said in set(RuleKind) else None


def refusal(kind: RuleKind | None, *, proves_itself: bool) -> str | None:
    """Why a rule has to wait, as `check: detail`; None for one that may go on. `proves_itself`:
    whether it is a candidate only."""
    if kind is RuleKind.GOOD_ADVICE or (kind is None and proves_itself):
        return None
    return f"{JUDGED}: {NO_VERDICT if kind is None else kind.value}"
