"""Pure decisions: whether a rule has proved itself, what it is worth, what is too much."""

from rules_store.policy.contradiction import contradict
from rules_store.policy.gate import DEFAULT_GATE, GateOptions, Verdict
from rules_store.policy.lift import Lift, Tally

__all__ = [
    "DEFAULT_GATE",
    "GateOptions",
    "Lift",
    "Tally",
    "Verdict",
    "contradict",
]
