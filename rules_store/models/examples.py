"""Examples: questions with answers that somebody or something vouches for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rules_store.models.rules import RuleState, Vector
from rules_store.policy.choice import Given as Given


class Trust(StrEnum):
    """What vouches for the answer, weakest first."""

    CONSENSUS = "consensus"
    """An exploration that agreed almost wholly."""
    SCORE = "score"
    """A client's score."""
    VERIFIER = "verifier"
    LABEL = "label"
    """Somebody who knows the right answer: a label, a correction, an operator."""


STRENGTH = {trust: place for place, trust in enumerate(Trust)}


class ExampleUse(StrEnum):
    """Which examples a namespace keeps and recalls."""

    OFF = "off"
    VERIFIED = "verified"
    """What feedback, an operator or an import vouches for."""
    CONSENSUS = "consensus"
    """Also answers on which an exploration agreed almost wholly, on probation."""


LEAST_AGREED = 4
"""Answers to a question that have to agree, all of them, for a consensus that makes an example."""


@dataclass(frozen=True, slots=True)
class Example:
    """`state` as of a rule: only active ones are recalled, candidates wait for evidence."""

    id: str
    namespace: str
    state: RuleState
    question: str
    """The user's last turn."""
    answer: str
    """What is shown as the answer."""
    label: str | None
    """The short right answer, where there is one; tells conflicts from other words for the same."""
    domain: str
    trust: Trust
    exposures: int
    source_episode: str | None
    version: int
    reason: str | None
    """Why it is in its state."""
    verified_at: datetime
    expires_at: datetime | None
    """From then on it is recalled no more; None: never."""
    created_at: datetime
    updated_at: datetime
    instructions: str | None = None
    """A digest of the system messages that its request had; None where it had none, or none is
    known."""


@dataclass(frozen=True, slots=True)
class NewExample:
    """An example to be written."""

    namespace: str
    question: str
    answer: str
    trust: Trust
    label: str | None = None
    domain: str = "default"
    state: RuleState = RuleState.ACTIVE
    reason: str | None = None
    source_episode: str | None = None
    expires_at: datetime | None = None
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class ExampleHit:
    """An example that recall found; `similarity` is the cosine of the two questions."""

    id: str
    question: str
    answer: str
    label: str | None
    trust: Trust
    verified_at: datetime
    similarity: float


@dataclass(frozen=True, slots=True)
class SimilarExample:
    """An example near a question; `similarity` is their cosine."""

    example: Example
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class ExampleEmbedding:
    """The vector of a stored example's question as it was at `version`; dropped when the example
    has changed since."""

    example_id: str
    version: int
    vector: Vector


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two active examples of nearly the same question with different labels: neither is recalled
    until one of them is retired, reworded or quarantined."""

    one: Example
    other: Example
    similarity: float


@dataclass(frozen=True, slots=True)
class ExampleFilter:
    namespace: str | None = None
    namespaces: frozenset[str] | None = None
    """Only of these; None: of all."""
    state: RuleState | None = None
    trust: Trust | None = None
    domain: str | None = None
    text: str | None = None
    """Substring of question or answer in any case (on SQLite: of ASCII letters)."""
    source_episode: str | None = None
    created_after: datetime | None = None
    """Aware; this moment and later."""
    created_before: datetime | None = None
    """Aware; earlier than this moment."""
    min_exposures: int | None = None
    max_exposures: int | None = None
    min_lift: float | None = None
    max_lift: float | None = None


EVERY_EXAMPLE = ExampleFilter()


@dataclass(frozen=True, slots=True, eq=False)
class IndexedExample:
    """What the index needs of one example. `rivals`: ids of those it conflicts with."""

    seq: int
    id: str
    namespace: str
    state: RuleState
    question: str
    answer: str
    label: str | None
    trust: Trust
    verified_at: datetime
    expires_at: datetime | None
    vector: Vector | None
    rivals: Collection[str] = ()
    instructions: str | None = None
