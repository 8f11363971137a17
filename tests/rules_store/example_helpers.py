"""Short words for tests of examples."""

from __future__ import annotations

import secrets
from typing import Any

from rules_store.models.events import Change
from rules_store.models.evidence import Outcome, Signal
from rules_store.models.examples import Example, ExampleFilter, NewExample, Trust
from rules_store.models.rules import Vector
from rules_store.store import RuleStore
from tests.rules_store.helpers import begin, exposure

BY = Change("kim", "because")


def new_example(question: str = "q", answer: str = "a", **more: Any) -> NewExample:
    """Of the namespace `default`, vouched for by a label."""
    given = {"namespace": "default", "question": question, "answer": answer, "trust": Trust.LABEL}
    return NewExample(**(given | more))


async def keep(
    store: RuleStore, question: str, answer: str, vector: Vector | None, **more: Any
) -> Example:
    """Its answer is its label."""
    new = new_example(question, answer, **({"label": answer} | more))
    return await store.examples.create(new, vector, change=BY)


def recalled(store: RuleStore, vector: Vector, k: int = 4, floor: float = -1.0) -> list[str]:
    """Questions of what a search finds."""
    return [hit.question for hit in store.search_examples("default", vector, k, floor=floor)]


async def asked(
    store: RuleStore, question: str, *, good: float, times: int, withheld: bool = False
) -> None:
    """So many episodes that were answered with the example of this question, or without it by
    lot, and how good the answers were."""
    found = (await store.examples.list(ExampleFilter(text=question))).items
    for _ in range(times):
        name = f"ep_{secrets.token_hex(4)}"
        await begin(store, name)
        shown = [exposure(found[0].id, None if withheld else 0)]
        await store.episodes.finish(name, answer="4", trace={}, exposures=shown)
        await store.evidence.record_outcome(name, Outcome(Signal.VERIFIER, good))
