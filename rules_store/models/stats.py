"""Counts of all that is stored, and of the index beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parity:
    """The index against SQL, for this process and its embedding model; `behind` counts the events
    that the index has not seen yet."""

    indexed: int
    """Rules in the index (active and candidate)."""
    stored: int
    """Active and candidate rules in SQL."""
    unembedded: int
    """Of these, rules that still lack a vector of the current embedding model."""
    behind: int
    examples_indexed: int = 0
    """Active examples in the index."""
    examples_stored: int = 0
    """Active examples in SQL."""
    examples_unembedded: int = 0
    """Of these, examples whose question still lacks a vector of the current embedding model."""

    @property
    def ok(self) -> bool:
        """Whether what is in SQL is in the index, as of its last event."""
        return (
            self.indexed == self.stored
            and self.examples_indexed == self.examples_stored
            and self.behind == 0
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """Exact counts at one moment."""

    namespaces: int
    rules: dict[str, int]
    """By state."""
    rules_by_polarity: dict[str, int]
    """Active rules only."""
    rules_by_namespace: dict[str, dict[str, int]]
    """Namespace -> state -> rules."""
    examples: dict[str, int]
    """By state."""
    examples_by_namespace: dict[str, dict[str, int]]
    """Namespace -> state -> examples."""
    episodes: dict[str, int]
    """By status."""
    jobs: dict[str, int]
    """By state."""
    last_event: int
