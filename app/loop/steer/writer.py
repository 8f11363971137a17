"""Writes experience into a conversation: rules as a block, examples as earlier turns or in it.

Examples are earlier turns where that can do no harm: in a conversation of a single turn, as plain
text. Turns that were answered without a tool teach not to use any, and answers in another form than
the client prescribes teach that form: a request with tools or with a form of its own gets them in
the block, as something to read. So does a conversation of several turns, which is not to be told of
turns that never were. A question with an image gets none: it can't be told from its text what it is
like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.domain.trajectory import Message
from app.loop.steer.block import cut, render_block
from app.loop.steer.delimiters import harmless
from app.loop.steer.injector import inject, is_single_turn
from app.prompt_library import PromptLibrary
from app.settings import ExamplePlace
from rules_store.models.examples import ExampleHit
from rules_store.models.rules import RuleHit


@dataclass(frozen=True, slots=True)
class Insertion:
    """What is put into a conversation: a block (may be empty), and turns in front of it."""

    block: str = ""
    turns: tuple[Message, ...] = ()

    def into(self, messages: Sequence[Message], *, in_question: bool = False) -> list[Message]:
        """A new list of messages; `in_question`: see `inject`."""
        return inject(messages, self.block, self.turns, in_question=in_question)


class ExperienceWriter:
    def __init__(
        self,
        prompts: PromptLibrary,
        place: ExamplePlace,
        confidential: Callable[[str], bool] = lambda namespace: False,
    ) -> None:
        """`place`: of the examples of single-turn requests. `confidential`: whether the model is
        asked to keep what a namespace gives it to itself."""
        self._prompts = prompts
        self._place = place
        self._confidential = confidential

    def write(
        self,
        rules: Sequence[RuleHit],
        examples: Sequence[ExampleHit],
        *,
        domain: str,
        messages: Sequence[Message],
        fields: Mapping[str, Any],
        namespace: str = "",
    ) -> Insertion:
        """`fields`: the other fields of the request."""
        if self._confidential(namespace):
            # In the block, where the line that says so stands over them.
            block = render_block(self._prompts, domain, rules, examples, confidential=True)
            return Insertion(block)
        if self._place is ExamplePlace.TURNS and takes_turns(messages, fields):
            return Insertion(render_block(self._prompts, domain, rules), _turns(examples))
        return Insertion(render_block(self._prompts, domain, rules, examples))


def takes_turns(messages: Sequence[Message], fields: Mapping[str, Any]) -> bool:
    """Whether examples can be earlier turns of such a request."""
    wanted = fields.get("response_format") or {}
    # Of a form that can't be read nobody knows what it leaves room for.
    form = wanted.get("type", "text") if isinstance(wanted, dict) else None
    tools = fields.get("tools") or fields.get("functions")
    return not tools and form == "text" and is_single_turn(messages)


def _turns(examples: Sequence[ExampleHit]) -> tuple[Message, ...]:
    """The nearest, which is the first, comes last."""
    pairs = [(_text(each.question), _text(each.answer)) for each in reversed(examples)]
    return tuple(
        {"role": role, "content": text}
        for pair in pairs
        if all(pair)
        for role, text in zip(("user", "assistant"), pair, strict=True)
    )


@lru_cache(maxsize=10_000)
def _text(text: str) -> str:
    return harmless(cut(text))
