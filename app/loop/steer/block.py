"""The delimited block of rules and examples, as it stands in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from app.loop.steer.delimiters import defused
from app.prompt_library import Prompt, PromptLibrary
from rules_store.models.examples import ExampleHit
from rules_store.models.rules import Polarity, RuleHit

LONGEST = 2000
"""Characters of an example's question, and of its answer; what is longer is cut."""
CUT = " [...]"

_Pair = tuple[str, str]


def render_block(
    prompts: PromptLibrary,
    domain: str,
    hits: Sequence[RuleHit],
    examples: Sequence[ExampleHit] = (),
    *,
    confidential: bool = False,
) -> str:
    """Empty without rules and examples. Each rule is one line within the block, whatever its author
    wrote, and so are question and answer of an example; what has nothing else to say is left out.
    The nearest of `examples`, which is their first, comes last. `confidential`: the model is asked
    to keep it to itself."""
    texts: dict[Polarity, list[str]] = {polarity: [] for polarity in Polarity}
    for hit in hits:
        if line := _line(hit.text):
            texts[hit.polarity].append(line)
    lines = [(_line(cut(each.question)), _line(cut(each.answer))) for each in reversed(examples)]
    pairs = [pair for pair in lines if all(pair)]
    if not any(texts.values()) and not pairs:
        return ""
    prompt = prompts.get(domain, "steer/block")
    positive, negative = (tuple(texts[each]) for each in (Polarity.POSITIVE, Polarity.NEGATIVE))
    block = _rendered(prompt, positive, negative, tuple(pairs))
    if not confidential:
        return block
    # Before the delimiter that ends it: what is said last is heeded most.
    content, _, end = block.rpartition("\n")
    return f"{content}\n{prompts.get(domain, 'steer/confidential').render().text}\n{end}"


def cut(text: str) -> str:
    """At most `LONGEST` characters of a text, with a sign where it goes on."""
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + CUT


@lru_cache(maxsize=1000)
def _rendered(
    prompt: Prompt,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    examples: tuple[_Pair, ...],
) -> str:
    return prompt.render(positive=positive, negative=negative, examples=examples).text


# The same ones come again and again, and their patterns are slow ones.
_line = lru_cache(maxsize=10_000)(defused)
