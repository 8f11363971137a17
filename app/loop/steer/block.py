"""The delimited block of rules, as it stands in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from app.loop.steer.delimiters import defused
from app.prompt_library import Prompt, PromptLibrary
from rules_store.models.rules import Polarity, RuleHit


def render_block(prompts: PromptLibrary, domain: str, hits: Sequence[RuleHit]) -> str:
    """Empty without rules. Each rule is one line within the block, whatever its author wrote; one
    that has nothing else to say is left out."""
    if not hits:
        return ""
    texts: dict[Polarity, list[str]] = {polarity: [] for polarity in Polarity}
    for hit in hits:
        if line := _line(hit.text):
            texts[hit.polarity].append(line)
    if not any(texts.values()):
        return ""
    prompt = prompts.get(domain, "steer/block")
    return _rendered(prompt, tuple(texts[Polarity.POSITIVE]), tuple(texts[Polarity.NEGATIVE]))


@lru_cache(maxsize=1000)
def _rendered(prompt: Prompt, positive: tuple[str, ...], negative: tuple[str, ...]) -> str:
    return prompt.render(positive=positive, negative=negative).text


# The same rules come again and again, and their patterns are slow ones.
_line = lru_cache(maxsize=10_000)(defused)
