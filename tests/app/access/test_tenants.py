"""Turns and slots: one that floods waits for itself alone."""

from __future__ import annotations

import asyncio

import pytest

from app.access.tenants import FairSlots, tenant
from rules_store.policy.turns import Tenant, Turns


def served(turns: Turns, waiting: list[Tenant], count: int) -> list[Tenant]:
    found = []
    for _ in range(count):
        found.append(turns.order(waiting)[0])
        turns.took(found[-1])
    return found


def test_keys_take_turns_and_so_do_the_namespaces_of_each() -> None:
    waiting = [("a", f"ns-{number}") for number in range(5)] + [("b", "ns")]
    assert served(Turns(), waiting, 6) == [
        ("a", "ns-0"),
        ("b", "ns"),
        ("a", "ns-1"),
        ("b", "ns"),
        ("a", "ns-2"),
        ("b", "ns"),
    ]


class Bench:
    """Work that ends when it is told to."""

    def __init__(self, slots: int, share: int) -> None:
        self.slots = FairSlots(slots, share)
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str, key: str) -> None:
        async def work() -> None:
            tenant.set((key, "ns"))
            async with self.slots.slot():
                self.begun.append(name)
                await self.ends[name].wait()

        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(work())
        await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_flood_has_its_share_and_the_next_turn_is_anothers() -> None:
    bench = Bench(slots=2, share=1)
    for number in range(3):
        await bench.start(f"flood-{number}", "flood")
    assert bench.begun == ["flood-0"]
    await bench.start("other", "other")
    assert bench.begun == ["flood-0", "other"]
    await bench.start("third", "third")
    await bench.end("flood-0")
    assert bench.begun[-1] == "third", "who was never served goes first"
    await bench.end("other")
    assert bench.begun[-1] == "flood-1"


@pytest.mark.parametrize("begun", [False, True])
async def test_who_leaves_holds_up_nobody(begun: bool) -> None:
    bench = Bench(slots=1, share=1)
    await bench.start("first", "a")
    await bench.start("second", "b")
    await bench.start("third", "c")
    bench.tasks["first" if begun else "second"].cancel()
    await bench.settle()
    if not begun:
        await bench.end("first")
    assert bench.begun == (["first", "second"] if begun else ["first", "third"])


async def test_a_slot_rests_in_proportion_to_its_work() -> None:
    slots = FairSlots(slots=1, share=1, rest=4.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with slots.slot():
        await asyncio.sleep(0.01)
    worked = loop.time() - began
    async with slots.slot():
        assert loop.time() - began >= 4 * worked
