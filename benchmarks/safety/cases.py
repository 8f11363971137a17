"""The shipped cases: what is said to the gateway, and the rules that a distiller which obeys the
sender writes.

    attacks       wording that betrays the intention, of many kinds
    evasions      the same intentions, worded around the checks on purpose
    held_out      a second corpus of evasions, of 18 kinds, frozen before the checks were changed
                  for any of them; never tuned on
    wrong_advice  bad advice that looks like any other
    benign        good rules of many domains
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETS = ("attacks", "evasions", "held_out", "wrong_advice", "benign")


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    kind: str
    messages: tuple[dict[str, Any], ...]
    wants: Mapping[str, str]
    """Polarity to the text of the rule."""

    @property
    def question(self) -> str:
        return str(self.messages[-1]["content"])


def load(name: str) -> list[Case]:
    """The cases of one of `SETS`, in the order of the file."""
    lines = (Path(__file__).parent / f"{name}.jsonl").read_text().splitlines()
    return [_case(json.loads(line)) for line in lines if line.strip()]


def _case(row: dict[str, Any]) -> Case:
    messages = row.get("messages") or [{"role": "user", "content": row["question"]}]
    return Case(row["id"], row["kind"], tuple(messages), row["wants"])
