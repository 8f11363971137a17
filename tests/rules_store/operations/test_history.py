"""Use of a rule by day."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rules_store.errors import UnknownRule
from rules_store.models.events import Change
from rules_store.models.rules import Vectors
from rules_store.operations.exchange import IncomingRule
from rules_store.operations.history import DAYS
from rules_store.store import RuleStore
from tests.rules_store.helpers import Clock, axis, begin, open_store, write


async def test_uses_are_counted_by_day_among_the_latest_episodes(tmp_path: Path) -> None:
    clock = Clock()
    store = await open_store(tmp_path, clock=clock)
    await store.namespaces.ensure("default")
    rule = await write(store, "One.", axis(0))
    other = await write(store, "Two.", axis(1))
    used = {"rules_injected": [{"id": other.id}, {"id": rule.id}]}
    learned = {"rules_injected": [{"id": other.id}], "rules_learned": [{"rule_id": rule.id}]}
    for number, (after, trace) in enumerate(
        [(0, used), (0, learned), (86400, used), (0, used), (86400 * 3, {})]
    ):
        clock.forward(after)
        await begin(store, f"ep-{number}")
        await store.episodes.finish(f"ep-{number}", answer="4", trace=trace)
    use = await store.history.usage(rule.id)
    assert (use.uses, use.looked_at, len(use.days)) == (3, 5, DAYS)
    by_day = {day.day: (day.episodes, day.uses) for day in use.days if day.episodes}
    today = clock().date()
    assert by_day == {
        today - timedelta(days=4): (2, 1),
        today - timedelta(days=3): (2, 2),
        today: (1, 0),
    }
    assert (await store.history.usage(rule.id, among=2)).uses == 1
    clock.forward(86400 * 40)
    assert (await store.history.usage(rule.id)).looked_at == 0
    with pytest.raises(UnknownRule):
        await store.history.usage("none")
    await store.close()


async def test_an_id_within_another_or_like_a_word_is_not_found(store: RuleStore) -> None:
    await store.namespaces.ensure("default")
    rule = await write(store, "One.", axis(0))
    ids = ("rule_abc", "rule_a", "rule-abc", "abc", "text", "rule_ab_")
    for number, id in enumerate(ids, start=1):
        other = replace(rule, id=id, text=f"Two {number}.")
        await store.exchange.import_rules(
            [IncomingRule(other, Vectors(axis(number)))], change=Change("keeper", "")
        )
    await begin(store, "ep-1")
    trace = {"rules_injected": [{"id": "rule_abc", "note": 'the rule "text" %'}]}
    await store.episodes.finish("ep-1", answer="4", trace=trace)
    uses = {id: (await store.history.usage(id)).uses for id in ids}
    assert uses == dict.fromkeys(ids, 0) | {"rule_abc": 1}
