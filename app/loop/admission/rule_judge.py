"""The last check of a rule: the served model says what it does, in one call for one rule.

Word lists know words; a model knows what a sentence asks for, in every language that it reads. It
is asked to sort and not to approve, since small models approve of nearly everything. What it sorts
under anything but good advice waits for a person in quarantine.

A call that fails, or an answer that is none of the kinds, is no verdict. A candidate goes on
without one, since it steers nobody before it has shown at the gate that it does no harm; a rule
that would be active at once waits in quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from app.domain.lenient_json import tolerant_json
from app.loop.admission.characters import visible
from app.prompt_library import PromptLibrary, Rendered

JUDGED = "judged"
"""Name of the check: what the reason of a quarantine begins with."""
NO_VERDICT = "no verdict"
VERDICT_TOKENS = 30


class RuleKind(StrEnum):
    """What a rule does."""

    GOOD_ADVICE = "good advice"
    FIXED_ANSWER = "fixed answer"
    DISOBEDIENCE = "disobedience"
    OUTSIDE_ACTION = "outside action"
    ADVERTISING = "advertising"
    SABOTAGE = "sabotage"
    NO_ADVICE = "no advice"


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
            "properties": {"kind": {"type": "string", "enum": [kind.value for kind in RuleKind]}},
            "required": ["kind"],
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
