"""Pure decisions: whether a rule has proved itself, what it is worth, what is too much."""

from rules_store.policy.choice import Beliefs, Given, beliefs_of, choose, on_offer
from rules_store.policy.contradiction import contradict
from rules_store.policy.gate import DEFAULT_GATE, GateOptions, Verdict
from rules_store.policy.lift import Lift, Tally

__all__ = [
    "DEFAULT_GATE",
    "Beliefs",
    "GateOptions",
    "Given",
    "Lift",
    "Tally",
    "Verdict",
    "beliefs_of",
    "choose",
    "contradict",
    "on_offer",
]
