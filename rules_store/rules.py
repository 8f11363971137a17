"""Namespaces and rules: what an operator reads and changes. Each change writes one event."""

from __future__ import annotations

from collections.abc import Sequence

from rules_store.core import StoreCore
from rules_store.types import (
    EVERY_RULE,
    NO_VECTORS,
    Embedded,
    Event,
    NewRule,
    Page,
    Rule,
    RuleFilter,
    Stats,
    Vectors,
)


class RuleOperations(StoreCore):
    async def ensure_namespace(self, name: str, *, actor: str = "system") -> None:
        """Creates it unless it exists; no SQL once this process has seen it."""
        raise NotImplementedError

    async def namespace_exists(self, name: str) -> bool:
        raise NotImplementedError

    async def list_namespaces(self) -> list[str]:
        raise NotImplementedError

    async def list_rules(
        self, where: RuleFilter = EVERY_RULE, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Rules, newest first. Raises InvalidCursor."""
        raise NotImplementedError

    async def get_rule(self, rule_id: str) -> Rule:
        """Raises UnknownRule."""
        raise NotImplementedError

    async def rule_events(self, rule_id: str) -> list[Event]:
        """The rule's history, oldest first. Raises UnknownRule."""
        raise NotImplementedError

    async def rule_at_version(self, rule_id: str, version: int) -> Rule:
        """The rule with the text, trigger and domain it had at `version`. Raises UnknownRule."""
        raise NotImplementedError

    async def create_rule(self, new: NewRule, vectors: Vectors, *, actor: str, reason: str) -> Rule:
        """Raises UnknownNamespace, DuplicateRule, InvalidVector."""
        raise NotImplementedError

    async def patch_rule(
        self,
        rule_id: str,
        *,
        text: str | None = None,
        trigger: str | None = None,
        domain: str | None = None,
        vectors: Vectors = NO_VECTORS,
        expected_version: int | None = None,
        actor: str,
        reason: str,
    ) -> Rule:
        """Changes what is not None. `vectors` are those of the changed texts; a changed text that
        has none leaves retrieval until `add_embeddings` brings it.

        Raises UnknownRule, VersionConflict, DuplicateRule, InvalidVector.
        """
        raise NotImplementedError

    async def retire_rule(
        self, rule_id: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition."""
        raise NotImplementedError

    async def quarantine_rule(
        self, rule_id: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> Rule:
        """Raises UnknownRule, VersionConflict, InvalidTransition."""
        raise NotImplementedError

    async def restore_rule(
        self,
        rule_id: str,
        *,
        version: int | None = None,
        vectors: Vectors = NO_VECTORS,
        actor: str,
        reason: str,
        expected_version: int | None = None,
    ) -> Rule:
        """Without `version`: makes a retired or quarantined rule active again. With it: gives the
        rule back the text, trigger and domain of that version, state unchanged; `vectors` are
        those of the texts that change by it (see `rule_at_version`).

        Raises UnknownRule, VersionConflict, DuplicateRule, InvalidTransition, InvalidVector.
        """
        raise NotImplementedError

    async def rules_without_embedding(self, limit: int = 256) -> list[Rule]:
        """Active and candidate rules that lack a vector of the current embedding model."""
        raise NotImplementedError

    async def add_embeddings(self, items: Sequence[Embedded]) -> int:
        """Adds vectors of the current model; returns for how many rules. Raises InvalidVector."""
        raise NotImplementedError

    async def stats(self) -> Stats:
        raise NotImplementedError
