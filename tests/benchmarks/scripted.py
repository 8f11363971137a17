"""A model in this process whose every answer is known, and questions made for it.

Question n (from 0) asks for n + n. Without rules the greedy answer is right where n is even, and
every sample where n is not divisible by three; with any rule in the prompt all answers are right.
So the score of every arm can be counted out by hand (see `expected`).
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from app.domain.trajectory import Cost, Message
from app.exceptions import UpstreamUnavailable
from app.upstream.types import Completion

_SYLLABLES = "ba ce di fo gu ha je ki lo mu".split()  # noqa: SIM905
ADVICE = "Count every {name} lot again from the start"


def name_of(number: int) -> str:
    """A made-up word for each number, without digits: rules with numbers are not admitted."""
    return "".join(_SYLLABLES[int(digit)] for digit in f"{number:04d}")


def question(number: int) -> str:
    return f"In the {name_of(number)} lot are {number} red and {number} blue tiles. How many tiles?"


def write_data(path: Path, count: int) -> Path:
    rows = ({"id": f"q{n}", "question": question(n), "answer": str(2 * n)} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def expected(arm: str, numbers: list[int], concurrency: int = 1) -> float:
    """Accuracy of an arm over questions in this order."""
    right = 0
    for place, n in enumerate(numbers):
        if arm == "zero-shot":
            right += n % 2 == 0
        elif arm.startswith("sc@") or arm == "empty-bank" or place < concurrency:
            right += n % 3 != 0
        else:
            right += 1
    return right / len(numbers)


class ScriptedBackend:
    """A `ChatBackend`. `history` has one entry a call, in order of arrival."""

    def __init__(self, *, delay: float = 0.0, log: Path | None = None) -> None:
        self.delay = delay
        self.log = log
        self.history: list[dict[str, Any]] = []
        self.fails_after: int | None = None
        """Calls after which the server is gone."""
        self.open = 0
        self.most_open = 0

    async def complete(
        self,
        model: str,
        messages: list[Message],
        params: dict[str, Any],
        *,
        background: bool = False,
        logprobs: bool = False,
    ) -> Completion:
        text = "\n".join(str(message["content"]) for message in messages)
        await self._arrived({"kind": "answer", "text": text, "params": params})
        return _completion(f"Counted. \\boxed{{{self._answer(text, params)}}}", text)

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        text = "\n".join(str(message["content"]) for message in messages)
        tutor = "variants" in schema["properties"]
        await self._arrived(
            {"kind": "tutor" if tutor else "distiller", "text": text, "params": params}
        )
        value = _variants(text) if tutor else _rules(text)
        return value, _completion(json.dumps(value), text)

    async def _arrived(self, call: dict[str, Any]) -> None:
        if self.fails_after is not None and len(self.history) >= self.fails_after:
            raise UpstreamUnavailable("the scripted server is gone")
        self.history.append(call)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(self.delay)
        self.open -= 1
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(call["kind"] + "\n")

    @staticmethod
    def _answer(text: str, params: dict[str, Any]) -> int:
        n = number_in(text)
        steered = "<advice>" in text
        right = n % 2 == 0 if params["temperature"] == 0 else n % 3 != 0
        # Wrong samples agree with one another, so that they outvote a right Teacher.
        return 2 * n if steered or right else 2 * n + 1


def number_in(text: str) -> int:
    return int(re.findall(r"(\d+) red", text)[-1])


def markers_in(text: str) -> set[str]:
    """Names of the lots that the injected advice speaks of."""
    block = re.search(r"<advice>.*</advice>", text, re.DOTALL)
    return set(re.findall(r"every (\w+) lot", block[0])) if block else set()


def _variants(text: str) -> dict[str, Any]:
    n = number_in(text)
    base = f"{n} red and {n} blue tiles are in the {name_of(n)} lot"
    return {"variants": [f"{base}. How many tiles {w}?" for w in ("there", "in all", "together")]}


def _rules(text: str) -> dict[str, Any]:
    name = name_of(number_in(text))
    return {
        "positive": ADVICE.format(name=name) + ".",
        "negative": f"Avoid leaving out the {name} pieces while adding colours together.",
        "trigger": f"lots of {name} tiles",
    }


def _completion(text: str, prompt: str) -> Completion:
    words = len(text.split())
    return Completion(
        text=text,
        finish_reason="stop",
        logprobs=tuple(-0.1 - 0.01 * i for i in range(words)),
        cost=Cost(1, len(prompt.split()), words),
    )
