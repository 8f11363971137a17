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

    @property
    def ok(self) -> bool:
        return self.indexed == self.stored and self.behind == 0


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
    episodes: dict[str, int]
    """By status."""
    jobs: dict[str, int]
    """By state."""
    last_event: int
