"""Which answers mean the same. Strict: nothing is equal because it is close."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from app.access.tenants import tenant
from app.loop.reflect.equivalence import ComparisonUnfinished, Equivalence

SAME = [
    ("0.5", "1/2"),
    ("0.5", r"\frac12"),
    ("1/2", r"\frac{1}{2}"),
    (r"\dfrac{1}{2}", "2/4"),
    ("½", "0.5"),
    ("2 1/2", "2.5"),
    ("1,234", "1234"),
    (r"1{,}234", "1234"),
    ("18", "18.0"),
    ("$18", "18 dollars"),
    ("18", "18 eggs"),
    ("18", r"18\text{ eggs}"),
    ("50%", "50 percent"),
    (r"50\%", "50"),
    ("90°", r"90^\circ"),
    ("5 km", "5 kilometers"),
    ("-3", "\N{MINUS SIGN}3"),
    ("x = 5", "5"),
    ("1.2e3", r"1.2 \times 10^3"),
    ("x+1", "1+x"),
    ("(x+1)^2", "x^2+2x+1"),
    ("2*x", "2x"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("sqrt(3)/3", r"\frac{1}{\sqrt{3}}"),
    (r"\pi/2", r"\frac{\pi}{2}"),
    ("(1, 2)", r"\left(1,2\right)"),
    ("(1/2, 3)", "(0.5, 3)"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("[0,1)", "[0, 1)"),
    ("Tuesday", "tuesday."),
    ("The Eiffel Tower", "eiffel tower"),
    (r"\text{Blue}", "blue"),
    ("B", "(B)"),
    ("b", "B."),
]

DIFFERENT = [
    ("205", "204"),
    ("0.333", "1/3"),
    ("0.33333333", "1/3"),
    ("3.14", r"\pi"),
    ("3.14159", r"\pi"),
    ("1000000", "1000001"),
    ("5", "-5"),
    ("100", "101"),
    ("5 km", "5 m"),
    ("5 dollars", "5 euros"),
    ("0.5", "50%"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("[0,1]", "(0,1)"),
    ("[0,1)", "(0,1]"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("x+1", "x-1"),
    ("x^2", "2x"),
    ("2x", "2y"),
    ("10^{-16}", "10^{-17}"),
    ("Tuesday", "Thursday"),
    ("yes", "no"),
    ("A", "B"),
    ("Tuesday", "2"),
    ("101_2", "101"),
    ("5", "5i"),
]


async def test_same(equivalence: Equivalence) -> None:
    wrong = [pair for pair in SAME if not await equivalence.equivalent(*pair)]
    wrong += [(b, a) for a, b in SAME if not await equivalence.equivalent(b, a)]
    assert wrong == []


async def test_different(equivalence: Equivalence) -> None:
    wrong = [pair for pair in DIFFERENT if await equivalence.equivalent(*pair)]
    wrong += [(b, a) for a, b in DIFFERENT if await equivalence.equivalent(b, a)]
    assert wrong == []


async def test_groups_do_not_depend_on_the_order(equivalence: Equivalence) -> None:
    answers = ["1/2", "x+1", "0.5", "1+x", r"\frac12", "no"]
    expected = {"1/2": 0, "0.5": 0, r"\frac12": 0, "x+1": 1, "1+x": 1, "no": 2}
    for order in itertools.islice(itertools.permutations(answers), 0, 720, 41):
        groups = await equivalence.groups(order)
        assert dict(zip(order, groups, strict=True)) == expected


async def test_equally_large_groups_are_numbered_alike_in_any_order(
    equivalence: Equivalence,
) -> None:
    numbering = set()
    for order in itertools.permutations(["7", "8", "7", "8", "9"]):
        groups = await equivalence.groups(order)
        numbering.add(frozenset(zip(order, groups, strict=True)))
    assert len(numbering) == 1


async def test_no_answers_make_no_groups(equivalence: Equivalence) -> None:
    assert await equivalence.groups([]) == ()


HOSTILE = ["9^{9^{9^9}}", "factorial(10^9)", r"\sum_{n=1}^{10^{12}} \sin(n^n)", "((" * 150]


async def test_a_hostile_formula_ends_and_the_next_comparison_works() -> None:
    equivalence = Equivalence(pair_seconds=0.5, total_seconds=1.5)
    try:
        assert await equivalence.equivalent("x+1", "1+x")  # the worker's start is not measured
        before = time.monotonic()
        with pytest.raises(ComparisonUnfinished):
            await equivalence.equivalent(HOSTILE[0], "9^{9^{9^8}}")
        assert time.monotonic() - before < 12
        assert await equivalence.equivalent("x+2", "2+x")
    finally:
        await equivalence.close()


async def test_a_hostile_group_costs_little_more_than_its_limit() -> None:
    equivalence = Equivalence(pair_seconds=0.3, total_seconds=30.0)
    try:
        before = time.monotonic()
        groups = await equivalence.groups([*HOSTILE, "7", "7.0"])
        assert time.monotonic() - before < 12
        assert groups[-1] == groups[-2] == 0
        assert len(set(groups)) == len(HOSTILE) + 1
    finally:
        await equivalence.close()


async def test_what_there_was_no_time_for_is_no_difference() -> None:
    equivalence = Equivalence(total_seconds=0.0)
    try:
        with pytest.raises(ComparisonUnfinished):
            await equivalence.equivalent("x+3", "3+x")
        with pytest.raises(ComparisonUnfinished):
            await equivalence.groups(["x+3", "3+x", "7"])
        assert await equivalence.groups(["7", "7.0", "8"]) == (0, 0, 1)
    finally:
        await equivalence.close()


async def test_the_formulas_of_one_tenant_hold_up_no_other() -> None:
    equivalence = Equivalence(pair_seconds=0.5)

    async def flood(number: int) -> None:
        tenant.set(("flood", f"ns-{number}"))  # many names make no more turns
        with pytest.raises(ComparisonUnfinished):
            await equivalence.equivalent(f"9^{{9^{{9^{{{9 - number}}}}}}}", "x+1")

    async def other() -> bool:
        tenant.set(("other", "ns"))
        return await equivalence.equivalent("x+3", "3+x")

    try:
        tenant.set(("flood", ""))
        assert await equivalence.equivalent("x+1", "1+x")
        flooding = [asyncio.create_task(flood(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert await asyncio.create_task(other())
        assert not all(each.done() for each in flooding)
        await asyncio.gather(*flooding)
    finally:
        await equivalence.close()


@pytest.mark.parametrize(
    ("answer", "readable"),
    [
        ("18", True),
        ("Tuesday", True),
        (r"\frac{x}{2}", True),
        (r"\sqrt{2}+\pi", True),
        (r"\frac{1}{", False),
    ],
)
async def test_readable(equivalence: Equivalence, answer: str, readable: bool) -> None:
    assert await equivalence.readable(answer) is readable


async def test_after_close_nothing_runs_and_a_new_comparison_starts_again() -> None:
    equivalence = Equivalence()
    assert await equivalence.equivalent("x+1", "1+x")
    await equivalence.close()
    await equivalence.close()
    assert await equivalence.equivalent("y+1", "1+y")
    await equivalence.close()


async def test_plain_answers_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(asyncio, "create_subprocess_exec", started.append)
    groups = await Equivalence().groups(["18", "$18.00", "Tuesday", "19", "tuesday"])
    assert groups == (0, 0, 1, 2, 1) or groups == (1, 1, 0, 2, 0)
    assert not started
