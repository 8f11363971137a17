"""What the evidence for and against a rule looks like (see `app.api.answers`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.admin.answers import LIFT, Lift
from app.api.schemas.common import AT, EPISODE_ID, RULE_ID, Shape, example
from rules_store.models.evidence import LinkKind, Reference, Signal
from rules_store.policy.gate import Verdict as GateVerdict


class Tally(Shape):
    hits: float
    misses: float
    mean: float = Field(description="Of the posterior")


class GateTest(Shape):
    """The test that is under way; it begins anew with each verdict."""

    helped: int
    harmed: int
    tried: int


class Trial(Shape):
    episode_id: str
    with_rule: float
    without_rule: float
    reference: Reference
    weight: float
    at: str | None


class EpisodeOutcome(Shape):
    source: Signal
    value: float
    weight: float


class Exposure(Shape):
    episode_id: str
    withheld: bool
    position: int | None
    similarity: float
    score: float
    at: str
    outcome: EpisodeOutcome | None = Field(description="Null: nothing is known, which says nothing")


class Link(Shape):
    kind: LinkKind
    id: str
    at: str


class Evidence(Shape):
    model_config = example(
        object="evidence",
        rule_id=RULE_ID,
        lift=LIFT,
        proven=True,
        verdict="helpful",
        test={"helped": 1, "harmed": 0, "tried": 4},
        with_rule={"hits": 9.5, "misses": 2.0, "mean": 0.78},
        without_rule={"hits": 7.0, "misses": 4.5, "mean": 0.59},
        trials=[
            {
                "episode_id": EPISODE_ID,
                "with_rule": 1.0,
                "without_rule": 0.0,
                "reference": "consensus",
                "weight": 0.5,
                "at": AT,
            }
        ],
        exposures=[
            {
                "episode_id": EPISODE_ID,
                "withheld": False,
                "position": 0,
                "similarity": 0.71,
                "score": 0.77,
                "at": AT,
                "outcome": {"source": "agreement", "value": 0.6, "weight": 0.25},
            }
        ],
        links=[{"kind": "source", "id": EPISODE_ID, "at": AT}],
    )

    object: Literal["evidence"]
    rule_id: str
    lift: Lift | None
    proven: bool = Field(description="The gate let it through, or a person made it active")
    verdict: GateVerdict | None = Field(description="Of the last test that ended")
    test: GateTest
    with_rule: Tally
    without_rule: Tally
    trials: list[Trial] = Field(description="Newest first")
    exposures: list[Exposure] = Field(description="Newest first")
    links: list[Link]
