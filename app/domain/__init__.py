"""The loop's values, and their form as JSON; no input or output."""

from app.domain.lenient_json import tolerant_json
from app.domain.trajectory import (
    Assessment,
    Case,
    Cost,
    DistilledRule,
    Message,
    Mode,
    Observation,
    Role,
    Selection,
    Task,
    Trajectory,
)

__all__ = [
    "Assessment",
    "Case",
    "Cost",
    "DistilledRule",
    "Message",
    "Mode",
    "Observation",
    "Role",
    "Selection",
    "Task",
    "Trajectory",
    "tolerant_json",
]
