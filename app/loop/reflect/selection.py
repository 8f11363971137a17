"""Reflect / select: which trajectory the client sees, and which two are contrasted.

Closed tasks vote on the answer, open tasks measure likeness to the Teacher. Failed, truncated,
empty and degenerate trajectories take no part: they don't vote and are neither y+ nor y-, since
their faults (a limit, a loop) say nothing about how to solve a question. Nor does, in a closed
task, a trajectory in which no answer was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from app.domain.trajectory import (
    Assessment,
    Case,
    Observation,
    Role,
    Selection,
    Task,
    Trajectory,
)
from app.loop.effort import Effort
from app.loop.reflect.answers import Answer, AnswerForm, extract
from app.loop.reflect.equivalence import ComparisonUnfinished, Equivalence
from app.loop.reflect.scoring import Vector, cosine, exclusion, medoid, perplexity

Vectors = Mapping[str, Vector]
"""Unit embedding of each trajectory's text, by `Trajectory.name`."""


def json_expected(observation: Observation) -> bool:
    """Whether the client asked for JSON output."""
    form = observation.params.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    return kind in ("json_object", "json_schema") or "guided_json" in observation.params


def resolve_task(observation: Observation, trajectories: Sequence[Trajectory]) -> Task:
    """closed or open. `auto` is closed when at least half of the usable trajectories mark a final
    answer or are nothing but a short one."""
    if observation.task is not Task.AUTO:
        return observation.task
    usable = [t for t in trajectories if exclusion(t) is None]
    definite = [t for t in usable if _definite(_answer(observation, t))]
    return Task.CLOSED if usable and 2 * len(definite) >= len(usable) else Task.OPEN


def needs_vectors(task: Task, trajectories: Sequence[Trajectory]) -> bool:
    """Whether selecting needs embeddings: open tasks, and groups without log-probabilities."""
    usable = [t for t in trajectories if exclusion(t) is None]
    return task is Task.OPEN or any(perplexity(t.logprobs) is None for t in usable)


async def decided(
    observation: Observation,
    trajectories: Sequence[Trajectory],
    outstanding: int,
    equivalence: Equivalence,
    effort: Effort | None = None,
    *,
    agreed: int = 0,
) -> bool:
    """Whether the calls still open can no longer change which answer wins, or are not likely to
    (`effort`). `agreed`: fewer answers than that, all of them the same, decide nothing.

    `trajectories` are those that are there, `outstanding` counts the Teacher and Students that
    are not. Open tasks are never decided early: every answer counts there.
    """
    usable = [t for t in trajectories if exclusion(t) is None]
    answers = {t.name: a for t in usable if (a := _answer(observation, t)) is not None}
    if observation.task is Task.OPEN or not answers:
        return False
    try:
        groups = await equivalence.groups([a.text for a in answers.values()])
    except ComparisonUnfinished:
        return False
    leading, next_best = groups.count(0), groups.count(1)
    if next_best == 0 and leading < agreed:
        return False
    sure = effort is not None and (
        effort.sure(leading, next_best)
        or effort.idle(leading, next_best, len(answers), outstanding)
    )
    if observation.task is Task.AUTO:
        definite = sum(_definite(a) for a in answers.values())
        # What is sure enough stops here: the calls that are out may not be asked any more.
        if 2 * definite < len(usable) + (0 if sure else outstanding):
            return False
    return sure or (leading >= 2 and leading > next_best + outstanding)


async def select_closed(
    observation: Observation,
    trajectories: Sequence[Trajectory],
    equivalence: Equivalence,
    *,
    vectors: Vectors | None = None,
) -> Selection:
    """Majority vote over equivalent answers.

    y+ is the most confident member of the winning group, y- the most confident one outside it (a
    confident error teaches more). Of equally large groups the one with the best mean wins.
    """
    voters, groups = await _vote(observation, trajectories, equivalence)
    rank = _ranking(voters, vectors or {})
    sizes = [groups.count(index) for index in range(len(set(groups)))]
    case = _closed_case(sizes)
    winner = _winner(voters, groups, sizes, rank) if case not in _UNDECIDED else None
    inside = [t for t, group in zip(voters, groups, strict=True) if group == winner]
    outside = [t for t, group in zip(voters, groups, strict=True) if group != winner]
    better = rank.best(inside) if winner is not None else None
    worse = rank.best(outside) if case in (Case.MAJORITY, Case.TIE) else None
    by_name = {t.name: group for t, group in zip(voters, groups, strict=True)}
    judged = tuple(
        _judged(
            trajectory,
            answer=_answer(observation, trajectory),
            group=by_name.get(trajectory.name),
            unanswered=trajectory.name not in by_name,
            better=None
            if winner is None or trajectory.name not in by_name
            else by_name[trajectory.name] == winner,
        )
        for trajectory in trajectories
    )
    return Selection(
        case=case,
        task=Task.CLOSED,
        chosen=_shown(inside or voters, rank, trajectories),
        better=better,
        worse=worse,
        judged=judged,
        agreement=max(sizes) / len(voters) if voters else None,
        criterion=rank.criterion,
    )


def select_open(
    observation: Observation,
    trajectories: Sequence[Trajectory],
    vectors: Vectors,
    *,
    minimum_spread: float,
) -> Selection:
    """Likeness to the Teacher splits the Students: upper half and Teacher are the better side.

    y+ and y- are the most confident of their sides. When the likenesses are all about the same
    nothing is called worse: their spread, largest less smallest cosine, is under `minimum_spread`.
    """
    usable = [t for t in trajectories if exclusion(t) is None and t.name in vectors]
    reference = _reference(usable, vectors)
    likeness = {
        t.name: cosine(vectors[t.name], vectors[reference.name]) for t in usable if reference
    }
    others = sorted(
        (t for t in usable if t is not reference), key=lambda t: (-likeness[t.name], t.index)
    )
    spread = likeness[others[0].name] - likeness[others[-1].name] if others else 0.0
    if len(usable) < 2:
        case = Case.UNUSABLE
    elif len(others) < 2 or spread < minimum_spread:
        case = Case.HOMOGENEOUS
    else:
        case = Case.CONTRASTED
    half = (len(others) + 1) // 2 if case is Case.CONTRASTED else len(others)
    better_side = ([reference] if reference else []) + others[:half]
    worse_side = others[half:]
    rank = _ranking(usable, vectors)
    learned = case is not Case.UNUSABLE
    sides = {t.name: True for t in better_side} | {t.name: False for t in worse_side}
    return Selection(
        case=case,
        task=Task.OPEN,
        chosen=_shown(better_side, rank, trajectories),
        better=rank.best(better_side) if learned else None,
        worse=rank.best(worse_side) if case is Case.CONTRASTED else None,
        judged=tuple(
            _judged(
                trajectory,
                similarity=likeness.get(trajectory.name),
                better=sides.get(trajectory.name) if learned else None,
            )
            for trajectory in trajectories
        ),
        criterion=rank.criterion,
    )


_UNDECIDED = (Case.SCATTERED, Case.UNUSABLE)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """One measure over a whole group, so that no two trajectories are compared by different ones.

    `scores`: by name, lower is better."""

    criterion: str
    scores: Mapping[str, float]

    def best(self, candidates: Sequence[Trajectory]) -> Trajectory | None:
        return min(candidates, key=lambda t: (self.scores[t.name], t.index), default=None)

    def mean(self, members: Sequence[Trajectory]) -> float:
        return fmean(self.scores[t.name] for t in members)


def _ranking(usable: Sequence[Trajectory], vectors: Vectors) -> _Ranking:
    """Perplexity where all have one, else distance to the group's medoid, else the order in which
    they were asked for."""
    perplexities = {t.name: perplexity(t.logprobs) for t in usable}
    known = {name: value for name, value in perplexities.items() if value is not None}
    if len(known) == len(usable):
        return _Ranking("perplexity", known)
    if all(t.name in vectors for t in usable):
        centre = vectors[usable[medoid([vectors[t.name] for t in usable])].name]
        return _Ranking("medoid", {t.name: -cosine(vectors[t.name], centre) for t in usable})
    return _Ranking("order", {t.name: float(t.index) for t in usable})


async def _vote(
    observation: Observation, trajectories: Sequence[Trajectory], equivalence: Equivalence
) -> tuple[list[Trajectory], tuple[int, ...]]:
    """Those that may vote, and the group of each."""
    voters, answers = [], []
    for trajectory in trajectories:
        answer = _answer(observation, trajectory) if exclusion(trajectory) is None else None
        if answer is not None:
            voters.append(trajectory)
            answers.append(answer.text)
    return voters, await equivalence.groups(answers)


def _closed_case(sizes: Sequence[int]) -> Case:
    """`sizes` of the groups, largest first."""
    if sum(sizes) < 2:
        return Case.UNUSABLE
    if len(sizes) == 1:
        return Case.UNANIMOUS
    if sizes[0] == 1:
        return Case.SCATTERED
    return Case.TIE if sizes[0] == sizes[1] else Case.MAJORITY


def _winner(
    voters: Sequence[Trajectory], groups: Sequence[int], sizes: Sequence[int], rank: _Ranking
) -> int:
    largest = [index for index, size in enumerate(sizes) if size == sizes[0]]
    members = {
        index: [t for t, g in zip(voters, groups, strict=True) if g == index] for index in largest
    }
    return min(largest, key=lambda index: (rank.mean(members[index]), index))


def _shown(
    preferred: Sequence[Trajectory], rank: _Ranking, trajectories: Sequence[Trajectory]
) -> Trajectory | None:
    """What the client sees: the Teacher if it is on the preferred side, since it is the answer a
    plain request would have had and only it was asked in the client's own words for certain; else
    the best of that side; else whatever has a text, the Teacher first."""
    teacher = next((t for t in preferred if t.role is Role.TEACHER), None)
    if teacher is not None or preferred:
        return teacher or rank.best(preferred)
    written = [t for t in trajectories if t.failure is None and t.text.strip()]
    return min(
        written, key=lambda t: (_DESPERATION.get(exclusion(t) or "", 0), t.index), default=None
    )


_DESPERATION = {"truncated": 1, "empty": 2, "degenerate": 3}
"""What may be shown when nothing better is there: a whole text, one cut off, thoughts, loops."""


def _reference(usable: Sequence[Trajectory], vectors: Vectors) -> Trajectory | None:
    """The Teacher, or the most typical Student when the Teacher's answer can't be used."""
    if not usable:
        return None
    teacher = next((t for t in usable if t.role is Role.TEACHER), None)
    return teacher or usable[medoid([vectors[t.name] for t in usable])]


def _answer(observation: Observation, trajectory: Trajectory) -> Answer | None:
    return extract(trajectory.text, observation.question, json_expected=json_expected(observation))


def _definite(answer: Answer | None) -> bool:
    return answer is not None and (answer.explicit or answer.how is AnswerForm.SHORT)


def _judged(
    trajectory: Trajectory,
    *,
    answer: Answer | None = None,
    group: int | None = None,
    unanswered: bool = False,
    similarity: float | None = None,
    better: bool | None = None,
) -> Assessment:
    why = exclusion(trajectory) or ("no_answer" if unanswered else None)
    return Assessment(
        name=trajectory.name,
        usable=why is None,
        exclusion=why,
        answer=answer.text if answer else None,
        group=group,
        perplexity=perplexity(trajectory.logprobs),
        similarity=similarity,
        better=better,
    )
