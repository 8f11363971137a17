"""Which trajectory is shown, which two are contrasted, and when nothing is learned."""

from __future__ import annotations

import itertools

import pytest

from app.domain.trajectory import Case, Selection, Task, Trajectory
from app.loop.reflect.equivalence import Equivalence
from app.loop.reflect.scoring import Vector
from app.loop.reflect.selection import (
    decided,
    json_expected,
    needs_vectors,
    resolve_task,
    select_closed,
    select_open,
)
from tests.app.loop.group import LOOP, asked, at, group, said

SPREAD = 0.05
PROSE = "A good beginning is to look at the map, then at the weather, and to ask the people there."


def names(selection: Selection) -> tuple[str | None, str | None, str | None]:
    """chosen, y+, y-"""
    three = (selection.chosen, selection.better, selection.worse)
    return tuple(t.name if t else None for t in three)  # type: ignore[return-value]


CLOSED = [
    # all equal: no negative; y+ is the most confident, the client sees the Teacher
    (["7", "7", ("7", -0.1)], Case.UNANIMOUS, ("teacher", "student-2", None)),
    (["0.5", "1/2", r"\frac12"], Case.UNANIMOUS, ("teacher", "teacher", None)),
    # y+ and y- are the most confident inside and outside of the majority
    (
        ["7", ("7", -0.2), "8", ("9", -0.1)],
        Case.MAJORITY,
        ("teacher", "student-1", "student-3"),
    ),
    # the Teacher in the minority is not shown
    (["8", "7", ("7", -0.1)], Case.MAJORITY, ("student-2", "student-2", "teacher")),
    # of equally large groups the lower mean perplexity wins, whatever its best member
    (
        [("7", -0.01), ("8", -0.3), ("7", -2.0), ("8", -0.3)],
        Case.TIE,
        ("student-1", "student-1", "teacher"),
    ),
    (
        [("7", -0.3), ("8", -0.5), ("7", -0.3), ("8", -0.5)],
        Case.TIE,
        ("teacher", "teacher", "student-1"),
    ),
    # all different: the Teacher stands, however unsure it was
    ([("7", -3.0), "8", ("9", -0.1)], Case.SCATTERED, ("teacher", None, None)),
    (["7", "8"], Case.SCATTERED, ("teacher", None, None)),
    (["7"], Case.UNUSABLE, ("teacher", None, None)),
]


@pytest.mark.parametrize(("answers", "case", "expected"), CLOSED)
async def test_closed(
    equivalence: Equivalence,
    answers: list[str | tuple[str, float]],
    case: Case,
    expected: tuple[str | None, ...],
) -> None:
    trajectories = group(*answers)
    for order in itertools.permutations(trajectories):
        selection = await select_closed(asked(), order, equivalence)
        assert (selection.case, names(selection)) == (case, expected)
    assert selection.task is Task.CLOSED
    assert selection.criterion == "perplexity"


async def test_what_is_told_about_each(equivalence: Equivalence) -> None:
    trajectories = [*group("7", "8", "7.0"), said(3, "", failure="timeout"), said(4, PROSE)]
    selection = await select_closed(asked(), trajectories, equivalence)
    judged = {j.name: j for j in selection.judged}
    assert list(judged) == ["teacher", "student-1", "student-2", "student-3", "student-4"]
    assert [j.group for j in judged.values()] == [0, 1, 0, None, None]
    assert [j.better for j in judged.values()] == [True, False, True, None, None]
    assert (judged["student-3"].usable, judged["student-3"].exclusion) == (False, "failed")
    assert judged["teacher"].answer == "7"
    assert not judged["student-4"].usable
    assert selection.agreement == pytest.approx(2 / 3)


async def test_agreement_is_the_share_of_the_largest_group(equivalence: Equivalence) -> None:
    selection = await select_closed(asked(), group("7", "7", "7", "8"), equivalence)
    assert selection.agreement == pytest.approx(0.75)


FAULTY = {
    "failed": said(1, "\\boxed{8}", -0.001, failure="timeout"),
    "truncated": said(1, "\\boxed{8} and", -0.001, finish_reason="length"),
    "empty": said(1, "", -0.001),
    "only thoughts": said(1, "<think>\\boxed{8}", -0.001),
    "degenerate": said(1, LOOP + "\\boxed{8}" + LOOP, -0.001),
}
"""Confident trajectories that may neither vote nor be learned from."""


@pytest.mark.parametrize("fault", FAULTY.values(), ids=FAULTY.keys())
async def test_what_is_faulty_takes_no_part(equivalence: Equivalence, fault: Trajectory) -> None:
    teacher, _, third = group("7", "8", "7")
    fourth = said(3, "\\boxed{8}")
    selection = await select_closed(asked(), [teacher, fault, third, fourth], equivalence)
    assert selection.case is Case.MAJORITY  # with the faulty vote for 8 it would be a tie
    assert names(selection) == ("teacher", "teacher", "student-3")
    (judged,) = (j for j in selection.judged if j.name == "student-1")
    assert (judged.usable, judged.group, judged.better) == (False, None, None)

    vectors = {t.name: at(0) for t in (teacher, fault, third)} | {"student-3": at(80)}
    opened = await select(teacher, fault, third, fourth, vectors=vectors)
    assert opened.better is not fault
    assert opened.worse is not fault


async def select(*trajectories: Trajectory, vectors: dict[str, Vector]) -> Selection:
    return select_open(asked(task=Task.OPEN), trajectories, vectors, minimum_spread=SPREAD)


@pytest.mark.parametrize("fault", FAULTY.values(), ids=FAULTY.keys())
async def test_one_usable_trajectory_teaches_nothing(
    equivalence: Equivalence, fault: Trajectory
) -> None:
    teacher = said(0, "\\boxed{7}")
    selection = await select_closed(asked(), [teacher, fault], equivalence)
    assert (selection.case, names(selection)) == (Case.UNUSABLE, ("teacher", None, None))
    opened = await select(teacher, fault, vectors={"teacher": at(0), "student-1": at(50)})
    assert (opened.case, names(opened)) == (Case.UNUSABLE, ("teacher", None, None))


async def test_a_whole_answer_is_shown_before_a_cut_one(equivalence: Equivalence) -> None:
    cut = said(0, "Well, the", finish_reason="length")
    whole = said(1, "\\boxed{7}")
    selection = await select_closed(asked(), [cut, whole], equivalence)
    assert selection.chosen is whole


async def test_when_all_failed_nothing_is_shown(equivalence: Equivalence) -> None:
    failed = [said(i, "", failure="timeout") for i in range(3)]
    selection = await select_closed(asked(), failed, equivalence)
    assert (selection.case, names(selection)) == (Case.UNUSABLE, (None, None, None))
    opened = await select(*failed, vectors={})
    assert (opened.case, names(opened)) == (Case.UNUSABLE, (None, None, None))
    empty = await select_closed(asked(), [], equivalence)
    assert (empty.case, empty.chosen) == (Case.UNUSABLE, None)


BARE = {"teacher": at(0), "student-1": at(15), "student-2": at(-10), "student-3": at(70)}


async def test_without_log_probabilities_the_medoid_decides(equivalence: Equivalence) -> None:
    trajectories = group(("7", None), ("7", None), ("8", None), ("8", None))
    selection = await select_closed(asked(), trajectories, equivalence, vectors=BARE)
    assert selection.criterion == "medoid"
    assert names(selection) == ("teacher", "student-1", "student-2")
    assert all(j.perplexity is None for j in selection.judged)


async def test_one_missing_value_is_no_infinity(equivalence: Equivalence) -> None:
    trajectories = group(("7", None), ("7", -5.0), ("7", -4.0), ("8", None))
    selection = await select_closed(asked(), trajectories, equivalence, vectors=BARE)
    assert selection.criterion == "medoid"
    assert selection.better is not None
    assert selection.better.name == "student-1"


async def test_without_vectors_too_something_is_chosen(equivalence: Equivalence) -> None:
    trajectories = group(("7", None), ("7", None), ("8", None))
    selection = await select_closed(asked(), trajectories, equivalence)
    assert selection.criterion not in ("perplexity", "medoid")
    assert names(selection) == ("teacher", "teacher", "student-2")


def test_needs_vectors() -> None:
    assert needs_vectors(Task.OPEN, group("7"))
    assert not needs_vectors(Task.CLOSED, group("7", "8"))
    assert needs_vectors(Task.CLOSED, group("7", ("8", None)))
    assert not needs_vectors(Task.CLOSED, [*group("7"), said(1, "", None, failure="timeout")])


async def test_open_contrast() -> None:
    trajectories = [said(i, f"An answer, {i}.", lp) for i, lp in enumerate([-1, -0.5, -2, -3, -1])]
    vectors = {
        "teacher": at(0),
        "student-1": at(5),
        "student-2": at(10),
        "student-3": at(50),
        "student-4": at(70),
    }
    selection = await select(*trajectories, vectors=vectors)
    assert (selection.case, selection.task) == (Case.CONTRASTED, Task.OPEN)
    # upper half and Teacher against the rest; y+ and y- by perplexity
    assert names(selection) == ("teacher", "student-1", "student-4")
    assert [j.better for j in selection.judged] == [True, True, True, False, False]
    assert selection.judged[3].similarity == pytest.approx(0.6428, abs=1e-3)
    assert selection.agreement is None


async def test_open_answers_alike_have_no_worse() -> None:
    trajectories = [said(i, f"An answer, {i}.") for i in range(4)]
    selection = await select(*trajectories, vectors={t.name: at(t.index) for t in trajectories})
    assert selection.case is Case.HOMOGENEOUS
    assert names(selection) == ("teacher", "teacher", None)
    assert False not in [j.better for j in selection.judged]


async def test_open_without_a_usable_teacher() -> None:
    trajectories = [said(0, "", failure="timeout")] + [said(i, f"An answer, {i}.") for i in (1, 2)]
    trajectories.append(said(3, "Another one."))
    vectors = {"student-1": at(0), "student-2": at(10), "student-3": at(80)}
    selection = await select(*trajectories, vectors=vectors)
    assert selection.case is Case.CONTRASTED
    assert selection.chosen is not None
    assert selection.chosen.name in ("student-1", "student-2")
    assert selection.worse is not None
    assert selection.worse.name == "student-3"


async def test_open_without_log_probabilities() -> None:
    trajectories = [said(i, f"An answer, {i}.", None) for i in range(4)]
    selection = await select(*trajectories, vectors=BARE)
    assert selection.criterion == "medoid"
    assert selection.case is Case.CONTRASTED
    assert selection.better is not None
    assert selection.better.name == "student-1"


DECIDED = [
    (["7", "7", "7"], 2, True),
    (["7", "7", "7"], 3, False),
    (["7", "7", "8"], 0, True),
    (["7", "7", "8"], 1, False),
    (["7", "7", "7", "8"], 1, True),
    (["7", "7", "7", "8"], 2, False),
    (["7", "7", "8", "8"], 0, False),
    (["7"], 0, False),
    (["7", "8", "9"], 0, False),
    ([], 5, False),
]


@pytest.mark.parametrize(("answers", "outstanding", "expected"), DECIDED)
async def test_decided(
    equivalence: Equivalence, answers: list[str], outstanding: int, expected: bool
) -> None:
    trajectories = group(*answers)
    assert await decided(asked(), trajectories, outstanding, equivalence) is expected
    assert not await decided(asked(task=Task.OPEN), trajectories, outstanding, equivalence)


@pytest.mark.parametrize("answers", [["7", "7", "7"], ["7", "7", "7", "8"], ["7", "7", "8", "7"]])
async def test_what_is_decided_can_not_be_overturned(
    equivalence: Equivalence, answers: list[str]
) -> None:
    """Whatever the outstanding calls answer, the same answer wins."""
    for outstanding in range(4):
        if not await decided(asked(), group(*answers), outstanding, equivalence):
            continue
        for rest in itertools.product(["7", "8", "9"], repeat=outstanding):
            confident = [(answer, -0.01) for answer in rest]
            selection = await select_closed(asked(), group(*answers, *confident), equivalence)
            assert selection.chosen is not None
            assert "{7}" in selection.chosen.text


async def test_faulty_votes_decide_nothing(equivalence: Equivalence) -> None:
    for fault in FAULTY.values():
        assert not await decided(asked(), [fault, fault, fault], 0, equivalence)


async def test_auto_is_decided_only_once_it_is_surely_closed(equivalence: Equivalence) -> None:
    auto = asked(task=Task.AUTO)
    assert await decided(auto, group("7", "7", "7"), 2, equivalence)
    prose = "There is much to say about it, such as where it began, who was there, and why. " * 2
    mixed = [*group("7", "7"), said(2, prose), said(3, prose), said(4, prose)]
    assert not await decided(auto, mixed, 0, equivalence)


TASKS = [
    (["\\boxed{7}", "\\boxed{8}", PROSE], Task.CLOSED),
    (["\\boxed{7}", PROSE], Task.CLOSED),
    (["\\boxed{7}", PROSE, PROSE], Task.OPEN),
    (["Paris", "Paris", "paris."], Task.CLOSED),
    ([PROSE, PROSE], Task.OPEN),
    (["", ""], Task.OPEN),
    ([], Task.OPEN),
]


@pytest.mark.parametrize(("texts", "task"), TASKS)
def test_resolve_task(texts: list[str], task: Task) -> None:
    trajectories = [said(i, text) for i, text in enumerate(texts)]
    assert resolve_task(asked(task=Task.AUTO), trajectories) is task
    assert resolve_task(asked(task=Task.CLOSED), trajectories) is Task.CLOSED
    assert resolve_task(asked(task=Task.OPEN), trajectories) is Task.OPEN


JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, False),
        ({"response_format": None}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": "json_object"}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": JSON_SCHEMA}, True),
        ({"guided_json": {}}, True),
    ],
)
def test_json_expected(params: dict[str, object], expected: bool) -> None:
    assert json_expected(asked(params=params)) is expected


async def test_json_answers_vote_by_value(equivalence: Equivalence) -> None:
    observation = asked(params={"response_format": {"type": "json_object"}})
    texts = ['{"a": 1, "b": 2}', '{"b":2,"a":1}', '```json\n{"a": 1, "b": 3}\n```']
    trajectories = [said(i, text) for i, text in enumerate(texts)]
    selection = await select_closed(observation, trajectories, equivalence)
    assert selection.case is Case.MAJORITY
    assert names(selection) == ("teacher", "teacher", "student-2")
