"""The loop against a scripted backend: selection, early stop, fallbacks, distillation."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.trajectory import Case, Observation, Task
from app.exceptions import UpstreamError, UpstreamRejected
from app.loop.explore.exploration import ExplorerOptions
from app.loop.loop import DISTILLER_TOKENS, Exploration, Loop, LoopOptions
from app.loop.reflect.equivalence import Equivalence
from app.prompt_library import PromptLibrary
from app.upstream.embeddings import EmbeddingFailed
from rules_store.models.rules import Polarity, RuleHit
from tests.app.loop.backend import Backend, completion
from tests.fakes import HashEmbedder

QUESTION = "How many of the 12 apples are left when 5 are eaten?"
RULE = "Count what is taken away first."
SEVEN, SEVENTEEN = "Take 5 away: \\boxed{7}.", "Add up: \\boxed{17}."
CLOSED = Observation(
    episode_id="ep_1",
    namespace="default",
    model="m",
    messages=({"role": "user", "content": QUESTION},),
    question=QUESTION,
    task=Task.CLOSED,
    hits=(RuleHit("r1", Polarity.POSITIVE, RULE, "", 0.9),),
    seed=7,
)
OPEN = dataclasses.replace(CLOSED, task=Task.OPEN)
POSITIVE = "Check every subtraction by adding the parts back together."
NEGATIVE = "Avoid stating a total before all of the parts have been counted."


@pytest.fixture
async def equivalence() -> AsyncIterator[Equivalence]:
    made = Equivalence()
    yield made
    await made.close()


@pytest.fixture
def backend() -> Backend:
    made = Backend(CLOSED)
    made.variants = {
        "variants": [
            "When 5 of the 12 apples are eaten, how many are left?",
            "Of the 12 apples 5 are eaten: how many are left?",
            "There are 12 apples and 5 are eaten; how many are left?",
        ]
    }
    return made


def loop_of(
    backend: Backend,
    equivalence: Any,
    embedder: HashEmbedder | None = None,
    *,
    stops_early: bool = False,
    **more: Any,
) -> Loop:
    explorer = ExplorerOptions(
        **{
            "students": 4,
            "temperature": 0.7,
            "top_p": 0.9,
            "timeout": 5.0,
            "concurrency": 8,
            "max_tokens": 300,
            **more,
        }
    )
    return Loop(
        backend,
        embedder or HashEmbedder(),
        equivalence,
        PromptLibrary.bundled(),
        LoopOptions(explorer, stops_early=stops_early, open_spread=0.05),
    )


def say(backend: Backend, **texts: Any) -> None:
    backend.script.update({name.replace("_", "-"): text for name, text in texts.items()})


async def test_a_majority_overrules_the_teacher(backend: Backend, equivalence: Equivalence) -> None:
    say(backend, teacher=SEVENTEEN, student_4=SEVENTEEN)
    backend.default = SEVEN
    outcome = await loop_of(backend, equivalence).explore(CLOSED)
    selection = outcome.selection
    assert (selection.case, selection.task, selection.agreement) == (
        Case.MAJORITY,
        Task.CLOSED,
        0.6,
    )
    assert selection.chosen is not None
    assert selection.chosen.text == SEVEN
    assert selection.worse is not None
    assert selection.worse.text == SEVENTEEN
    assert outcome.problems == ()
    assert RULE in backend.call("teacher").text
    assert RULE in backend.call("student-2").text


@pytest.mark.parametrize("stops_early", [True, False])
async def test_early_stop_cancels_only_when_it_is_on(
    backend: Backend, equivalence: Equivalence, stops_early: bool
) -> None:
    backend.default = SEVEN
    # Four of five agree while one is out: nothing can overturn them.
    backend.hold("student-4")
    loop = loop_of(backend, equivalence, stops_early=stops_early, timeout=0.5)
    outcome = await loop.explore(CLOSED)
    last = outcome.trajectories[-1]
    assert last.failure == "cancelled"
    # Without early stop only the end of the time cut it.
    assert ("explore_timeout" in outcome.problems) is not stops_early
    assert outcome.selection.case is Case.UNANIMOUS


async def test_early_stop_waits_while_the_outcome_is_open(
    backend: Backend, equivalence: Equivalence
) -> None:
    say(backend, teacher=SEVENTEEN, student_1=SEVENTEEN)
    backend.default = SEVEN
    outcome = await loop_of(backend, equivalence, stops_early=True).explore(CLOSED)
    assert {t.failure for t in outcome.trajectories} == {None}
    assert outcome.selection.chosen is not None
    assert outcome.selection.chosen.text == SEVEN


async def test_all_different_learns_nothing_and_the_teacher_stands(
    backend: Backend, equivalence: Equivalence
) -> None:
    backend.default = "\\boxed{1}"
    say(backend, **{f"student_{n}": f"It is \\boxed{{{n + 10}}}." for n in range(1, 5)})
    selection = (await loop_of(backend, equivalence).explore(CLOSED)).selection
    assert selection.case is Case.SCATTERED
    assert selection.better is selection.worse is None
    assert selection.chosen is not None
    assert selection.chosen.name == "teacher"


async def test_a_selection_that_breaks_falls_back_to_the_teacher(backend: Backend) -> None:
    class Broken:
        async def groups(self, answers: Any) -> Any:
            raise RuntimeError("broken")

    backend.default = SEVEN
    outcome = await loop_of(backend, Broken()).explore(CLOSED)
    assert outcome.problems == ("selection_failed",)
    assert outcome.selection.case is Case.UNUSABLE
    assert outcome.selection.chosen is not None
    assert outcome.selection.chosen.name == "teacher"


async def test_open_tasks_are_contrasted_by_likeness(
    backend: Backend, equivalence: Equivalence
) -> None:
    say(
        backend,
        teacher="Short waves scatter more than long ones in the air.",
        student_1="Short waves scatter more than long ones in air.",
        student_2="Short waves scatter more than the long ones.",
        student_3="Cheese is made of milk by patient people somewhere.",
        student_4="Nobody ever knew why bicycles fall over when they stop.",
    )
    selection = (await loop_of(backend, equivalence).explore(OPEN)).selection
    assert (selection.case, selection.task) == (Case.CONTRASTED, Task.OPEN)
    assert selection.better is not None
    assert selection.better.name in ("teacher", "student-1", "student-2")
    assert selection.worse is not None
    assert selection.worse.name in ("student-3", "student-4")


@pytest.mark.parametrize("error", [EmbeddingFailed("down"), RuntimeError("odd")])
async def test_without_an_embedder_an_open_task_is_the_teachers(
    backend: Backend, equivalence: Equivalence, error: Exception
) -> None:
    embedder = HashEmbedder()
    embedder.failure = error
    outcome = await loop_of(backend, equivalence, embedder).explore(OPEN)
    assert outcome.problems == ("embedder_failed",)
    assert outcome.selection.case is Case.UNUSABLE
    assert outcome.selection.chosen is not None
    assert outcome.selection.chosen.name == "teacher"


async def test_without_log_probabilities_the_medoid_decides_and_says_so(
    backend: Backend, equivalence: Equivalence
) -> None:
    backend.default = SEVEN
    for name in ("teacher", "student-1", "student-2", "student-3", "student-4"):
        text = SEVENTEEN if name == "student-3" else SEVEN
        backend.script[name] = completion(text, logprobs=None)
    embedder = HashEmbedder()
    outcome = await loop_of(backend, equivalence, embedder).explore(CLOSED)
    assert (outcome.selection.case, outcome.selection.criterion) == (Case.MAJORITY, "medoid")
    assert len(embedder.history) == 1


async def test_a_closed_group_with_log_probabilities_embeds_nothing(
    backend: Backend, equivalence: Equivalence
) -> None:
    embedder = HashEmbedder()
    await loop_of(backend, equivalence, embedder).explore(CLOSED)
    assert embedder.history == []


@pytest.mark.parametrize(
    ("failing", "problem"), [((1,), "some_students_failed"), ((1, 2, 3, 4), "students_failed")]
)
async def test_students_that_say_nothing_are_named(
    backend: Backend, equivalence: Equivalence, failing: tuple[int, ...], problem: str
) -> None:
    say(backend, **{f"student_{n}": UpstreamError("the model server failed") for n in failing})
    outcome = await loop_of(backend, equivalence).explore(CLOSED)
    assert outcome.problems == (problem,)
    assert outcome.selection.chosen is not None
    assert outcome.selection.chosen.name == "teacher"


async def test_nothing_in_time_is_an_outcome_without_an_answer(
    backend: Backend, equivalence: Equivalence
) -> None:
    backend.hold("teacher", "tutor", "student-1")
    outcome = await loop_of(backend, equivalence, timeout=0.05).explore(CLOSED)
    assert outcome.selection.chosen is None
    assert outcome.problems == ("explore_timeout",)


async def test_what_the_upstream_refused_is_raised(
    backend: Backend, equivalence: Equivalence
) -> None:
    say(backend, teacher=UpstreamRejected("stop is wrong", status=400))
    with pytest.raises(UpstreamRejected, match="stop is wrong"):
        await loop_of(backend, equivalence).explore(CLOSED)


async def explored(backend: Backend, loop: Loop) -> Exploration:
    say(backend, teacher=SEVENTEEN, student_4=SEVENTEEN)
    backend.default = SEVEN
    return await loop.explore(CLOSED)


async def test_distil_sees_both_sides_and_no_injected_rule(
    backend: Backend, equivalence: Equivalence
) -> None:
    loop = loop_of(backend, equivalence)
    say(backend, student_2=f"{RULE} {SEVEN}")
    exploration = await explored(backend, loop)
    backend.rules = {"positive": POSITIVE, "negative": NEGATIVE, "trigger": "counting what is left"}
    distillation = await loop.distil(CLOSED, exploration.selection)
    call = backend.call("distiller")
    assert "\\boxed{7}" in call.text
    assert "\\boxed{17}" in call.text
    assert RULE not in call.text
    assert call.background is True
    assert call.params == {"temperature": 0, "seed": 7, "max_tokens": DISTILLER_TOKENS}
    assert call.schema is not None
    assert list(call.schema["properties"]) == ["positive", "negative", "trigger"]
    assert [(r.polarity.value, r.text, r.refusal) for r in distillation.rules] == [
        ("positive", POSITIVE, None),
        ("negative", NEGATIVE, None),
    ]
    assert {r.trigger for r in distillation.rules} == {"counting what is left"}
    assert distillation.cost.calls == 1
    assert distillation.prompt.startswith("default/reflect/distil_closed@")


async def test_distil_reads_a_text_where_no_object_was_read(
    backend: Backend, equivalence: Equivalence
) -> None:
    loop = loop_of(backend, equivalence)
    exploration = await explored(backend, loop)
    say(backend, distiller=f"Positive: {POSITIVE}\nNegative: none\nTrigger: counting")
    distillation = await loop.distil(CLOSED, exploration.selection)
    assert [rule.text for rule in distillation.rules] == [POSITIVE]
    assert distillation.raw.startswith("Positive:")


@pytest.mark.parametrize("hostile", ["{" * 5000, "[" * 5000, '{"a":' * 5000, "\x00{", "null"])
async def test_a_model_that_writes_brackets_breaks_no_step(
    backend: Backend, equivalence: Equivalence, hostile: str
) -> None:
    loop = loop_of(backend, equivalence)
    backend.variants = None
    say(backend, tutor=hostile, distiller=hostile)
    exploration = await explored(backend, loop)
    assert exploration.problems == ("tutor_failed",)
    assert (await loop.distil(CLOSED, exploration.selection)).rules == ()


async def test_a_refused_rule_is_marked_and_kept(
    backend: Backend, equivalence: Equivalence
) -> None:
    loop = loop_of(backend, equivalence)
    exploration = await explored(backend, loop)
    backend.rules = {
        "positive": "Remember that the answer to this is \\boxed{7}.",
        "negative": NEGATIVE,
        "trigger": "",
    }
    positive, negative = (await loop.distil(CLOSED, exploration.selection)).rules
    assert positive.refusal
    assert negative.refusal is None


async def test_an_upstream_that_fails_to_distil_is_raised(
    backend: Backend, equivalence: Equivalence
) -> None:
    loop = loop_of(backend, equivalence)
    exploration = await explored(backend, loop)
    backend.rules = UpstreamError("the model server failed")
    with pytest.raises(UpstreamError):
        await loop.distil(CLOSED, exploration.selection)
