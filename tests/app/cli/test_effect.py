"""`ttcl effect` as people and scripts run it."""

from __future__ import annotations

import asyncio

from app.settings import load_settings
from app.wiring.factories import opened_store
from rules_store.store import RuleStore
from tests.app.cli.test_namespaces import told
from tests.app.cli.test_rules import Run, embeddings, new_database, ttcl
from tests.rules_store.operations.test_effect import many

__all__ = ["embeddings", "new_database", "ttcl"]


def arrange(steered: float, control: float) -> None:
    """A namespace whose answers were judged in both arms."""

    async def write() -> None:
        async with opened_store(load_settings()) as store:
            await _answered(store, steered, control)

    asyncio.run(write())


async def _answered(store: RuleStore, steered: float, control: float) -> None:
    await store.namespaces.ensure("default")
    await many(store, 40, control=control, steered=steered)


def test_a_verdict_and_its_cost(ttcl: Run) -> None:
    ttcl("namespaces", "create", "empty")
    arrange(steered=1.0, control=0.0)
    lines = ttcl("effect").stdout.splitlines()
    assert lines[0].startswith("default: Steering helps: +100.0 points of answers by label (")
    assert "begins after 100 requests" in lines[1]
    (shown,) = told(ttcl("effect", "show", "default", "--json").stdout)
    assert (shown["verdict"], shown["signals"][0]["conversations"]) == ("helps", 40)
    text = ttcl("effect", "show", "default").stdout
    assert "helps" in text
    assert "about 800 tokens in 20 prompts" in text
    (spent,) = told(ttcl("effect", "spending", "default", "--json").stdout)
    assert spent["total"]["steering"] == {"requests": 20, "tokens": 800}
    assert "in all" in ttcl("effect", "spending", "default").stdout
    assert "nowhere" in ttcl("effect", "show", "nowhere", code=2).stderr


def test_a_suspended_namespace_is_resumed(ttcl: Run) -> None:
    arrange(steered=0.0, control=1.0)
    assert "default: Suspended since" in ttcl("effect").stdout
    done = ttcl("effect", "resume", "default", "--reason", "the rules are mended")
    assert "steered again" in done.stderr
    assert "not suspended" in ttcl("effect", "resume", "default").stderr


def test_settings_of_the_control_group(ttcl: Run) -> None:
    ttcl("namespaces", "create", "maths", "control_rate=0.25", "guard=false", "guard_margin=0.05")
    (shown,) = told(ttcl("effect", "show", "maths", "--json").stdout)
    assert (shown["control_rate"], shown["share"]) == (0.25, 0.25)
    ttcl("namespaces", "set", "maths", "control_rate=auto", "resume_after=12")
    (shown,) = told(ttcl("effect", "show", "maths", "--json").stdout)
    assert (shown["control_rate"], shown["share"]) == ("auto", 0.0)
    for wrong in ("control_rate=1.5", "control_rate=often", "control_rate=nan", "resume_after=0"):
        name = wrong.partition("=")[0]
        assert name in ttcl("namespaces", "set", "maths", wrong, code=2).stderr
