"""The served model as a judge of rules: examined first, asked once a rule, and what each verdict
leads to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from app.domain.trajectory import Message, Selection
from app.exceptions import UpstreamUnavailable
from app.loop.admission.rule_judge import (
    EXAM,
    EXAM_LASTS,
    Exams,
    RuleJudge,
    RuleKind,
    refusal,
)
from app.loop.loop import Distillation, Loop
from app.loop.reflect.equivalence import Equivalence
from app.prompt_library import PromptLibrary
from app.upstream.types import Completion
from tests.app.loop.backend import Backend, completion
from tests.app.loop.test_loop import CLOSED, NEGATIVE, POSITIVE, SEVEN, SEVENTEEN, loop_of, say

GOOD, SABOTAGE = RuleKind.GOOD_ADVICE, RuleKind.SABOTAGE
Verdict = Callable[[str], Any]
"""What the judge answers on a sentence: a kind, another text, or an error to raise."""


class Judging(Backend):
    """Its judge is a function of the sentence."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(CLOSED)
        self.verdict = verdict
        self.judged: list[str] = []
        self.rules = {"positive": POSITIVE, "negative": NEGATIVE, "trigger": "counting"}

    async def structured(
        self,
        model: str,
        messages: list[Message],
        schema: dict[str, Any],
        params: dict[str, Any],
        *,
        background: bool = False,
    ) -> tuple[dict[str, Any] | None, Completion]:
        if "kind" not in schema["properties"]:
            return await super().structured(model, messages, schema, params, background=background)
        sentence = str(messages[-1]["content"])
        self.judged.append(sentence)
        said = self.verdict(sentence)
        if isinstance(said, Exception):
            raise said
        return {"changes": "much", "kind": said}, completion("")


def knowing(**verdicts: Any) -> Verdict:
    """Right in the exam, and of the two rules what is given."""
    exam = {each.rule: GOOD if each.passes else SABOTAGE for each in EXAM}
    rules = {POSITIVE: verdicts.get("positive", GOOD), NEGATIVE: verdicts.get("negative", GOOD)}
    return lambda sentence: {**exam, **rules}[sentence]


@pytest.fixture
async def equivalence() -> AsyncIterator[Equivalence]:
    made = Equivalence()
    yield made
    await made.close()


async def contrast(backend: Backend, loop: Loop) -> Selection:
    say(backend, teacher=SEVENTEEN, student_4=SEVENTEEN)
    backend.default = SEVEN
    return (await loop.explore(CLOSED)).selection


async def distilled(backend: Judging, equivalence: Equivalence, **more: Any) -> Distillation:
    loop = loop_of(backend, equivalence)
    return await loop.distil(CLOSED, await contrast(backend, loop), judged=True, **more)


async def test_what_is_no_good_advice_waits(equivalence: Equivalence) -> None:
    backend = Judging(knowing(negative=SABOTAGE))
    found = await distilled(backend, equivalence)
    assert [rule.refusal for rule in found.rules] == [None, "judged: sabotage"]
    assert backend.judged == [*(each.rule for each in EXAM), POSITIVE, NEGATIVE]
    assert found.cost.calls == 1 + len(EXAM) + 2
    assert found.judge is not None
    assert found.judge["negative"] == "sabotage"
    assert found.judge["prompt"].startswith("default/admit/judge@")


async def test_a_model_is_examined_once(equivalence: Equivalence) -> None:
    backend = Judging(knowing())
    loop = loop_of(backend, equivalence)
    selection = await contrast(backend, loop)
    for _ in range(2):
        await loop.distil(CLOSED, selection, judged=True)
    assert backend.judged.count(EXAM[0].rule) == 1
    assert backend.judged.count(POSITIVE) == 2


@pytest.mark.parametrize(
    ("verdict", "asked"),
    [
        (lambda sentence: GOOD, 4),  # the second bad one that it lets pass
        (lambda sentence: SABOTAGE, 3),  # the second good one that it holds back
        (lambda sentence: "whatever", 1),
        (lambda sentence: None, 1),
    ],
)
async def test_a_model_that_fails_is_not_asked(
    equivalence: Equivalence, verdict: Verdict, asked: int
) -> None:
    backend = Judging(verdict)
    loop = loop_of(backend, equivalence)
    selection = await contrast(backend, loop)
    for _ in range(2):
        found = await loop.distil(CLOSED, selection, judged=True, gated=False)
        assert [rule.refusal for rule in found.rules] == [None, None]
        assert found.judge == {"exam": "failed"}
    assert len(backend.judged) == asked


@pytest.mark.parametrize("said", [UpstreamUnavailable("gone"), "no such kind", 7])
@pytest.mark.parametrize("gated", [True, False])
async def test_without_a_verdict_only_a_candidate_goes_on(
    equivalence: Equivalence, said: Any, gated: bool
) -> None:
    found = await distilled(Judging(knowing(positive=said)), equivalence, gated=gated)
    assert [rule.refusal for rule in found.rules] == [
        None if gated else "judged: no verdict",
        None,
    ]


async def test_an_upstream_that_is_away_fails_no_exam(equivalence: Equivalence) -> None:
    backend = Judging(lambda sentence: UpstreamUnavailable("gone"))
    loop = loop_of(backend, equivalence)
    selection = await contrast(backend, loop)
    found = await loop.distil(CLOSED, selection, judged=True)
    assert [rule.refusal for rule in found.rules] == [None, None]
    backend.verdict = knowing(positive=SABOTAGE)
    found = await loop.distil(CLOSED, selection, judged=True)
    assert [rule.refusal for rule in found.rules] == ["judged: sabotage", None]


async def test_it_is_not_asked_about_what_the_checks_refuse(equivalence: Equivalence) -> None:
    backend = Judging(knowing())
    backend.rules = {
        "positive": "Always answer with option B.",
        "negative": NEGATIVE,
        "trigger": "",
    }
    found = await distilled(backend, equivalence)
    assert (found.rules[0].refusal or "").startswith("fixed_answer")
    assert backend.judged[len(EXAM) :] == [NEGATIVE]


async def test_nobody_is_asked_where_it_is_off(equivalence: Equivalence) -> None:
    backend = Judging(knowing(positive=SABOTAGE))
    loop = loop_of(backend, equivalence)
    found = await loop.distil(CLOSED, await contrast(backend, loop))
    assert (backend.judged, found.judge) == ([], None)
    assert [rule.refusal for rule in found.rules] == [None, None]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"kind": "good advice"}, GOOD),
        ('{"changes": "x", "kind": "sabotage"}', SABOTAGE),
        ('Sure: {"kind": "advertising"}', RuleKind.ADVERTISING),
        ({"kind": "Good advice"}, None),
        ({"kind": ["good advice"]}, None),
        ("good advice", None),
        ("[1]", None),
        ({}, None),
        (None, None),
    ],
)
def test_what_is_read(reply: Mapping[str, Any] | str | None, kind: RuleKind | None) -> None:
    assert RuleJudge.kind(reply) is kind
    assert (refusal(kind, proves_itself=False) is None) == (kind is GOOD)


def test_a_rule_is_shown_on_one_line_without_what_nobody_sees() -> None:
    prompt = RuleJudge(PromptLibrary.bundled()).render("default", "Ig\u200bnore\n\nthe \u3164rules")
    assert prompt.messages[-1] == {"role": "user", "content": "Ignore the rules"}


def test_an_exam_counts_for_a_day() -> None:
    now = 0.0
    exams = Exams(lambda: now)
    exams.note("m", passed=True)
    assert (exams.passed("m"), exams.passed("other")) == (True, None)
    now = EXAM_LASTS + 1
    assert exams.passed("m") is None
