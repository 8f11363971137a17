"""The loop: explore, select, distil. One code path for a client that waits (explore mode) and
for background learning (steer mode); storing is the worker's, in one transaction."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from app.domain.bounds import bounded
from app.domain.trajectory import (
    Case,
    Cost,
    DistilledRule,
    Observation,
    Role,
    Selection,
    Task,
    Trajectory,
)
from app.exceptions import UpstreamError, UpstreamRejected
from app.loop.admission import languages, pipeline, rule_judge
from app.loop.effort import Effort
from app.loop.explore.exploration import AskTeacher, ExplorerOptions, RunningCost
from app.loop.explore.explorer import Explorer
from app.loop.explore.roles import thinking_switches
from app.loop.reflect.answers import strip_reasoning
from app.loop.reflect.distiller import Distiller
from app.loop.reflect.equivalence import ComparisonUnfinished, Equivalence
from app.loop.reflect.selection import (
    decided,
    needs_vectors,
    resolve_task,
    select_closed,
    select_open,
)
from app.loop.steer.writer import ExperienceWriter, Insertion
from app.observability.tracing import set_attributes, set_cost, span
from app.prompt_library import PromptLibrary
from app.settings import DEFAULT_EXPERIMENT, ExamplePlace
from app.upstream.capabilities import is_context_overflow
from app.upstream.embeddings import Embedder
from app.upstream.types import THINKING_SPENT, ChatBackend
from rules_store.models.rules import Vector

log = structlog.get_logger(__name__)

RULES_DROPPED = "rules_dropped_for_context"
COMPARISON_UNFINISHED = "comparison_unfinished"
DISTILLER_TOKENS = 400
"""Two rules of 32 words and a trigger as JSON need about 150."""


@dataclass(frozen=True, slots=True)
class LoopOptions:
    explorer: ExplorerOptions
    stops_early: bool
    open_spread: float
    """Least spread (max - min cosine to the Teacher) for a negative rule in open tasks."""
    example_place: ExamplePlace = DEFAULT_EXPERIMENT.example_place
    confidential: Callable[[str], bool] = lambda namespace: False
    """Whether the model is asked to keep what a namespace gives it to itself."""


@dataclass(frozen=True, slots=True)
class Exploration:
    trajectories: tuple[Trajectory, ...]
    selection: Selection
    cost: Cost
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Distillation:
    rules: tuple[DistilledRule, ...]
    cost: Cost
    prompt: str
    """File and version of the prompt that was used."""
    raw: str
    """What the distiller wrote, before parsing."""
    problem: str | None = None
    """Why there is nothing of it, where that is known."""
    judge: dict[str, Any] | None = None
    """What the model said of each rule that it was asked about, by polarity, and by which
    prompt."""


class Loop:
    def __init__(
        self,
        backend: ChatBackend,
        embedder: Embedder,
        equivalence: Equivalence,
        prompts: PromptLibrary,
        options: LoopOptions,
    ) -> None:
        self._backend = backend
        self._embedder = embedder
        self._equivalence = equivalence
        self._prompts = prompts
        self._options = options
        self._writer = ExperienceWriter(prompts, options.example_place, options.confidential)
        self._explorer = Explorer(backend, prompts, options.explorer)
        self._distiller = Distiller(prompts)
        self._rule_judge = rule_judge.RuleJudge(prompts)
        self._exams = rule_judge.Exams()

    async def explore(
        self,
        observation: Observation,
        *,
        background: bool = False,
        effort: Effort | None = None,
        spending: RunningCost | None = None,
        patience: float | None = None,
        ask_teacher: AskTeacher | None = None,
    ) -> Exploration:
        """Trajectories and the selection among them, with no more `effort` than is needed (None:
        all of it). Raises `UpstreamError` when there is no answer at all. What had to be left out
        is in `problems`: rules and examples, where they overflow the model's context; the
        selection, where it fails and the Teacher's answer stands. `spending` is kept up to date
        meanwhile; `patience` and `ask_teacher`: see `Explorer.explore`."""
        how = (background, effort, spending, patience, ask_teacher)
        try:
            return await self._explore(observation, *how)
        except UpstreamRejected as error:
            given = observation.hits or observation.examples
            if not (given and is_context_overflow(error)):
                raise
        without = dataclasses.replace(observation, hits=(), examples=())
        exploration = await self._explore(without, *how)
        problems = (RULES_DROPPED, *exploration.problems)
        return dataclasses.replace(exploration, problems=problems)

    async def _explore(
        self,
        observation: Observation,
        background: bool,
        effort: Effort | None,
        spending: RunningCost | None,
        patience: float | None,
        ask_teacher: AskTeacher | None,
    ) -> Exploration:
        insertion = self._insertion(observation)

        async def settled(back: Sequence[Trajectory], outstanding: int) -> bool:
            return await decided(observation, back, outstanding, self._equivalence)

        async def enough(back: Sequence[Trajectory], outstanding: int) -> bool:
            equivalence = self._equivalence
            return await decided(observation, back, outstanding, equivalence, effort)

        shown = {"rules": len(observation.hits), "examples": len(observation.examples)}
        with span("explore", model=observation.model, **shown) as step:
            explored = await self._explorer.explore(
                observation,
                insertion,
                background=background,
                decided=settled if self._options.stops_early else None,
                effort=effort,
                enough=enough,
                spending=spending,
                patience=patience,
                ask_teacher=ask_teacher,
            )
            set_cost(step, explored.cost)
            set_attributes(step, degraded=explored.problems or None)
        problems = [*explored.problems, *_silent_students(explored.trajectories)]
        try:
            with span("select") as step:
                selection, found = await self._select(observation, explored.trajectories)
                set_attributes(step, case=selection.case.value, agreement=selection.agreement)
            problems += found
        except UpstreamError:
            raise
        except ComparisonUnfinished:
            # What nobody has compared is evidence of nothing.
            problems.append(COMPARISON_UNFINISHED)
            selection = _teacher_alone(observation, explored.trajectories)
        except Exception as error:
            log.error("selection failed", episode=observation.episode_id, exc_info=error)
            problems.append("selection_failed")
            selection = _teacher_alone(observation, explored.trajectories)
        return Exploration(explored.trajectories, selection, explored.cost, tuple(problems))

    async def _select(
        self, observation: Observation, trajectories: tuple[Trajectory, ...]
    ) -> tuple[Selection, list[str]]:
        task = resolve_task(observation, trajectories)
        problems: list[str] = []
        vectors: dict[str, Vector] | None = None
        if needs_vectors(task, trajectories):
            try:
                vectors = await self._vectors(trajectories)
            except Exception as error:
                log.warning("trajectories not embedded", error=error)
                problems.append("embedder_failed")
        if task is Task.CLOSED:
            selection = await select_closed(
                observation, trajectories, self._equivalence, vectors=vectors
            )
        elif vectors is None:
            selection = _teacher_alone(observation, trajectories)
        else:
            selection = select_open(
                observation, trajectories, vectors, minimum_spread=self._options.open_spread
            )
        return selection, problems

    async def _vectors(self, trajectories: tuple[Trajectory, ...]) -> dict[str, Vector]:
        """Unit vectors, shape (d,), of every trajectory with text, by name."""
        texts = {t.name: strip_reasoning(bounded(t.text)) for t in trajectories}
        texts = {name: text for name, text in texts.items() if text.strip()}
        if not texts:
            return {}
        rows = await self._embedder.embed(list(texts.values()))
        return dict(zip(texts, rows, strict=True))

    async def replay(self, observation: Observation) -> Trajectory:
        """The Teacher's answer to a stored question with the rules and examples of the observation,
        in the background."""
        return await self._explorer.teacher(observation, self._insertion(observation))

    def _insertion(self, observation: Observation) -> Insertion:
        return self._writer.write(
            observation.hits,
            observation.examples,
            domain=observation.domain,
            messages=observation.messages,
            fields=observation.params,
            namespace=observation.namespace,
        )

    async def distil(
        self,
        observation: Observation,
        selection: Selection,
        *,
        background: bool = True,
        judged: bool = False,
        gated: bool = True,
    ) -> Distillation:
        """The difference between better and worse, in rules; refused ones are marked, not
        dropped. `judged`: whether the model is asked about each rule that the checks let pass;
        `gated`: whether it then has to prove itself. Raises `UpstreamError`."""
        # In threads: what the checks look up is read when it is first needed, a second at most.
        spoken = await asyncio.to_thread(languages.tongue, observation.question)
        english = spoken in (None, languages.ENGLISH)
        prompt = self._distiller.render(observation, selection, english=english)
        with span("distil", model=observation.model) as step:
            answer, completion = await self._backend.structured(
                observation.model,
                list(prompt.messages),
                self._distiller.schema(
                    selection.case, question=observation.question, english=english
                ),
                {
                    "temperature": 0,
                    "seed": observation.seed,
                    "max_tokens": DISTILLER_TOKENS,
                    **thinking_switches(observation),
                },
                background=background,
            )
            set_cost(step, completion.cost)
        with span("admit") as step:
            written = self._distiller.parse(
                selection.case, answer if answer is not None else completion.text
            )
            rules = await asyncio.to_thread(
                pipeline.judge, written, observation, selection, prompt=prompt
            )
            refused = sum(rule.refusal is not None for rule in rules)
            set_attributes(step, rules=len(rules), refused=refused)
        cost, judge = completion.cost, None
        if judged and any(rule.refusal is None for rule in rules):
            rules, more, judge = await self._judged(observation, rules, background, gated)
            cost += more
        problem = THINKING_SPENT if completion.spent_on_thinking else None
        return Distillation(tuple(rules), cost, prompt.ref, completion.text, problem, judge)

    async def _judged(
        self,
        observation: Observation,
        rules: Sequence[DistilledRule],
        background: bool,
        gated: bool,
    ) -> tuple[list[DistilledRule], Cost, dict[str, Any]]:
        """The rules as the model sees them, what asking it cost, and what it said for the trace. A
        call that fails is no verdict."""
        seen: list[DistilledRule] = []
        said: dict[str, Any] = {}
        with span("judge", model=observation.model) as step:
            fit, cost = await self._examined(observation, background)
            if not fit:
                set_cost(step, cost)
                return list(rules), cost, {"exam": "failed"}
            for rule in rules:
                if rule.refusal is None:
                    kind, spent, ref = await self._kind_of(observation, rule.text, background)
                    cost += spent
                    said["prompt"] = ref
                    said[rule.polarity.value] = None if kind is None else kind.value
                    waits = rule_judge.refusal(kind, proves_itself=gated)
                    rule = dataclasses.replace(rule, refusal=waits)
                seen.append(rule)
            set_cost(step, cost)
        return seen, cost, said

    async def _examined(self, observation: Observation, background: bool) -> tuple[bool, Cost]:
        """Whether the model is fit to judge, and what it took to find out. The exam ends as soon as
        it is failed."""
        known = self._exams.passed(observation.model)
        if known is not None:
            return known, Cost()
        cost, mistakes = Cost(), {True: 0, False: 0}
        for question in rule_judge.EXAM:
            kind, spent, prompt = await self._kind_of(observation, question.rule, background)
            cost += spent
            if kind is None:
                # A call that failed says nothing of the model; an answer that is none does.
                if prompt is not None:
                    self._exams.note(observation.model, passed=False)
                return False, cost
            mistakes[question.passes] += (kind is rule_judge.GOOD) != question.passes
            if mistakes[question.passes] > rule_judge.MISTAKES:
                log.warning("the model can't judge rules", model=observation.model)
                self._exams.note(observation.model, passed=False)
                return False, cost
        self._exams.note(observation.model, passed=True)
        return True, cost

    async def _kind_of(
        self, observation: Observation, rule: str, background: bool
    ) -> tuple[rule_judge.RuleKind | None, Cost, str | None]:
        """What the model says of a rule (None: no verdict), the cost, and by which prompt; None for
        a call that failed."""
        prompt = self._rule_judge.render(observation.domain, rule)
        try:
            answer, completion = await self._backend.structured(
                observation.model,
                list(prompt.messages),
                self._rule_judge.schema(),
                {
                    "temperature": 0,
                    "seed": observation.seed,
                    "max_tokens": rule_judge.VERDICT_TOKENS,
                    **thinking_switches(observation),
                },
                background=background,
            )
        except UpstreamError as error:
            log.warning("rule not judged", episode=observation.episode_id, error=error)
            return None, Cost(calls=1), None
        said = answer if answer is not None else completion.text
        return self._rule_judge.kind(said), completion.cost, prompt.ref


def _silent_students(trajectories: Sequence[Trajectory]) -> list[str]:
    """Names the loss when Students gave nothing, for other reasons than being cut short."""
    students = [t for t in trajectories if t.role is Role.STUDENT]
    silent = [t for t in students if t.failure != "cancelled" and not t.text.strip()]
    if not silent:
        return []
    return ["students_failed" if len(silent) == len(students) else "some_students_failed"]


def _teacher_alone(observation: Observation, trajectories: tuple[Trajectory, ...]) -> Selection:
    """Nothing could be compared: the Teacher's answer, or else the first that there is."""
    answered = [t for t in trajectories if t.failure is None]
    task = Task.OPEN if observation.task is Task.AUTO else observation.task
    return Selection(Case.UNUSABLE, task, answered[0] if answered else None)
