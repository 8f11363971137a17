"""Examples out of the store and into it as JSON lines; one line is an `ExampleLine`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.api import jsonl
from app.api.jsonl import Order
from app.api.schemas.examples import (
    Answer,
    ExampleDomain,
    ExampleImport,
    Held,
    Label,
    Question,
)
from app.api.schemas.rules import Moment, Refused
from app.learning.reembed import embedded_examples
from app.loop.admission.examples import objections, reason_of
from app.settings import NAMESPACE_PATTERN
from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.database import json_codec
from rules_store.errors import NamespaceFrozen
from rules_store.models.examples import Example, ExampleFilter, Trust
from rules_store.models.rules import RuleState
from rules_store.operations.example_exchange import ExportedExample, IncomingExample
from rules_store.operations.example_writes import new_example_id, text_hash
from rules_store.store import RuleStore

# -- out


async def export_lines(
    store: RuleStore, where: ExampleFilter, *, vectors: bool
) -> AsyncIterator[bytes]:
    """JSON lines, some hundreds at a time."""
    async for batch in store.examples.export(where, vectors=vectors):
        yield b"".join(written(item, store.embedding_model) for item in batch)


def written(item: ExportedExample, model: str) -> bytes:
    """With a line feed at its end."""
    shape = {name: getattr(item.example, name) for name in _EXPORTED}
    if item.vector is not None:
        shape["embedding_model"] = model
        shape["vector"] = jsonl.packed(item.vector)
    return orjson.dumps(shape) + b"\n"


# -- in


async def import_lines(
    store: RuleStore,
    embedder: Embedder,
    content: bytes,
    order: Order,
    *,
    trust: Trust = Trust.LABEL,
) -> ExampleImport:
    """Takes the examples in, some hundreds a transaction; a dry run only tells what would happen.
    Those with a secret or personal data go into quarantine. `trust`: of lines that name none.

    Raises `InvalidRequest` for too many lines, StoreError.
    """
    report = ExampleImport(dry_run=order.dry_run)

    def parse(line: bytes) -> IncomingExample:
        parsed = ExampleLine.model_validate(jsonl.json_of(line))
        example = parsed.as_example(order.target(parsed.namespace), trust)
        # Never the file's word: one wrong vector would be the measure of everybody's.
        dimension = store.dimension or embedder.dimension
        vector = None
        if parsed.embedding_model == store.embedding_model and dimension is not None:
            vector = jsonl.unpacked(parsed.vector, dimension, "vector")
        return IncomingExample(example, vector)

    lines = jsonl.read(content, parse, report.refused)
    for items in jsonl.chunks(_each_once(lines, report), lambda item: item.example.namespace):
        # In a thread: some hundreds of long texts take a while.
        screened = await asyncio.to_thread(_screened, items)
        if order.dry_run:
            known = await store.examples.known_texts([item.example for _, item in screened])
            _count(screened, [id is None for id in known], report)
        else:
            await _write(store, await _with_vectors(embedder, screened), order, report)
    report.refused.sort(key=lambda each: each.line)
    return report


Numbered = tuple[int, IncomingExample]


def _each_once(items: Iterable[Numbered], report: ExampleImport) -> Iterator[Numbered]:
    seen: set[tuple[str, str]] = set()
    for number, item in items:
        same = (item.example.namespace, text_hash(item.example.question, item.example.answer))
        if same in seen:
            report.skipped += 1
        else:
            seen.add(same)
            yield number, item


def _screened(items: Sequence[Numbered]) -> list[Numbered]:
    """Those that a check objects to in quarantine, with the reason."""
    return [(number, replace(item, example=_held(item.example))) for number, item in items]


def _held(example: Example) -> Example:
    if example.state not in (RuleState.ACTIVE, RuleState.CANDIDATE):
        return example
    found = objections(example.question, example.answer, example.label)
    if not found:
        return example
    return replace(example, state=RuleState.QUARANTINED, reason=reason_of(found))


async def _with_vectors(embedder: Embedder, items: Sequence[Numbered]) -> list[Numbered]:
    """Embeds what came without a vector; while the embedder is down the background does that."""
    bare = [item.example for _, item in items if item.vector is None]
    if not bare or not embedder.ready:
        return list(items)
    try:
        made = iter(await embedded_examples(embedder, bare))
    except EmbeddingFailed:
        return list(items)
    return [
        (number, replace(item, vector=next(made).vector) if item.vector is None else item)
        for number, item in items
    ]


async def _write(
    store: RuleStore, items: Sequence[Numbered], order: Order, report: ExampleImport
) -> None:
    await store.namespaces.ensure(items[0][1].example.namespace, actor=order.change.actor)
    try:
        done = await store.examples.import_([item for _, item in items], change=order.change)
    except NamespaceFrozen as error:
        report.refused += [
            Refused(line=number, reason=f"namespace: {error}") for number, _ in items
        ]
        return
    report.evicted += done.evicted
    for (_, item), id in zip(items, done.outcomes, strict=True):
        report.unembedded += id is not None and item.vector is None
    _count(items, [id is not None for id in done.outcomes], report)


def _count(items: Sequence[Numbered], new: Sequence[bool], report: ExampleImport) -> None:
    """Reports what is written, or would be."""
    for (number, item), written_now in zip(items, new, strict=True):
        report.imported += written_now
        report.skipped += not written_now
        example = item.example
        if written_now and example.state is RuleState.QUARANTINED:
            reason = example.reason or "as the line says"
            report.quarantined.append(Held(line=number, reason=reason))


_EXPORTED = [
    each.name for each in fields(Example) if each.name not in ("version", "updated_at", "exposures")
]
_KEPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{7,63}\Z")


class ExampleLine(BaseModel):
    """One example. Fields that are not named here are passed over."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Kept where it begins with a letter or digit and has 8 characters or more",
    )
    namespace: str | None = Field(None, pattern=NAMESPACE_PATTERN)
    state: RuleState = RuleState.ACTIVE
    question: Question
    answer: Answer
    label: Label | None = None
    domain: ExampleDomain = "default"
    instructions: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")
    trust: Trust | None = None
    source_episode: str | None = Field(None, max_length=64)
    reason: str | None = Field(None, max_length=2000)
    verified_at: Moment | None = None
    expires_at: Moment | None = None
    created_at: Moment | None = None
    embedding_model: str | None = Field(None, max_length=256)
    vector: str | None = Field(None, max_length=100_000, description="As `jsonl.packed` writes it")

    @field_validator("source_episode", "reason")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        return None if value is None else json_codec.storable(value)

    def as_example(self, namespace: str, trust: Trust) -> Example:
        """`trust`: where the line names none."""
        now = datetime.now(UTC)
        own = {"id", "namespace", "trust", "verified_at", "created_at", "embedding_model", "vector"}
        return Example(
            # A shorter one could be part of a word where examples are looked for in traces.
            id=self.id if self.id and _KEPT.match(self.id) else new_example_id(),
            namespace=namespace,
            trust=self.trust or trust,
            verified_at=self.verified_at or now,
            created_at=self.created_at or now,
            updated_at=now,
            exposures=0,
            version=1,
            **self.model_dump(exclude=own),
        )
