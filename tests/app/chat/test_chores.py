"""Chores of chat clients are told from what people ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from app.chat.chores import chore_of

CORPUS: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("chores.yaml").read_text(encoding="utf-8")
)


def messages_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    told = [{"role": "system", "content": case["system"]}] if "system" in case else []
    roles = ("user", "assistant")
    return told + [
        {"role": roles[number % 2], "content": text} for number, text in enumerate(case["turns"])
    ]


def test_every_chore_of_the_corpus_is_recognised_and_named() -> None:
    found = [chore_of(messages_of(case), {}) for case in CORPUS["chores"]]
    wrong = [
        (case["kind"], kind, case)
        for case, kind in zip(CORPUS["chores"], found, strict=True)
        if kind != case["kind"]
    ]
    assert wrong == []


def test_nothing_that_a_person_asks_is_taken_for_one() -> None:
    wrong = [case for case in CORPUS["questions"] if chore_of(messages_of(case), {}) is not None]
    assert wrong == []
