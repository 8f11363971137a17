"""Makes rules and examples give way: first to their token budget, then to the model's context."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Protocol

import cachetools

from app.domain import json_text
from app.domain.tokens import overestimate
from app.domain.trajectory import Message
from app.loop.steer.block import cut
from app.loop.steer.experience import Experience, Hit
from app.loop.steer.injector import text_of
from rules_store.models.examples import ExampleHit

BLOCK_OVERHEAD = 112
"""Tokens of the block's frame, an upper bound for the shipped prompt."""
EXAMPLE_OVERHEAD = 12
"""Tokens around question and answer: the marks of two turns, or of a pair in the block."""
COUNT_TIMEOUT = 0.25
LONGEST_TOKENS = 16
"""Characters of a token, on average, that no text is known to have."""


class Tokenizer(Protocol):
    async def count_tokens(
        self, model: str, text: str, *, seconds: float = COUNT_TIMEOUT
    ) -> int | None:
        """Tokens of a text; None when that can't be told."""
        ...


class TokenCounter:
    """Token counts by the upstream's tokenizer, kept by model and text: each is counted once."""

    def __init__(self, upstream: Tokenizer, size: int = 50_000) -> None:
        self._upstream = upstream
        self._known: cachetools.LRUCache[tuple[str, bytes], int] = cachetools.LRUCache(size)

    def at_most(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without asking: of what has not been counted, its bytes in UTF-8,
        as no token is less than a byte."""
        known = [self._known.get(_key(model, text)) for text in texts]
        return [
            len(text.encode("utf-8", "surrogatepass")) if count is None else count
            for text, count in zip(texts, known, strict=True)
        ]

    async def count(self, model: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; an estimate where the upstream can't or doesn't tell in time."""
        unknown = [text for text in texts if _key(model, text) not in self._known]
        if len(unknown) > 1:
            await asyncio.gather(*(self._ask(model, text) for text in unknown))
        elif unknown:
            await self._ask(model, unknown[0])
        known = [self._known.get(_key(model, text)) for text in texts]
        return [
            overestimate(text) if count is None else count
            for text, count in zip(texts, known, strict=True)
        ]

    async def _ask(self, model: str, text: str) -> None:
        counted = await self._upstream.count_tokens(model, text, seconds=COUNT_TIMEOUT)
        if counted is not None:
            self._known[_key(model, text)] = counted


def _key(model: str, text: str) -> tuple[str, bytes]:
    """The text by its hash: it may be a whole conversation."""
    return model, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


async def fit(
    experience: Experience,
    *,
    model: str,
    counter: TokenCounter,
    budget: int,
    context: int | None,
    messages: Sequence[Message],
    answer_tokens: int,
) -> Experience:
    """What fits of it, in its order; the least similar rules and examples go first, down to none.

    `context`: tokens that the model holds, None when unknown (the upstream then decides, and
    `app.chat.relay` drops everything when it refuses). `answer_tokens`: the client's limit, or 0.
    """
    if not experience:
        return experience
    if context is not None and sum(len(text_of(m.get("content"))) for m in messages) > (
        context * LONGEST_TOKENS
    ):
        # It does not fit as it is, and counting its tokens would be the most work of all.
        return experience.only(set())
    hits: list[Hit] = [*experience.rules, *experience.examples]
    texts = [_prompt_text(hit) for hit in hits]
    frames = [EXAMPLE_OVERHEAD if isinstance(hit, ExampleHit) else 0 for hit in hits]
    prompt = 0 if context is None else overestimate(json_text.dumps(list(messages)).decode())
    taken = prompt + answer_tokens + BLOCK_OVERHEAD
    bound = sum(counter.at_most(model, texts)) + sum(frames)
    if bound <= budget and (context is None or taken + bound <= context):
        # Mostly it is: the tokenizer, which is the model server's, is then not asked.
        return experience
    counted = await counter.count(model, texts)
    counts = [count + frame for count, frame in zip(counted, frames, strict=True)]
    room = budget
    if context is not None and taken + sum(counts) > context:
        exact = await counter.count(model, [_flat(messages)])
        room = min(room, context - answer_tokens - BLOCK_OVERHEAD - exact[0])
    kept: set[str] = set()
    ranked = sorted(
        zip(hits, counts, strict=True), key=lambda pair: (-pair[0].similarity, pair[0].id)
    )
    for hit, cost in ranked:
        if cost <= room:
            kept.add(hit.id)
            room -= cost
    return experience.only(kept)


def _prompt_text(hit: Hit) -> str:
    if isinstance(hit, ExampleHit):
        return f"{cut(hit.question)}\n{cut(hit.answer)}"
    return hit.text


def _flat(messages: Sequence[Message]) -> str:
    return "\n".join(f"{m.get('role')}: {text_of(m.get('content'))}" for m in messages)
