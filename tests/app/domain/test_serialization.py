"""Observations as JSON: what a job resumes from."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from app.domain.serialization import observation_from_json, observation_to_json
from app.domain.trajectory import Observation
from rules_store.models.examples import ExampleHit, Trust
from rules_store.models.rules import Polarity, RuleHit

OBSERVATION = Observation(
    episode_id="ep_1",
    namespace="default",
    model="m",
    messages=({"role": "user", "content": "Why?"},),
    question="Why?",
    hits=(RuleHit("r1", Polarity.NEGATIVE, "Avoid guesses.", "", 0.9),),
    examples=(
        ExampleHit(
            "e1", "Who?", "Kim.", None, Trust.LABEL, datetime(2026, 5, 1, 12, 30, tzinfo=UTC), 0.8
        ),
    ),
)


def test_an_observation_comes_back_as_it_was() -> None:
    stored = orjson.loads(orjson.dumps(observation_to_json(OBSERVATION)))
    assert observation_from_json(stored) == OBSERVATION


def test_one_that_was_stored_before_there_were_examples_has_none() -> None:
    stored = observation_to_json(OBSERVATION)
    del stored["examples"]
    assert observation_from_json(stored).examples == ()
