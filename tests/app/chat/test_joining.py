"""Retries join what is under way, and what nobody waits for ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from app.chat import joining
from app.chat.call import Answer
from app.chat.joining import JoinedRequests, Wanted

ANSWER = Answer(b"{}", {})


class Work:
    """An answer that is given when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.goes = asyncio.Event()
        self.made = asyncio.Event()
        self.finished = 0

    async def __call__(self, wanted: Wanted) -> Answer:
        self.begun += 1
        try:
            await self.goes.wait()
            self.made.set()
            await wanted()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return ANSWER


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def leave(task: asyncio.Task[Answer]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def asking(
    pool: JoinedRequests,
    work: Work,
    name: str = "a",
    owner: str = "k",
    *,
    is_retry: bool = False,
) -> Awaitable[Answer]:
    return asyncio.create_task(pool.answer(name, owner, work, is_retry=is_retry))


@pytest.mark.parametrize("how", ["says so", "comes late"])
async def test_a_retry_is_no_work_of_its_own(how: str) -> None:
    pool, work = JoinedRequests(60), Work()
    first = asking(pool, work)
    await until(lambda: work.begun == 1)
    if how == "comes late":
        pool._under_way[0].started -= joining.AGAIN
    asked = [first, *(asking(pool, work, is_retry=how == "says so") for _ in range(2))]
    await until(lambda: pool._under_way[0].waiting == 3)
    work.goes.set()
    assert await asyncio.gather(*asked) == [ANSWER] * 3
    assert (work.begun, work.finished) == (1, 1)
    assert await asking(pool, work) == ANSWER
    assert work.begun == 2  # what is over is not joined


async def test_two_that_come_together_are_two_requests() -> None:
    pool, work = JoinedRequests(60), Work()
    both = [asking(pool, work), asking(pool, work)]
    await until(lambda: work.begun == 2)
    work.goes.set()
    assert await asyncio.gather(*both) == [ANSWER] * 2
    assert pool._under_way == []


async def test_others_are_work_of_their_own() -> None:
    pool, work = JoinedRequests(60), Work()
    work.goes.set()
    await asyncio.gather(*(asking(pool, work, name, is_retry=True) for name in "ab"))
    assert work.begun == 2


async def test_a_retry_finds_what_its_client_left() -> None:
    pool, work = JoinedRequests(60), Work()
    first = asking(pool, work)
    await until(lambda: work.begun == 1)
    pool._under_way[0].started -= 50
    await leave(first)
    work.goes.set()
    await work.made.wait()
    assert work.finished == 0  # it waits for somebody to take it
    assert await asking(pool, work) == ANSWER
    assert (work.begun, work.finished) == (1, 1)


@pytest.mark.parametrize("longest", [0, 0.01])
async def test_what_nobody_comes_back_for_ends(longest: float) -> None:
    pool, work = JoinedRequests(longest), Work()
    first = asking(pool, work)
    await until(lambda: work.begun == 1)
    await leave(first)
    async with asyncio.timeout(5):
        while not work.cancelled:
            await asyncio.sleep(0.005)
    again = asking(pool, work)
    await until(lambda: work.begun == 2)
    work.goes.set()
    assert await again == ANSWER


async def test_one_that_leaves_takes_nothing_from_the_others() -> None:
    pool, work = JoinedRequests(0), Work()
    first = asking(pool, work)
    await until(lambda: work.begun == 1)
    second = asking(pool, work, is_retry=True)
    await until(lambda: pool._under_way[0].waiting == 2)
    await leave(first)
    work.goes.set()
    assert await second == ANSWER
    assert work.cancelled == 0


@pytest.mark.parametrize(
    ("owners", "kept"),
    [
        (["k"] * 10, joining.MOST_LEFT_OF_ONE),
        ([f"k{number}" for number in range(30)], joining.MOST_LEFT),
    ],
)
async def test_few_go_on_for_nobody(owners: list[str], kept: int) -> None:
    pool, works = JoinedRequests(60), [Work() for _ in owners]
    asked = [
        asking(pool, work, f"r{number}", owner)
        for number, (work, owner) in enumerate(zip(works, owners, strict=True))
    ]
    await until(lambda: all(work.begun for work in works))
    for work in pool._under_way:
        work.started -= 50
    for task in asked:
        await leave(task)
    await until(lambda: sum(work.cancelled for work in works) == len(owners) - kept)
    await pool.close()
    assert all(work.cancelled == 1 for work in works)


async def test_a_failure_is_everybodys() -> None:
    pool = JoinedRequests(60)
    goes = asyncio.Event()

    async def fails(wanted: Wanted) -> Answer:
        await goes.wait()
        raise ValueError("no")

    asked = [asyncio.create_task(pool.answer("a", "k", fails, is_retry=True)) for _ in range(2)]
    await until(lambda: len(pool._under_way) == 1 and pool._under_way[0].waiting == 2)
    goes.set()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in told] == [ValueError] * 2
