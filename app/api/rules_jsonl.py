"""Rules out of the store and into it as JSON lines, many at a time.

A line that can't be taken is reported with its number and the reason; the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from app.api.rule_lines import RuleLine, parse, unpacked, written
from app.exceptions import InvalidRequest
from app.learning.reembed import embedded
from app.loop.admission.pipeline import findings
from app.upstream.embeddings import Embedder, EmbeddingFailed
from rules_store.errors import NamespaceFrozen
from rules_store.models.rules import Polarity, Rule, RuleFilter
from rules_store.operations.exchange import Incoming
from rules_store.store import RuleStore

MOST_LINES = 20_000
_AT_ONCE = 200
"""Rules of one transaction, and at most so many embedded before it."""


@dataclass(frozen=True, slots=True)
class Refused:
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Warned:
    line: int
    checks: list[str]


@dataclass(slots=True)
class ImportReport:
    """`warnings`: lines taken in though a learned rule of that text would be quarantined, with the
    names of the checks. `skipped`: the namespace has the text already. `evicted`: ids of rules that
    were retired to keep within the capacity. `unembedded`: written without vectors, which a running
    gateway brings."""

    imported: int = 0
    skipped: int = 0
    refused: list[Refused] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    unembedded: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Order:
    """How to import. `namespace`: all lines go there; None: each goes where it says."""

    namespace: str | None
    dry_run: bool
    actor: str
    reason: str
    reaches: Callable[[str], bool] = lambda namespace: True


# -- out


async def export_lines(
    store: RuleStore, where: RuleFilter, *, vectors: bool
) -> AsyncIterator[bytes]:
    """JSON lines, some hundreds at a time."""
    async for batch in store.export_rules(where, vectors=vectors):
        yield b"".join(written(item, store.embedding_model) for item in batch)


# -- in


async def import_lines(
    store: RuleStore, embedder: Embedder, content: bytes, order: Order
) -> ImportReport:
    """Takes the rules in, some hundreds a transaction; a dry run only tells what would happen.

    Raises `InvalidRequest` for too many lines, StoreError.
    """
    report = ImportReport()
    for items in _chunks(_read(content, order, store, embedder, report)):
        # In a thread: some hundreds of texts take tens of milliseconds.
        report.warnings += await asyncio.to_thread(_warnings, items)
        if order.dry_run:
            known = await store.known_texts([item.rule for _, item in items])
            report.skipped += sum(id is not None for id in known)
            report.imported += sum(id is None for id in known)
        else:
            await _write(store, await _with_vectors(store, embedder, items), order, report)
    report.refused.sort(key=lambda each: each.line)
    return report


Numbered = tuple[int, Incoming]


def _read(
    content: bytes, order: Order, store: RuleStore, embedder: Embedder, report: ImportReport
) -> Iterator[Numbered]:
    lines = content.split(b"\n")
    if sum(bool(line.strip()) for line in lines) > MOST_LINES:
        raise InvalidRequest(f"body: at most {MOST_LINES} rules at once", param="body")
    seen: set[tuple[str, Polarity, str]] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed = parse(line)
            rule = _rule(parsed, order)
            # Never the file's word: one wrong vector would be the measure of everybody's.
            dimension = store.dimension or embedder.dimension
            item = Incoming(rule, unpacked(parsed, store.embedding_model, dimension))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            report.refused.append(Refused(number, f"{where}: {first['msg']}"))
        except ValueError as error:
            report.refused.append(Refused(number, str(error)))
        else:
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
    return [Warned(number, [each.name for each in found]) for number, found in judged if found]


def _rule(line: RuleLine, order: Order) -> Rule:
    """Raises ValueError with the reason of a refusal."""
    namespace = order.namespace or line.namespace
    if namespace is None:
        raise ValueError("namespace: missing, and none was given for all lines")
    if not order.reaches(namespace):
        raise ValueError(f"namespace: there is no '{namespace}'")
    return line.as_rule(namespace)


def _chunks(items: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    """Of one namespace each, in the order of the lines."""
    chunk: list[Numbered] = []
    for item in items:
        other = chunk and chunk[0][1].rule.namespace != item[1].rule.namespace
        if other or len(chunk) >= _AT_ONCE:
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk


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
        (number, Incoming(item.rule, next(made).vectors) if item.vectors.text is None else item)
        for number, item in items
    ]


async def _write(
    store: RuleStore, items: Sequence[Numbered], order: Order, report: ImportReport
) -> None:
    await store.ensure_namespace(items[0][1].rule.namespace, actor=order.actor)
    try:
        done = await store.import_rules(
            [item for _, item in items], actor=order.actor, reason=order.reason
        )
    except NamespaceFrozen as error:
        report.refused += [Refused(number, f"namespace: {error}") for number, _ in items]
        return
    report.evicted += done.evicted
    for (_, item), id in zip(items, done.outcomes, strict=True):
        report.imported += id is not None
        report.skipped += id is None
        report.unembedded += id is not None and item.vectors.text is None
