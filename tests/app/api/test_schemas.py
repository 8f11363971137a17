"""Answers made of what the store holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.api.schemas.rules import Episode, EpisodeWithTrace, Rule
from rules_store.models.episodes import Episode as StoredEpisode
from rules_store.models.episodes import EpisodeStatus
from rules_store.models.evidence import Standing
from rules_store.models.rules import Polarity, RuleState
from rules_store.models.rules import Rule as StoredRule
from rules_store.policy.lift import Lift, Tally

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def episode(**trace: Any) -> StoredEpisode:
    status = EpisodeStatus.LEARNED
    return StoredEpisode("ep_1", "ns", "steer", status, None, "q", "a", "m", trace, AT, AT)


def test_an_episode_tells_all_that_its_trace_keeps_and_a_list_does_not() -> None:
    # With images no messages are kept.
    stored = episode(messages_sent=None, degraded=["index_failed"], distiller={"raw": "x"})
    whole = EpisodeWithTrace.of(stored, feedback=[]).model_dump(mode="json")
    assert whole["messages_sent"] is None
    assert whole["distiller"] == {"raw": "x"}
    assert whole["created_at"] == "2026-01-31T12:00:00+00:00"
    listed = Episode.of(stored).model_dump(mode="json")
    assert listed["degraded"] == ["index_failed"]
    assert "distiller" not in listed


@pytest.mark.parametrize("tally", [Tally(), Tally(hits=1.0)])
def test_a_rule_has_a_lift_once_there_is_evidence(tally: Tally) -> None:
    state, polarity = RuleState.ACTIVE, Polarity.POSITIVE
    rule = StoredRule(
        "r", "ns", polarity, state, "Add.", "", "default", 1, 0, None, 1, None, AT, AT
    )
    standing = Standing("r", 1, "ns", AT, with_rule=tally, lift=Lift(0.25, 0.0, 0.5))
    shown = Rule.of(rule, standing).model_dump(mode="json")
    expected = {"mean": 0.25, "low": 0.0, "high": 0.5} if tally.hits else None
    assert shown["lift"] == expected
    assert (shown["object"], shown["state"], list(shown)[-1]) == ("rule", "active", "lift")
