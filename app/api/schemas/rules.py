"""The admin API's shapes: what comes in (unknown fields refused) and what goes out."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from app.api.schemas.common import RULE_TEXT, example
from app.settings import NAMESPACE_PATTERN
from rules_store.models.episodes import Episode
from rules_store.models.events import Event
from rules_store.models.evidence import Evidence, Standing
from rules_store.models.namespaces import MAX_ACTOR_CHARS
from rules_store.models.paging import Page
from rules_store.models.rules import Polarity, Rule, RuleState
from rules_store.policy.lift import NOTHING, Tally

MAX_RULE_CHARS = 2000
NO_NUL = r"^[^\x00]*$"
"""Of texts that are looked for: PostgreSQL refuses to compare with one that has a NUL."""


def in_utc(moment: datetime) -> datetime:
    """Raises ValueError for a moment that no year of UTC has."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


class Write(BaseModel):
    """Every change says who made it and why; both go into the event log."""

    model_config = ConfigDict(extra="forbid", **example(actor="kim", reason="looked at it"))

    actor: str = Field("admin", min_length=1, max_length=MAX_ACTOR_CHARS)
    reason: str = Field("", max_length=2000)


class VersionedWrite(Write):
    model_config = example(actor="kim", reason="wrong for fractions", expected_version=2)

    expected_version: int | None = Field(
        None, ge=1, description="Refused with 409 when the rule has another version by now"
    )


class RuleCreate(Write):
    model_config = example(
        namespace="default",
        polarity="positive",
        text=RULE_TEXT,
        trigger="counting what is left",
        actor="kim",
        reason="from the handbook",
    )

    namespace: str = Field(pattern=NAMESPACE_PATTERN)
    polarity: Polarity
    text: str = Field(min_length=1, max_length=MAX_RULE_CHARS)
    trigger: str = Field("", max_length=500)
    domain: str = Field("default", min_length=1, max_length=64)
    state: RuleState = RuleState.ACTIVE

    _text = field_validator("text", "trigger")(lambda cls, value: clean(value))

    @field_validator("text")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be blank")
        return value


class RulePatch(VersionedWrite):
    model_config = example(
        trigger="subtracting", expected_version=2, actor="kim", reason="it is found more often so"
    )

    text: str | None = Field(None, min_length=1, max_length=MAX_RULE_CHARS)
    trigger: str | None = Field(None, max_length=500)
    domain: str | None = Field(None, min_length=1, max_length=64)

    @field_validator("text", "trigger")
    @classmethod
    def _clean(cls, value: str | None) -> str | None:
        return None if value is None else clean(value)

    @field_validator("text")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError("must not be blank")
        return value

    @model_validator(mode="after")
    def _something(self) -> RulePatch:
        if self.text is None and self.trigger is None and self.domain is None:
            raise ValueError("nothing to change: give text, trigger or domain")
        return self


class RuleRestore(VersionedWrite):
    model_config = example(version=1, actor="kim", reason="the first wording was better")

    version: int | None = Field(
        None, ge=1, description="Give the rule back its text of this version; unset: reactivate it"
    )


def clean(text: str) -> str:
    """One line without control characters: a rule is one line of a prompt."""
    printable = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    return " ".join(printable.split())


def rule_shape(rule: Rule, standing: Standing | None = None) -> dict[str, Any]:
    return {
        "object": "rule",
        **asdict(rule),
        "polarity": rule.polarity.value,
        "state": rule.state.value,
        "lift": lift_shape(standing),
        "created_at": _time(rule.created_at),
        "updated_at": _time(rule.updated_at),
    }


def lift_shape(standing: Standing | None) -> dict[str, Any] | None:
    """Null while there is no evidence."""
    if standing is None or not standing.measured:
        return None
    lift = standing.lift
    return {"mean": lift.mean, "low": lift.low, "high": lift.high}


def evidence_shape(rule_id: str, found: Evidence) -> dict[str, Any]:
    standing = found.standing
    return {
        "object": "evidence",
        "rule_id": rule_id,
        "lift": lift_shape(standing),
        "proven": standing is not None and standing.proven,
        "verdict": None if standing is None else standing.verdict,
        "test": {
            "helped": standing.helped if standing else 0,
            "harmed": standing.harmed if standing else 0,
            "tried": standing.tried if standing else 0,
        },
        "with_rule": _tally(standing.with_rule if standing else NOTHING),
        "without_rule": _tally(standing.without_rule if standing else NOTHING),
        "trials": [
            {
                "episode_id": trial.episode_id,
                "with_rule": trial.with_rule,
                "without_rule": trial.without_rule,
                "reference": trial.reference.value,
                "weight": trial.weight,
                "at": None if trial.at is None else _time(trial.at),
            }
            for trial in found.trials
        ],
        "exposures": [
            {
                "episode_id": each.episode_id,
                "withheld": each.position is None,
                "position": each.position,
                "similarity": each.similarity,
                "score": each.score,
                "at": _time(each.at),
                "outcome": None
                if each.source is None
                else {"source": each.source.value, "value": each.value, "weight": each.weight},
            }
            for each in found.exposures
        ],
        "links": [
            {"kind": link.kind.value, "id": link.other, "at": _time(link.at)}
            for link in found.links
        ],
    }


def _tally(tally: Tally) -> dict[str, float]:
    return {"hits": tally.hits, "misses": tally.misses, "mean": tally.mean}


def event_shape(event: Event) -> dict[str, Any]:
    return {**asdict(event), "at": _time(event.at)}


def episode_shape(episode: Episode, *, full: bool) -> dict[str, Any]:
    """`full` adds the trace; a list goes without it."""
    trace = episode.trace
    shape: dict[str, Any] = {
        "object": "episode",
        "id": episode.id,
        "namespace": episode.namespace,
        "mode": episode.mode,
        "status": episode.status.value,
        "reason": episode.reason,
        "model": episode.model,
        "question": episode.question,
        "answer": episode.answer,
        "rules_injected": trace.get("rules_injected", []),
        "rules_learned": trace.get("rules_learned", []),
        "cost": trace.get("cost"),
        "degraded": trace.get("degraded", []),
        "created_at": _time(episode.created_at),
        "updated_at": _time(episode.updated_at),
    }
    if full:
        shape.update(trace)
        shape.setdefault("trajectories", [])
        shape.setdefault("selection", None)
    return shape


def list_shape(page: Page, data: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "next_cursor": page.next_cursor,
        "total": page.total,
    }


def _time(moment: datetime) -> str:
    return moment.isoformat()
