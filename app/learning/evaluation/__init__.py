"""What rules are worth: replays of stored questions, and the evidence in explorations."""

from app.learning.evaluation.evidence import Judge
from app.learning.evaluation.gatekeeper import Gatekeeper, GateSettings

__all__ = [
    "GateSettings",
    "Gatekeeper",
    "Judge",
]
