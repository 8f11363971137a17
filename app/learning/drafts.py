"""Distilled rules on their way into the store, and the text that a rule is found by."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.trajectory import DistilledRule, Observation
from app.upstream.embeddings import Embedder
from rules_store.models.rules import Draft, NewRule, RuleState, Vectors


async def drafts_of(
    observation: Observation,
    rules: Sequence[DistilledRule],
    embedder: Embedder,
    *,
    gated: bool,
    written_by: str | None = None,
) -> list[Draft]:
    """Distilled rules with their vectors, as the store takes them. `written_by`: the model. Raises
    `EmbeddingFailed`."""
    admitted = RuleState.CANDIDATE if gated else RuleState.ACTIVE
    drafts = []
    for rule in rules:
        key = retrieval_key(rule.trigger, observation.question)
        text, when = await embedder.embed([rule.text, key])
        new = NewRule(
            namespace=observation.namespace,
            polarity=rule.polarity,
            text=rule.text,
            trigger=rule.trigger,
            domain=observation.domain,
            state=RuleState.QUARANTINED if rule.refusal else admitted,
            reason=rule.refusal,
            source_episode=observation.episode_id,
            written_by=written_by,
        )
        drafts.append(Draft(new, Vectors(text=text, trigger=when)))
    return drafts


def retrieval_key(trigger: str, question: str) -> str:
    """The text whose embedding says when a rule applies: the distiller's trigger, and the question
    that the rule was learned from. A small model's trigger is vague; its question never is, and
    a question like it is where the rule is known to belong."""
    return f"{trigger}\n{question}" if trigger else question
