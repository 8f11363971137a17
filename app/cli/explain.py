"""`ttcl rules explain`: what a question would get, and why."""

from __future__ import annotations

from app.cli.common import add_row, embedding_of, opened, out, table
from app.loop.steer.budget import TokenCounter
from app.loop.steer.explain import Explainer, Explanation, Question
from app.settings import Settings
from app.wiring.factories import build_embedder, build_retriever, build_writer, load_prompts
from rules_store.errors import UnknownNamespace


def show_explanation(found: Explanation) -> None:
    """Tables of the candidates, and the prompt."""
    shown = table("id similarity verdict polarity rule why")
    for each in found.candidates:
        similarity = f"{each.similarity:.3f}"
        polarity = each.polarity.value
        add_row(shown, each.id, similarity, each.verdict.value, polarity, each.text, each.reason)
    out.print(shown)
    if found.examples:
        shown = table("id similarity verdict trust question answer why")
        for one in found.examples:
            similarity, trust = f"{one.similarity:.3f}", one.trust.value
            texts = (one.question, one.answer, one.reason)
            add_row(shown, one.id, similarity, one.verdict.value, trust, *texts)
        out.print(shown)
    if len(found.decision.choices) > 1:
        shown = table("given expected low high outcomes")
        for choice in found.decision.choices:
            belief = choice.belief
            numbers = (f"{value:.2f}" for value in (belief.mean, belief.low, belief.high))
            add_row(shown, choice.given.value, *numbers, f"{belief.size:.1f}")
        out.print(shown)
        out.print(
            f"Given: {found.decision.given.value}; drawn for instead in "
            f"{found.decision.exploring:.0%} of the requests."
        )
    for message in found.messages:
        out.print(f"\n[bold]{message['role']}[/bold]")
        out.print(message["content"], markup=False)


class _Estimates:
    """Stands in for a model server that does not count tokens."""

    async def count_tokens(self, model: str, text: str, *, seconds: float = 0.0) -> int | None:
        return None


async def explained(
    settings: Settings,
    text: str,
    namespace: str,
    domain: str,
    asked: dict[str, int | None],
    limit: int,
) -> Explanation:
    """`asked`: most of each kind. Raises `UnknownNamespace`, `EmbeddingFailed`."""
    prompts = load_prompts(settings)
    embedder = build_embedder(settings)
    async with opened(settings) as store:
        if not await store.namespaces.exists(namespace):
            raise UnknownNamespace(namespace)
        retriever = build_retriever(settings, store, embedder)
        counter = TokenCounter(_Estimates())
        writer = build_writer(settings, prompts, store)
        explainer = Explainer(store, retriever, counter, writer, settings.experience_token_budget)
        own = store.namespaces.settings_of(namespace)
        limits = settings.limits(own, **asked)
        vector = await embedding_of(embedder, text)
        question = Question(
            namespace=namespace,
            messages=[{"role": "user", "content": text}],
            vector=vector,
            limits=limits,
            domain=domain,
            model="",
            context=None,
        )
        return await explainer.explain(question, limit)
