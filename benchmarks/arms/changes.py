"""What became of rules and examples, read from the store's own log of events."""

from __future__ import annotations

from typing import Any

from app.domain.trajectory import Case
from benchmarks.arms.base import NAMESPACE
from rules_store.models.episodes import Episode
from rules_store.models.events import Event, EventFilter
from rules_store.models.jobs import Job, JobKind
from rules_store.operations.trials import DEMOTED, PROMOTED, REFUTED, SUPERSEDED
from rules_store.store import RuleStore

BY_EVIDENCE = {
    PROMOTED: "promoted",
    DEMOTED: "demoted",
    REFUTED: "refuted",
    SUPERSEDED: "superseded",
}
"""What evidence did to a rule."""
WRITTEN = {"rule.created": "created", "rule.merged": "merged", "rule.retired": "retired"}
_EXAMPLES = {
    "example.created": "kept",
    "example.completed": "kept",
    "example.retired": "retired",
}
_MOST = 1000


class StoreChanges:
    """Events of a pass, each once."""

    def __init__(self, store: RuleStore) -> None:
        self._store = store
        self._seen = 0
        """Number of the last event that was looked at."""

    async def new(self) -> list[Event]:
        """Since the last look, oldest first."""
        where = EventFilter(namespace=NAMESPACE, since_event=self._seen + 1)
        page = await self._store.history.events(where, limit=_MOST)
        found = page.items[::-1]
        if found:
            self._seen = found[-1].id
        return found


def rule_row(event: Event, outcomes: dict[str, str]) -> dict[str, Any] | None:
    """The report's row of an event; None where it is of none of the kinds in `outcomes`."""
    outcome = outcomes.get(event.kind)
    if outcome is None or event.after is None:
        return None
    state = event.after["state"]
    return {
        "polarity": event.after["polarity"],
        "text": event.after["text"],
        "trigger": event.after["trigger"],
        "outcome": state if outcome == "created" and state == "quarantined" else outcome,
        "reason": event.reason,
    }


def origin_of(episode: Episode, job: Job) -> dict[str, Any]:
    """What the report says of how a rule came about: the case of its contrast, the agreement of the
    answers, and who wrote it."""
    if job.kind is JobKind.FEEDBACK:
        lesson = episode.trace.get("lessons", {}).get(job.key, {})
        told = {"case": Case.VERIFIED.value, "agreement": None}
        return told | {"written_by": lesson.get("distiller", {}).get("model")}
    selection = episode.trace.get("selection", {})
    return {
        "case": selection.get("case"),
        "agreement": selection.get("agreement"),
        "written_by": episode.trace.get("distiller", {}).get("model"),
    }


def example_row(event: Event) -> dict[str, Any] | None:
    """The report's row of an event about an example, with its `episode`; None for any other."""
    outcome = _EXAMPLES.get(event.kind)
    if outcome is None or event.after is None:
        return None
    state = event.after["state"]
    return {
        "kind": "examples",
        "episode": event.after["source_episode"],
        "outcome": outcome if outcome == "retired" or state == "active" else state,
        "reason": event.reason,
    }
