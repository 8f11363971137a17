"""What an exploration has cost so far, for who pays also when it is cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.domain.trajectory import Cost


@dataclass(slots=True)
class Spending:
    cost: Cost = field(default_factory=Cost)
    """Of the calls that came back, failed ones included."""
    open: int = 0
    """Calls that were sent and did not come back; how much they made the upstream never tells."""

    def back(self, cost: Cost) -> Cost:
        """One call fewer is out; gives its cost back."""
        self.open -= 1
        self.cost += cost
        return cost

    def total(self, prompt_tokens: int) -> Cost:
        """With `prompt_tokens` for each call that did not come back."""
        return self.cost + Cost(self.open, self.open * prompt_tokens)
