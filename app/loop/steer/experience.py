"""What a request is given: rules, examples, or neither; one value from retrieval to the trace."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from rules_store.models.evidence import Exposure
from rules_store.models.examples import ExampleHit, Given
from rules_store.models.rules import RuleHit

Hit = RuleHit | ExampleHit


@dataclass(frozen=True, slots=True)
class Experience:
    """`rules` in stable order (polarity, then text): the same ones always make the same block.
    `examples` nearest first."""

    rules: tuple[RuleHit, ...] = ()
    examples: tuple[ExampleHit, ...] = ()
    withheld: Hit | None = None
    """What was held out by lot."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What rules, and the one withheld, were ranked by, by id; examples are by similarity."""
    offered: tuple[Given, ...] = (Given.NONE,)
    """What it was chosen from."""

    def __bool__(self) -> bool:
        return bool(self.rules or self.examples)

    @property
    def given(self) -> Given:
        return Given.of(rules=bool(self.rules), examples=bool(self.examples))

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(hit.id for hit in self.rules) | {hit.id for hit in self.examples}

    def only(self, ids: Collection[str]) -> Experience:
        """Less the rules and examples that are none of these."""
        return replace(
            self,
            rules=tuple(hit for hit in self.rules if hit.id in ids),
            examples=tuple(hit for hit in self.examples if hit.id in ids),
        )

    def exposures(self) -> list[Exposure]:
        """What the ledger keeps of it."""
        found = [*self._shown(self.rules), *self._shown(self.examples)]
        return found if self.withheld is None else [*found, self._exposure(self.withheld, None)]

    def _shown(self, hits: Iterable[Hit]) -> list[Exposure]:
        return [self._exposure(hit, position) for position, hit in enumerate(hits)]

    def _exposure(self, hit: Hit, position: int | None) -> Exposure:
        score = self.scores.get(hit.id, hit.similarity)
        return Exposure(hit.id, position, hit.similarity, score)


NO_EXPERIENCE = Experience()
