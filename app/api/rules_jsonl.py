"""Rules out of the store and into it as JSON lines; one line is a `RuleLine`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.api import jsonl
from app.api.jsonl import Order
from app.api.schemas.rules import Domain, Import, Moment, Refused, RuleText, Trigger, Warned
from app.learning.reembed import embedded
from app.loop.admission.pipeline import findings
from app.settings import NAMESPACE_PATTERN
from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.database import json_codec
from rules_store.errors import NamespaceFrozen
from rules_store.models.evidence import Standing
from rules_store.models.rules import Polarity, Rule, RuleFilter, RuleState, Vectors
from rules_store.operations.exchange import ExportedRule, IncomingRule
from rules_store.operations.rule_writes import MOST_LEARNED, new_rule_id
from rules_store.policy.gate import Verdict
from rules_store.policy.lift import Tally
from rules_store.store import RuleStore

# -- out


async def export_lines(
    store: RuleStore, where: RuleFilter, *, vectors: bool
) -> AsyncIterator[bytes]:
    """JSON lines, some hundreds at a time."""
    async for batch in store.exchange.export_rules(where, vectors=vectors):
        yield b"".join(written(item, store.embedding_model) for item in batch)


# -- in


async def import_lines(
    store: RuleStore, embedder: Embedder, content: bytes, order: Order, *, trust: bool = False
) -> Import:
    """Takes the rules in, some hundreds a transaction; a dry run only tells what would happen.
    `trust`: as `ExchangeOperations.import_rules` has it.

    Raises `InvalidRequest` for too many lines, StoreError.
    """
    report = Import(dry_run=order.dry_run)

    def parse(line: bytes) -> IncomingRule:
        parsed = RuleLine.model_validate(jsonl.json_of(line))
        rule = parsed.as_rule(order.target(parsed.namespace))
        # Never the file's word: one wrong vector would be the measure of everybody's.
        dimension = store.dimension or embedder.dimension
        vectors = unpacked(parsed, store.embedding_model, dimension)
        return IncomingRule(rule, vectors, parsed.standing(rule))

    lines = jsonl.read(content, parse, report.refused)
    for items in jsonl.chunks(_each_once(lines, report), lambda item: item.rule.namespace):
        # In a thread: some hundreds of texts take tens of milliseconds.
        report.warnings += await asyncio.to_thread(_warnings, items)
        if order.dry_run:
            known = await store.exchange.known_texts([item.rule for _, item in items])
            report.skipped += sum(id is not None for id in known)
            report.imported += sum(id is None for id in known)
        else:
            embedded_items = await _with_vectors(store, embedder, items)
            await _write(store, embedded_items, order, report, trust=trust)
    report.refused.sort(key=lambda each: each.line)
    return report


Numbered = tuple[int, IncomingRule]


def _each_once(items: Iterable[Numbered], report: Import) -> Iterator[Numbered]:
    seen: set[tuple[str, Polarity, str]] = set()
    for number, item in items:
        same = (item.rule.namespace, item.rule.polarity, item.rule.text.casefold())
        if same in seen:
            report.skipped += 1
        else:
            seen.add(same)
            yield number, item


def _warnings(items: Sequence[Numbered]) -> list[Warned]:
    judged = (
        (number, findings(item.rule.text, polarity=item.rule.polarity)) for number, item in items
    )
    return [
        Warned(line=number, checks=[each.name for each in found])
        for number, found in judged
        if found
    ]


async def _with_vectors(
    store: RuleStore, embedder: Embedder, items: Sequence[Numbered]
) -> list[Numbered]:
    """Embeds what came without vectors; while the embedder is down the background does that."""
    bare = [item.rule for _, item in items if item.vectors.text is None]
    if not bare or not embedder.ready:
        return list(items)
    try:
        made = iter(await embedded(store, embedder, bare))
    except EmbeddingFailed:
        return list(items)
    return [
        (number, replace(item, vectors=next(made).vectors) if item.vectors.text is None else item)
        for number, item in items
    ]


async def _write(
    store: RuleStore, items: Sequence[Numbered], order: Order, report: Import, *, trust: bool
) -> None:
    await store.namespaces.ensure(items[0][1].rule.namespace, actor=order.change.actor)
    try:
        done = await store.exchange.import_rules(
            [item for _, item in items], change=order.change, trust=trust
        )
    except NamespaceFrozen as error:
        report.refused += [
            Refused(line=number, reason=f"namespace: {error}") for number, _ in items
        ]
        return
    report.evicted += done.evicted
    for (_, item), id in zip(items, done.outcomes, strict=True):
        report.imported += id is not None
        report.skipped += id is None
        report.unembedded += id is not None and item.vectors.text is None


_EXPORTED = [each.name for each in fields(Rule) if each.name not in ("version", "updated_at")]
_KEPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{7,63}\Z")


class LineVectors(BaseModel):
    """As `jsonl.packed` writes them."""

    text: str | None = Field(None, max_length=100_000)
    trigger: str | None = Field(None, max_length=100_000)


Weight = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class LineEvidence(BaseModel):
    """What a rule's use has shown where it was exported, by weight, as of a moment."""

    at: Moment
    with_hits: Weight = 0.0
    with_misses: Weight = 0.0
    without_hits: Weight = 0.0
    without_misses: Weight = 0.0
    proven: bool = False
    verdict: Verdict | None = None


class RuleLine(BaseModel):
    """One rule. Fields that are not named here are passed over."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Kept where it begins with a letter or digit and has 8 characters or more",
    )
    namespace: str | None = Field(None, pattern=NAMESPACE_PATTERN)
    polarity: Polarity
    state: RuleState = RuleState.ACTIVE
    text: RuleText
    trigger: Trigger = ""
    domain: Domain = "default"
    frequency: int = Field(1, ge=1, le=MOST_LEARNED)
    source_episode: str | None = Field(None, max_length=64)
    reason: str | None = Field(None, max_length=2000)
    written_by: str | None = Field(None, max_length=200)
    created_at: Moment | None = None
    embedding_model: str | None = Field(None, max_length=256)
    vectors: LineVectors | None = None
    evidence: LineEvidence | None = Field(None, description="Counts where the import is trusted")

    @field_validator("domain", "source_episode", "reason", "written_by")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        return None if value is None else json_codec.storable(value)

    def as_rule(self, namespace: str) -> Rule:
        made = (self.created_at or datetime.now(UTC)).astimezone(UTC)
        own = {"id", "namespace", "created_at", "embedding_model", "vectors", "evidence"}
        return Rule(
            # A shorter one could be part of a word where rules are looked for in traces.
            id=self.id if self.id and _KEPT.match(self.id) else new_rule_id(),
            namespace=namespace,
            **self.model_dump(exclude=own),
            exposures=0,
            version=1,
            created_at=made,
            updated_at=made,
        )

    def standing(self, rule: Rule) -> Standing | None:
        """Of the rule that it becomes."""
        known = self.evidence
        if known is None:
            return None
        return Standing(
            item_id=rule.id,
            seq=0,
            namespace=rule.namespace,
            at=known.at,
            with_rule=Tally(known.with_hits, known.with_misses),
            without_rule=Tally(known.without_hits, known.without_misses),
            proven=known.proven,
            verdict=known.verdict,
        )


def written(item: ExportedRule, model: str) -> bytes:
    """With a line feed at its end."""
    rule = item.rule
    shape = {name: getattr(rule, name) for name in _EXPORTED}
    if item.vectors is not None and item.vectors.text is not None:
        shape["embedding_model"] = model
        shape["vectors"] = {
            "text": jsonl.packed(item.vectors.text),
            "trigger": jsonl.packed(item.vectors.trigger),
        }
    if item.standing is not None:
        shape["evidence"] = evidence_of(item.standing)
    return orjson.dumps(shape) + b"\n"


def evidence_of(known: Standing) -> dict[str, Any]:
    """As `LineEvidence` reads it."""
    return {
        "at": known.at,
        "with_hits": known.with_rule.hits,
        "with_misses": known.with_rule.misses,
        "without_hits": known.without_rule.hits,
        "without_misses": known.without_rule.misses,
        "proven": known.proven,
        "verdict": known.verdict,
    }


def unpacked(line: RuleLine, model: str, dimension: int | None) -> Vectors:
    """The line's unit vectors. Raises ValueError.

    Those of another embedding model are passed over; so are all while no `dimension` is known.
    """
    if line.vectors is None or line.embedding_model != model or dimension is None:
        return Vectors()
    text = jsonl.unpacked(line.vectors.text, dimension, "vectors.text")
    trigger = jsonl.unpacked(line.vectors.trigger, dimension, "vectors.trigger")
    return Vectors(text=text, trigger=trigger if line.trigger else None)
