"""Commands made from the admin API's description: all of them are there, and do what it does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.cli import root
from app.cli.described import description
from app.cli.operations import DESCRIPTION, operations
from app.settings import load_settings
from app.wiring.factories import opened_store
from tests.app.cli.test_rules import Run, embeddings, new_database, rows, ttcl

__all__ = ["embeddings", "new_database", "ttcl"]

WHY = ("--reason", "a test")


def test_the_description_is_that_of_the_api() -> None:
    """Else: python -m app.cli.described"""
    assert DESCRIPTION.read_text(encoding="utf-8") == description()


def test_every_operation_of_the_api_has_a_command() -> None:
    nouns = {noun for noun, _ in (each.command for each in operations())}
    assert nouns <= set(root.COMMANDS)
    there = {noun: getattr(root.load(noun), "commands", {noun: None}) for noun in nouns}
    lacking = [
        (noun, verb)
        for noun, verb in (each.command for each in operations())
        if verb not in there[noun] and noun not in there[noun]
    ]
    assert lacking == []


@pytest.mark.parametrize("name", [name for name, entry in root.COMMANDS.items()])
def test_a_command_says_what_the_table_says(name: str) -> None:
    command = root.load(name)
    told = " ".join((command.help or "").split())
    assert told.startswith(root.COMMANDS[name].help.rstrip("."))


def test_a_rule_goes_through_its_states(ttcl: Run) -> None:
    def one(*arguments: str) -> dict[str, Any]:
        (row,) = rows(ttcl("rules", *arguments, *WHY, "--json"))
        return row

    made = one("add", "shop", "positive", "Count every apple twice before you answer.")
    assert (made["state"], made["namespace"]) == ("active", "shop")
    rule = made["id"]
    edited = one("edit", rule, "--trigger", "counting", "--expected-version", "1")
    assert (edited["trigger"], edited["version"]) == ("counting", 2)
    assert (
        "version 2, not 1"
        in ttcl("rules", "edit", rule, "--text", "X.", "--expected-version", "1", code=2).stderr
    )
    assert one("edit", rule, "--trigger", "")["trigger"] == ""
    for verb, state in (
        ("retire", "retired"),
        ("restore", "active"),
        ("quarantine", "quarantined"),
        ("release", "active"),
        ("quarantine", "quarantined"),
        ("reject", "retired"),
        ("restore", "active"),
    ):
        assert one(verb, rule)["state"] == state
    other = one("add", "shop", "positive", "Count all the apples two times, then answer.")["id"]
    assert one("merge", rule, other)["frequency"] == 2
    listed = rows(ttcl("rules", "list", "--state", "retired", "--json"))
    assert [each["id"] for each in listed] == [other]
    assert "1 of 2" in ttcl("rules", "list", "--limit", "1").stderr
    events = rows(ttcl("events", "list", "--rule-id", rule, "--limit", "2", "--json"))
    assert [each["kind"] for each in events] == ["rule.merged", "rule.restored"]
    assert events[0]["actor"].startswith("cli")
    assert events[0]["reason"] == "a test"
    shown = ttcl("rules", "show", rule).stdout
    assert "Count every apple twice before you answer." in shown
    assert "rule.quarantined" in shown
    (evidence,) = rows(ttcl("rules", "evidence", rule, "--json"))
    assert evidence["rule_id"] == rule


async def _an_answer() -> None:
    async with opened_store(load_settings()) as store:
        await store.namespaces.ensure("shop")
        await store.episodes.begin(
            "ep_1", namespace="shop", mode="steer", question="Is it paid?", model="m"
        )
        await store.episodes.finish("ep_1", answer="Yes.", trace={})


def test_an_episode_is_found_and_judged(ttcl: Run) -> None:
    asyncio.run(_an_answer())
    (listed,) = rows(ttcl("episodes", "list", "--namespace", "shop", "--json"))
    assert (listed["id"], listed["question"]) == ("ep_1", "Is it paid?")
    given = ("feedback", "give", "--episode", "ep_1", "--score", "0.5", "--key", "ticket-1")
    (feedback,) = rows(ttcl(*given, "--json"))
    assert (feedback["score"], feedback["key"]) == (0.5, "ticket-1")
    lines = json.dumps({"episode_id": "ep_1", "verified": True}) + "\n{}\n"
    (batch,) = rows(ttcl("feedback", "batch", "-", "--json", given=lines))
    assert (batch["taken"], batch["refused"]) == (1, 1)
    (shown,) = rows(ttcl("episodes", "show", "ep_1", "--json"))
    assert len(shown["feedback"]) == 2
    assert "Is it paid?" in ttcl("episodes", "show", "ep_1").stdout


def test_jobs_wait_and_go_on(ttcl: Run) -> None:
    ttcl("namespaces", "create", "shop")
    (paused,) = rows(ttcl("jobs", "pause", "--namespace", "shop", "--json"))
    assert paused["namespaces"] == ["shop"]
    assert rows(ttcl("namespaces", "show", "shop", "--json"))[0]["paused"] is True
    (resumed,) = rows(ttcl("jobs", "resume", "--namespace", "shop", "--json"))
    assert resumed["namespaces"] == []
    assert "0 of 0" in ttcl("jobs", "list", "--state", "failed").stderr
    assert "no job 7" in ttcl("jobs", "retry", "7", code=2).stderr
    assert "namespaces" in ttcl("stats").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rules", "add", "a b", "positive", "x"), "namespace"),
        (("rules", "add", "shop", "maybe", "x"), "positive"),
        (("rules", "add", "shop", "positive", " "), "TEXT"),
        (("rules", "list", "--created-after", "yesterday"), "created_after"),
        (("rules", "list", "--limit", "0"), "limit"),
        (("rules", "list", "--namespace", "nowhere"), "nowhere"),
        (("rules", "merge", "rule_1", "rule_1"), "rules"),
        (("rules", "show", "a/../b"), "a/../b"),
        (("keys", "edit", "key_none", "--tokens-per-day", "many"), "--tokens-per-day"),
        (("episodes", "show", "ep_none"), "ep_none"),
        (("feedback", "give", "--episode", "ep_none", "--label", "x"), "ep_none"),
        (("feedback", "give", "--label", "x"), "episode_id"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_sentence(ttcl: Run, arguments: tuple[str, ...], said: str) -> None:
    done = ttcl(*arguments, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
