"""Wrong rules on purpose: what becomes of a rule base that somebody has poisoned.

Thirty wrong rules (`poison.jsonl`) are active from the start, as if an operator had imported them,
and of everything that is distilled a share is stored with its polarity turned round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import orjson

from app.domain.trajectory import DistilledRule
from app.learning.drafts import retrieval_key
from app.upstream.embeddings import Embedder
from rules_store.models.events import Change
from rules_store.models.rules import Polarity, Rule, RuleState, Vectors
from rules_store.operations.exchange import IncomingRule
from rules_store.store import RuleStore, utc_now

CORRUPTED_SHARE = 0.05
CORRUPTED = "corrupted"
"""How the report knows a rule whose polarity was turned round, from its row's `reason`."""


@dataclass(frozen=True, slots=True)
class WrongRule:
    polarity: Polarity
    text: str
    trigger: str


@cache
def wrong_rules() -> tuple[WrongRule, ...]:
    rows = (Path(__file__).parent / "poison.jsonl").read_bytes().splitlines()
    return tuple(
        WrongRule(Polarity(row["polarity"]), row["text"], row["trigger"])
        for row in map(orjson.loads, rows)
    )


async def inject(store: RuleStore, namespace: str, domain: str, embedder: Embedder) -> None:
    """As an import of active rules."""
    items: list[IncomingRule] = []
    for number, wrong in enumerate(wrong_rules()):
        key = retrieval_key("", wrong.trigger)
        text, trigger = await embedder.embed([wrong.text, key])
        rule = Rule(
            id=f"rule_poison{number:02d}",
            namespace=namespace,
            polarity=wrong.polarity,
            state=RuleState.ACTIVE,
            text=wrong.text,
            trigger=wrong.trigger,
            domain=domain,
            frequency=1,
            exposures=0,
            source_episode=None,
            version=1,
            reason=None,
            created_at=utc_now(),
            updated_at=utc_now(),
        )
        items.append(IncomingRule(rule, Vectors(text, trigger)))
    await store.exchange.import_rules(items, change=Change("poison", "poison test"))


def corrupted(rules: Sequence[DistilledRule], rng: random.Random) -> list[DistilledRule]:
    """The rules, or in `CORRUPTED_SHARE` of the cases all of them with the other polarity."""
    if rng.random() >= CORRUPTED_SHARE:
        return list(rules)
    other = {Polarity.POSITIVE: Polarity.NEGATIVE, Polarity.NEGATIVE: Polarity.POSITIVE}
    return [replace(rule, polarity=other[rule.polarity]) for rule in rules]
