"""The method: explore a question, reflect on the answers, admit rules, steer by them."""

from app.loop.effort import Effort
from app.loop.effort_planner import EffortPlanner
from app.loop.loop import Distillation, Exploration, Loop, LoopOptions

__all__ = [
    "Distillation",
    "Effort",
    "EffortPlanner",
    "Exploration",
    "Loop",
    "LoopOptions",
]
