"""Arms by the names they have on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable

from app.exceptions import ConfigurationError
from benchmarks.arms.base import Arm
from benchmarks.arms.direct import SelfConsistency, ZeroShot
from benchmarks.arms.experienced import (
    EXPERIENCED_ARMS,
    WITHIN,
    examples_of,
    experience_of,
)
from benchmarks.arms.gated import GATED_ARMS
from benchmarks.arms.looped import EMPTY_BANK, PAPER, PAPER_POISONED, RANDOM_RULES
from benchmarks.arms.recalled import NEIGHBOUR, Recalling, nearest_labelled, own_right_answers
from benchmarks.arms.service import Service
from benchmarks.feedback import FeedbackLevel

ARMS = {
    "zero-shot": "one greedy call",
    "empty-bank": "the loop's exploration and vote, with no rules ever",
    "sc@K": "self-consistency: K samples and a vote (sc@5, say)",
    "random-rules": "the loop with rules drawn at random from those it has learned",
    "paper": "the loop with retrieved rules, all active at once",
    "gated": "the loop with rules that have proved their worth on earlier questions",
    "gated-no-X": "without one of its parts: gate, hold-out, utility, trigger, abstention",
    "gated-cluster": "with rules from several contrasts; gated-revised: revised by replays",
    "gated+poison": "with thirty wrong rules and 5% turned round; paper+poison likewise",
    "rules": "the product with feedback, rules alone",
    "examples": "the product with feedback, examples alone",
    "experience": "the product with feedback, rules and examples as evidence decides",
    "rules-at-once": "rules alone, of every mistake, not gated; experience-at-once: with examples",
    "rules-named": "as rules-at-once; where the task lists its answers, when to give which",
    "rules-cluster": "as rules-at-once, from several contrasts; rules-revised: revised by replays",
    "rules-within@N": "at most N tokens of rules a prompt; examples-within@N, experience-within@N",
    "examples@K": "as examples, with at most K; experience@K likewise",
    "experience-consensus": "as experience, with agreed answers as examples, exploring all",
    "examples-no-floor": "as examples, however far the nearest are",
    "examples-block": "as examples, inside the block instead of as earlier turns",
    "knn@K": "the K nearest labelled questions as earlier turns (--feedback label)",
    "self-icl@K": "the K nearest own answers that were right (--feedback binary or label)",
    "neighbour": "the nearest labelled question's answer, no model (--feedback label)",
    "http:URL[#MODEL]": "a running OpenAI-compatible service",
}

_OWN: list[Arm] = [ZeroShot(), EMPTY_BANK, RANDOM_RULES, PAPER, PAPER_POISONED, NEIGHBOUR]
_FIXED = {arm.name: arm for arm in [*_OWN, *GATED_ARMS.values(), *EXPERIENCED_ARMS.values()]}
_COUNTED: dict[str, Callable[[int], Arm]] = {
    "sc": SelfConsistency,
    "knn": nearest_labelled,
    "self-icl": own_right_answers,
    "examples": examples_of,
    "experience": experience_of,
    **WITHIN,
}
_COUNT = re.compile(r"([a-z-]+)@([1-9]\d{0,2})")
_SERVICE = re.compile(r"http:(https?://[^#\s]+?)(?:#(\S+))?")


def make_arms(
    names: str,
    *,
    service_key: str | None = None,
    feedback: FeedbackLevel = FeedbackLevel.LABEL,
) -> list[Arm]:
    """Arms of a comma-separated list. Raises `ConfigurationError`, also for an arm that this much
    feedback teaches nothing."""
    arms: list[Arm] = []
    for name in (part.strip() for part in names.split(",")):
        arm = _arm(name, service_key)
        if isinstance(arm, Recalling) and not feedback.covers(arm.needs):
            raise ConfigurationError(
                f"--arms: {name} needs --feedback {arm.needs}"
                f"{' or label' if arm.needs is FeedbackLevel.BINARY else ''}, not {feedback}"
            )
        if any(other.name == arm.name for other in arms):
            raise ConfigurationError(f"--arms names {name} twice")
        arms.append(arm)
    return arms


def _arm(name: str, service_key: str | None) -> Arm:
    if name in _FIXED:
        return _FIXED[name]
    if (counted := _COUNT.fullmatch(name)) is not None and counted[1] in _COUNTED:
        return _COUNTED[counted[1]](int(counted[2]))
    if (service := _SERVICE.fullmatch(name)) is not None:
        base = service[1].rstrip("/")
        url = base if base.endswith("/v1") else f"{base}/v1"
        return Service(name, url, service[2], service_key)
    raise ConfigurationError(f"--arms: '{name}' is none of {', '.join(ARMS)}")
