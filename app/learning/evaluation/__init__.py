"""What rules are worth: replays of stored questions, and the evidence in explorations."""

from app.learning.evaluation.gatekeeper import Gatekeeper, GateSettings
from app.learning.evaluation.outcomes import Judge

__all__ = [
    "GateSettings",
    "Gatekeeper",
    "Judge",
]
