"""The delimited block of rules, as it stands in a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.templates import PromptLibrary
from rules_store.types import Polarity, RuleHit

_FRAME = re.compile(r"</?advice>", re.IGNORECASE)


def render_block(prompts: PromptLibrary, domain: str, hits: Sequence[RuleHit]) -> str:
    """Empty without rules. Each rule is one line within the block, whatever its author wrote."""
    if not hits:
        return ""
    texts: dict[Polarity, list[str]] = {polarity: [] for polarity in Polarity}
    for hit in hits:
        texts[hit.polarity].append(" ".join(_FRAME.sub(" ", hit.text).split()))
    prompt = prompts.get(domain, "steer/block")
    return prompt.render(positive=texts[Polarity.POSITIVE], negative=texts[Polarity.NEGATIVE]).text
