"""Explore: who starts when, with what, and what happens when a call fails, hangs or is too late."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from app.domain.trajectory import Cost, Observation, Role, Task, Trajectory
from app.exceptions import UpstreamError, UpstreamRejected, UpstreamTimeout
from app.loop.effort import Effort
from app.loop.explore.exploration import ExplorerOptions, ExplorerResult
from app.loop.explore.explorer import Explorer
from app.loop.explore.roles import derived_seed, seed_of
from app.loop.steer.writer import Insertion
from app.prompt_library import PromptLibrary
from tests.app.loop.backend import Backend

QUESTION = "How many of the 12 apples are left when 5 are eaten?"
WORDINGS = [
    "When 5 of the 12 apples are eaten, how many are left?",
    "Of the 12 apples 5 are eaten: how many are left?",
    "There are 12 apples and 5 are eaten; how many are left?",
]
BLOCK = "<advice>\n- Count twice.\n</advice>"
FORM = "boxed"


def observation(**more: Any) -> Observation:
    given = {
        "messages": ({"role": "user", "content": QUESTION},),
        "question": QUESTION,
        "task": Task.CLOSED,
        "seed": 7,
        **more,
    }
    return Observation(episode_id="ep_1", namespace="default", model="m", **given)


SINGLE = observation()
TURNS = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello to you."},
    {"role": "user", "content": QUESTION},
)
MULTI = observation(messages=TURNS)


@pytest.fixture(scope="module")
def prompts() -> PromptLibrary:
    return PromptLibrary.bundled()


def options(**more: Any) -> ExplorerOptions:
    given = {
        "students": 4,
        "temperature": 0.7,
        "top_p": 0.9,
        "timeout": 5.0,
        "concurrency": 8,
        "max_tokens": 300,
        **more,
    }
    return ExplorerOptions(**given)


def scripted(seen: Observation = SINGLE) -> Backend:
    backend = Backend(seen)
    backend.variants = {"variants": WORDINGS}
    return backend


async def explored(
    backend: Backend,
    prompts: PromptLibrary,
    seen: Observation = SINGLE,
    *,
    block: str = "",
    background: bool = False,
    decided: Any = None,
    **more: Any,
) -> ExplorerResult:
    explorer = Explorer(backend, prompts, options(**more))
    insertion = Insertion(block)
    return await explorer.explore(seen, insertion, background=background, decided=decided)


# -- who starts when ----------------------------------------------------------------------------


async def test_teacher_tutor_and_first_student_start_together(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.hold("teacher", "tutor", "student-1")
    task = asyncio.create_task(explored(backend, prompts))
    await backend.until_sent("teacher", "tutor", "student-1")
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(backend.names) == ["student-1", "teacher", "tutor"]
    # The variants are enough for the others: neither Teacher nor Student 1 is waited for.
    backend.release("tutor")
    await backend.until_sent("student-2", "student-3", "student-4")
    backend.release("teacher")
    backend.release("student-1")
    result = await task
    assert [t.name for t in result.trajectories] == [
        "teacher",
        "student-1",
        "student-2",
        "student-3",
        "student-4",
    ]
    assert result.problems == ()
    assert result.cost == Cost(6, 60, 30)


async def test_the_variants_go_to_the_other_students(prompts: PromptLibrary) -> None:
    backend = scripted()
    result = await explored(backend, prompts)
    assert [t.variant for t in result.trajectories] == [QUESTION, QUESTION, *WORDINGS]
    for index, wording in enumerate(WORDINGS, start=2):
        last = backend.call(f"student-{index}").messages[-1]
        assert last == {"role": "user", "content": wording}
    for name in ("teacher", "student-1"):
        assert backend.call(name).messages[-1] == {"role": "user", "content": QUESTION}


async def test_a_single_student_needs_no_tutor(prompts: PromptLibrary) -> None:
    backend = scripted()
    result = await explored(backend, prompts, students=1)
    assert sorted(backend.names) == ["student-1", "teacher"]
    assert result.problems == ()


async def test_a_question_too_long_to_restate_is_answered_as_it_is(prompts: PromptLibrary) -> None:
    long = "word " * 1000 + "?"
    seen = observation(question=long, messages=({"role": "user", "content": long},))
    backend = scripted(seen)
    result = await explored(backend, prompts, seen)
    assert "tutor" not in backend.names
    assert {t.variant for t in result.trajectories} == {long}
    assert result.problems == ()


async def test_never_more_calls_at_once_than_allowed(prompts: PromptLibrary) -> None:
    backend = scripted()
    result = await explored(backend, prompts, concurrency=2)
    assert backend.most_open == 2
    assert len(result.trajectories) == 5


# -- seeds --------------------------------------------------------------------------------------


async def test_seeds_repeat_with_the_request_and_differ_within_it(prompts: PromptLibrary) -> None:
    first, second = scripted(), scripted()
    await explored(first, prompts)
    await explored(second, prompts)
    seeds = {sent.name: sent.params["seed"] for sent in first.sent}
    assert seeds == {sent.name: sent.params["seed"] for sent in second.sent}
    assert len(set(seeds.values())) == len(seeds) == 6
    other = scripted(observation(seed=8))
    await explored(other, prompts, observation(seed=8))
    assert not set(seeds.values()) & {sent.params["seed"] for sent in other.sent}


def test_the_seed_of_a_request_is_the_clients_or_follows_from_what_it_says() -> None:
    said = [{"role": "user", "content": "a"}]
    assert seed_of("m", said, 42) == 42
    assert seed_of("m", said) == seed_of("m", [dict(said[0])])
    assert seed_of("m", said) != seed_of("n", said)
    assert seed_of("m", said) != seed_of("m", [{"role": "user", "content": "b"}])
    for given in (-1, 2**40, None):
        assert 0 <= seed_of("m", said, given) < 2**31
    derived = {derived_seed(1, Role.STUDENT, n) for n in range(100)}
    assert len(derived) == 100
    assert all(0 <= seed < 2**31 for seed in derived)


# -- early stop ---------------------------------------------------------------------------------


async def test_an_outcome_that_is_decided_cancels_the_rest(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.hold("student-3", "student-4")
    asked: list[tuple[list[str], int]] = []

    async def decided(back: Sequence[Trajectory], outstanding: int) -> bool:
        asked.append((sorted(t.name for t in back), outstanding))
        await backend.until_sent("student-3", "student-4")
        return len(back) == 3

    result = await explored(backend, prompts, decided=decided)
    assert asked[-1] == (["student-1", "student-2", "teacher"], 2)
    failures = {t.name: t.failure for t in result.trajectories}
    assert failures == {
        "teacher": None,
        "student-1": None,
        "student-2": None,
        "student-3": "cancelled",
        "student-4": "cancelled",
    }
    assert backend.outcomes()["student-3"] == backend.outcomes()["student-4"] == "cancelled"
    assert result.cost.calls == 6
    assert result.problems == ()


async def test_a_tutor_that_is_no_longer_needed_is_cancelled(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.hold("tutor")

    async def decided(back: Sequence[Trajectory], outstanding: int) -> bool:
        return len(back) == 2

    result = await explored(backend, prompts, decided=decided)
    assert backend.outcomes()["tutor"] == "cancelled"
    assert [t.name for t in result.trajectories] == ["teacher", "student-1"]


async def test_without_early_stop_every_call_is_waited_for(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.hold("student-4")
    task = asyncio.create_task(explored(backend, prompts, decided=None))
    await backend.until_sent("student-4")
    for _ in range(50):
        await asyncio.sleep(0)
    assert not task.done()
    backend.release("student-4")
    assert set(backend.outcomes().values()) <= {"answered", "open"}
    result = await task
    assert {t.failure for t in result.trajectories} == {None}
    assert set(backend.outcomes().values()) == {"answered"}


# -- effort -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tutor", [True, False])
async def test_a_patient_exploration_asks_one_student_after_the_other(
    prompts: PromptLibrary, tutor: bool
) -> None:
    backend = scripted()
    asked: list[tuple[list[str], int]] = []

    async def enough(back: Sequence[Trajectory], outstanding: int) -> bool:
        asked.append((sorted(t.name for t in back), outstanding))
        return len(back) == 4

    explorer = Explorer(backend, prompts, options())
    effort = Effort(True, patient=True, tutor=tutor)
    result = await explorer.explore(
        SINGLE, Insertion(), background=True, effort=effort, enough=enough
    )
    first = ["student-1", "teacher"]
    assert asked == [
        (first, 3),
        (["student-1", "student-2", "teacher"], 2),
        (["student-1", "student-2", "student-3", "teacher"], 1),
    ]
    assert [t.name for t in result.trajectories][-1] == "student-3"
    assert ("tutor" in backend.names) is tutor
    variant = WORDINGS[0] if tutor else QUESTION
    assert result.trajectories[2].variant == variant
    assert result.cost.calls == 4 + tutor


async def test_a_patient_exploration_ends_with_the_last_student(prompts: PromptLibrary) -> None:
    async def enough(back: Sequence[Trajectory], outstanding: int) -> bool:
        return False

    explorer = Explorer(scripted(), prompts, options())
    effort = Effort(True, patient=True)
    result = await explorer.explore(
        SINGLE, Insertion(), background=True, effort=effort, enough=enough
    )
    assert len(result.trajectories) == 5


# -- what fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variants", "problem", "good"),
    [
        (UpstreamError("the model server answered 500"), "tutor_failed", []),
        (None, "tutor_failed", []),
        ({"variants": []}, "tutor_gave_too_few", []),
        ({"variants": ["It is 13 apples?"]}, "tutor_gave_too_few", []),
        ({"variants": WORDINGS[:2]}, "tutor_gave_too_few", WORDINGS[:2]),
    ],
)
async def test_students_without_a_variant_take_the_original_wording(
    prompts: PromptLibrary, variants: Any, problem: str, good: list[str]
) -> None:
    backend = scripted()
    backend.variants = variants
    result = await explored(backend, prompts)
    assert result.problems == (problem,)
    wanted = [QUESTION, QUESTION, *good, *[QUESTION] * (3 - len(good))]
    assert [t.variant for t in result.trajectories] == wanted
    assert {t.failure for t in result.trajectories} == {None}
    assert result.cost.calls == 6


async def test_a_failed_student_is_a_trajectory_with_its_reason(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.script["student-2"] = UpstreamTimeout("the model server did not answer in time")
    result = await explored(backend, prompts)
    failed = result.trajectories[2]
    assert (failed.name, failed.text) == ("student-2", "")
    assert failed.failure == "the model server did not answer in time"
    assert result.cost.calls == 6


async def test_a_refused_teacher_is_raised_and_the_rest_is_cancelled(
    prompts: PromptLibrary,
) -> None:
    backend = scripted()
    backend.hold("tutor", "student-1")
    backend.script["teacher"] = UpstreamRejected("max_tokens is wrong", status=400)
    with pytest.raises(UpstreamRejected, match="max_tokens is wrong"):
        await explored(backend, prompts)
    assert backend.outcomes() == {
        "teacher": "failed",
        "tutor": "cancelled",
        "student-1": "cancelled",
    }


async def test_a_failed_teacher_is_made_up_for_by_students(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.script["teacher"] = UpstreamError("the model server answered 500")
    result = await explored(backend, prompts)
    assert result.problems == ("teacher_failed",)
    assert result.trajectories[0].failure == "the model server answered 500"


async def test_when_nothing_came_back_the_teachers_error_is_raised(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.script["teacher"] = UpstreamTimeout("the Teacher's")
    for n in range(1, 5):
        backend.script[f"student-{n}"] = UpstreamError("a Student's")
    with pytest.raises(UpstreamTimeout, match="the Teacher's"):
        await explored(backend, prompts)


async def test_what_is_not_back_in_time_is_left_out(prompts: PromptLibrary) -> None:
    backend = scripted()
    backend.hold("student-1", "student-4")
    result = await explored(backend, prompts, timeout=0.1)
    assert result.problems == ("explore_timeout",)
    failed = {t.name for t in result.trajectories if t.failure == "cancelled"}
    assert failed == {"student-1", "student-4"}
    assert backend.outcomes()["student-1"] == backend.outcomes()["student-4"] == "cancelled"


async def test_an_answer_that_came_while_the_others_were_judged_is_kept(
    prompts: PromptLibrary,
) -> None:
    backend = scripted()

    async def slow(back: Sequence[Trajectory], outstanding: int) -> bool:
        await asyncio.Event().wait()
        return False

    result = await explored(backend, prompts, decided=slow, students=1, timeout=0.1)
    assert result.problems == ("explore_timeout",)
    assert {t.failure for t in result.trajectories} == {None}


@pytest.mark.parametrize("held", [("teacher", "tutor", "student-1"), ("student-2", "student-4")])
async def test_cancelling_cancels_every_open_call(
    prompts: PromptLibrary, held: tuple[str, ...]
) -> None:
    backend = scripted()
    backend.hold(*held)
    task = asyncio.create_task(explored(backend, prompts))
    await backend.until_sent(*held)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcomes = backend.outcomes()
    assert {outcomes[name] for name in held} == {"cancelled"}
    assert "open" not in outcomes.values()


# -- what is sent -------------------------------------------------------------------------------


async def test_teacher_is_greedy_and_students_sample(prompts: PromptLibrary) -> None:
    backend = scripted()
    await explored(backend, prompts)
    teacher = backend.call("teacher").params
    assert (teacher["temperature"], teacher.get("top_p")) == (0, None)
    for n in range(1, 5):
        params = backend.call(f"student-{n}").params
        assert (params["temperature"], params["top_p"]) == (0.7, 0.9)
    assert all(sent.logprobs for sent in backend.sent if sent.name != "tutor")


async def test_the_clients_sampling_is_the_teachers_but_not_the_students(
    prompts: PromptLibrary,
) -> None:
    seen = observation(params={"temperature": 1.3, "top_p": 0.5, "seed": 99}, seed=99)
    backend = scripted(seen)
    await explored(backend, prompts, seen)
    teacher = backend.call("teacher").params
    assert (teacher["temperature"], teacher["top_p"], teacher["seed"]) == (1.3, 0.5, 99)
    student = backend.call("student-1").params
    assert (student["temperature"], student["top_p"]) == (0.7, 0.9)


async def test_the_clients_limits_and_format_reach_every_sample(prompts: PromptLibrary) -> None:
    fields = {
        "max_tokens": 77,
        "stop": ["END"],
        "response_format": {"type": "json_object"},
        "top_k": 3,
        "user": "u",
    }
    seen = observation(params=fields)
    backend = scripted(seen)
    await explored(backend, prompts, seen)
    samples = [sent for sent in backend.sent if sent.name != "tutor"]
    assert len(samples) == 5
    for sent in samples:
        assert {name: sent.params[name] for name in fields} == fields
        # What the client prescribed is not gainsaid by the loop's own form of an answer.
        assert FORM not in sent.text
    assert set(backend.call("tutor").params) == {"temperature", "seed", "max_tokens"}


@pytest.mark.parametrize("field", ["stream", "stream_options", "n", "ttcl", "model", "messages"])
async def test_what_is_not_the_loops_is_not_sent(prompts: PromptLibrary, field: str) -> None:
    seen = observation(params={field: "something"})
    backend = scripted(seen)
    await explored(backend, prompts, seen)
    assert not [sent.name for sent in backend.sent if field in sent.params]


async def test_samples_are_capped_where_the_client_set_no_limit(prompts: PromptLibrary) -> None:
    backend = scripted()
    await explored(backend, prompts)
    # The visible answer is never made shorter than the client asked for.
    assert "max_tokens" not in backend.call("teacher").params
    assert backend.call("student-1").params["max_tokens"] == 300
    hidden = scripted()
    await explored(hidden, prompts, background=True)
    assert hidden.call("teacher").params["max_tokens"] == 300


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_cap_gives_way_to_the_clients_limit(prompts: PromptLibrary, field: str) -> None:
    seen = observation(params={field: 5000})
    backend = scripted(seen)
    await explored(backend, prompts, seen, background=True)
    for name in ("teacher", "student-1"):
        params = backend.call(name).params
        limits = {k: v for k, v in params.items() if k.startswith("max_")}
        assert limits == {field: 5000}


@pytest.mark.parametrize("background", [True, False])
async def test_every_call_says_whether_a_client_waits(
    prompts: PromptLibrary, background: bool
) -> None:
    backend = scripted()
    await explored(backend, prompts, background=background)
    assert {sent.background for sent in backend.sent} == {background}


@pytest.mark.parametrize("format", [None, {"type": "text"}])
async def test_the_form_of_the_answer_ends_the_system_message(
    prompts: PromptLibrary, format: Any
) -> None:
    messages = ({"role": "system", "content": "Be kind."}, SINGLE.messages[0])
    seen = observation(messages=messages, params={"response_format": format} if format else {})
    backend = scripted(seen)
    await explored(backend, prompts, seen)
    for name in ("teacher", "student-1", "student-2"):
        system, user = backend.call(name).messages
        assert system["content"].startswith("Be kind.\n\n")
        assert FORM in system["content"]
        assert FORM not in user["content"]
    assert messages[0] == {"role": "system", "content": "Be kind."}


async def test_an_open_task_is_not_asked_for_a_box(prompts: PromptLibrary) -> None:
    seen = observation(task=Task.OPEN)
    backend = scripted(seen)
    await explored(backend, prompts, seen)
    assert FORM not in backend.call("teacher").text


async def test_the_rules_reach_teacher_and_students_but_not_the_tutor(
    prompts: PromptLibrary,
) -> None:
    backend = scripted()
    await explored(backend, prompts, block=BLOCK)
    for sent in backend.sent:
        if sent.name == "tutor":
            assert BLOCK not in sent.text
        else:
            assert sent.messages[0]["role"] == "system"
            assert sent.messages[0]["content"].endswith(BLOCK)


async def test_in_several_turns_every_wording_keeps_the_block_in_front(
    prompts: PromptLibrary,
) -> None:
    backend = scripted(MULTI)
    result = await explored(backend, prompts, MULTI, block=BLOCK)
    wordings = {t.name: t.variant for t in result.trajectories}
    assert set(wordings.values()) == {QUESTION, *WORDINGS}
    prefixes = set()
    for sent in backend.sent:
        if sent.name == "tutor":
            continue
        assert sent.messages[-1]["content"] == f"{BLOCK}\n\n{wordings[sent.name]}"
        prefixes.add(str(sent.messages[:-1]))
    # One prefix for all, so that the server's prefix cache is hit.
    assert len(prefixes) == 1


async def test_content_parts_keep_the_block_too(prompts: PromptLibrary) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": QUESTION}]}
    seen = observation(messages=(*TURNS[:-1], parts))
    backend = scripted(seen)
    await explored(backend, prompts, seen, block=BLOCK)
    for sent in backend.sent:
        if sent.name != "tutor":
            assert BLOCK.splitlines()[1] in str(sent.messages[-1]["content"]), sent.name
    assert WORDINGS[0] in str(backend.call("student-2").messages[-1]["content"])


async def test_the_observation_is_not_changed(prompts: PromptLibrary) -> None:
    before = dataclasses.replace(MULTI, messages=tuple(dict(m) for m in MULTI.messages))
    await explored(scripted(MULTI), prompts, MULTI, block=BLOCK)
    assert before == MULTI
