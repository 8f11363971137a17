"""The loop: explore, select, distil. One code path for a client that waits (explore mode) and
for background learning (steer mode); storing is the worker's, in one transaction."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.domain.bounds import bounded
from app.domain.trajectory import (
    Case,
    Contrast,
    Cost,
    DistilledRule,
    Message,
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
from app.loop.reflect.distiller import Distiller, Names, TriedOn
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
from app.prompt_library import PromptLibrary, Rendered
from app.settings import DEFAULT_EXPERIMENT, ExamplePlace
from app.upstream.capabilities import is_context_overflow
from app.upstream.distiller_model import DistillerModel
from app.upstream.embeddings import Embedder
from app.upstream.types import THINKING_SPENT, ChatBackend, Completion
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
    model: str = ""
    """Who wrote them."""
    elsewhere: Cost = field(default_factory=Cost)
    """Of the cost, what another model than the served one has taken."""
    fallback: str | None = None
    """Why the served model wrote, where another one should have."""
    others: int = 0
    """Contrasts of other questions that the distiller saw."""
    tried: tuple[TriedOn, ...] = ()
    """Replays that the rules were revised by."""

    def trace(self) -> dict[str, Any]:
        """What an episode keeps of it."""
        said: dict[str, Any] = {"prompt": self.prompt, "raw": self.raw, "model": self.model}
        if self.fallback is not None:
            said["fallback"] = self.fallback
        if self.others:
            said["others"] = self.others
        if self.tried:
            said["replays"] = [{"before": t.before, "after": t.after} for t in self.tried]
        return {"distiller": said} | ({} if self.judge is None else {"judge": self.judge})


@dataclass(frozen=True, slots=True)
class _Author:
    """A model that is asked for rules, and about them."""

    backend: ChatBackend
    model: str
    served: bool


@dataclass(frozen=True, slots=True)
class _Reply:
    """What an author made of a distiller's prompt."""

    author: _Author
    answer: dict[str, Any] | None
    completion: Completion
    cost: Cost
    elsewhere: Cost
    fallback: str | None


class Loop:
    def __init__(
        self,
        backend: ChatBackend,
        embedder: Embedder,
        equivalence: Equivalence,
        prompts: PromptLibrary,
        options: LoopOptions,
        distiller_model: DistillerModel | None = None,
    ) -> None:
        """`distiller_model`: what writes the rules; None: the model that answered."""
        self._backend = backend
        self._embedder = embedder
        self._equivalence = equivalence
        self._prompts = prompts
        self._options = options
        self._writer = ExperienceWriter(prompts, options.example_place, options.confidential)
        self._explorer = Explorer(backend, prompts, options.explorer)
        self._distiller = Distiller(prompts)
        self._distiller_model = distiller_model
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
        equivalence, agreed = self._equivalence, 0 if effort is None else effort.agreed

        async def settled(back: Sequence[Trajectory], outstanding: int) -> bool:
            return await decided(observation, back, outstanding, equivalence, agreed=agreed)

        async def enough(back: Sequence[Trajectory], outstanding: int) -> bool:
            return await decided(observation, back, outstanding, equivalence, effort, agreed=agreed)

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
        others: Sequence[Contrast] = (),
        names: Names | None = None,
        judged: bool = False,
        gated: bool = True,
    ) -> Distillation:
        """The difference between better and worse, in rules; refused ones are marked, not
        dropped. `others`: contrasts of near questions that are shown beside this one. `names`: what
        the rules are to be about. `judged`: whether the model is asked about each rule that the
        checks let pass; `gated`: whether it then has to prove itself. Raises `UpstreamError`."""
        english = await _is_english(observation)
        prompt = self._distiller.render(
            observation, selection, others=others, names=names, english=english
        )
        made = await self._written(
            observation, selection, prompt, english, others, judged, gated, names
        )
        return dataclasses.replace(made, others=len(others))

    async def revise(
        self,
        observation: Observation,
        selection: Selection,
        rules: Sequence[DistilledRule],
        tried: Sequence[TriedOn],
        *,
        judged: bool = False,
        gated: bool = True,
    ) -> Distillation:
        """Rules of `distil` written once more, by what they did to other questions. Raises
        `UpstreamError`."""
        english = await _is_english(observation)
        texts = [rule.text for rule in rules]
        prompt = self._distiller.render_revision(observation, texts, tried, english=english)
        shown = [Contrast(each.question, each.answer, each.without) for each in tried]
        return await self._written(observation, selection, prompt, english, shown, judged, gated)

    async def _written(
        self,
        observation: Observation,
        selection: Selection,
        prompt: Rendered,
        english: bool,
        shown: Sequence[Contrast],
        judged: bool,
        gated: bool,
        names: Names | None = None,
    ) -> Distillation:
        """What a distiller's prompt leads to. `shown`: what stood in it of other questions."""
        schema = self._distiller.schema(
            selection.case, question=observation.question, names=names, english=english
        )
        with span("distil", model=observation.model) as step:
            reply = await self._ask_for_rules(observation, prompt, schema)
            set_cost(step, reply.cost)
            set_attributes(step, author=reply.author.model, stood_in=reply.fallback is not None)
        said = reply.answer if reply.answer is not None else reply.completion.text
        with span("admit") as step:
            written = self._distiller.parse(selection.case, said)
            rules = await asyncio.to_thread(
                pipeline.judge,
                written,
                observation,
                selection,
                prompt=prompt,
                shown=shown,
                names=() if names is None else names.listed,
            )
            refused = sum(rule.refusal is not None for rule in rules)
            set_attributes(step, rules=len(rules), refused=refused)
        cost, elsewhere, judge = reply.cost, reply.elsewhere, None
        if judged and any(rule.refusal is None for rule in rules):
            rules, more, judge = await self._judged(reply.author, observation, rules, gated)
            cost += more
            elsewhere += Cost() if reply.author.served else more
        return Distillation(
            tuple(rules),
            cost,
            prompt.ref,
            reply.completion.text,
            problem=THINKING_SPENT if reply.completion.spent_on_thinking else None,
            judge=judge,
            model=reply.author.model,
            elsewhere=elsewhere,
            fallback=reply.fallback,
        )

    async def _ask_for_rules(
        self,
        observation: Observation,
        prompt: Rendered,
        schema: dict[str, Any],
    ) -> _Reply:
        """By the model that is to write rules; where it fails, or rests after a failure, by the
        served one."""
        own, spent, fallback = self._distiller_model, Cost(), None
        if own is not None and own.rests:
            fallback = own.failure
        elif own is not None:
            author = _Author(own.backend, own.name, served=False)
            try:
                answer, completion = await _structured(
                    author, observation, prompt.messages, schema, DISTILLER_TOKENS
                )
            except UpstreamError as error:
                log.warning("the distiller does not answer", model=own.name, error=error)
                own.failed(error)
                fallback, spent = error.message, Cost(calls=1)
            else:
                own.answered()
                cost = completion.cost
                return _Reply(author, answer, completion, cost, cost, None)
        if own is not None:
            own.replaced()
        author = _Author(self._backend, observation.model, served=True)
        answer, completion = await _structured(
            author, observation, prompt.messages, schema, DISTILLER_TOKENS
        )
        return _Reply(author, answer, completion, spent + completion.cost, spent, fallback)

    async def _judged(
        self,
        author: _Author,
        observation: Observation,
        rules: Sequence[DistilledRule],
        gated: bool,
    ) -> tuple[list[DistilledRule], Cost, dict[str, Any]]:
        """The rules as the model that wrote them sees them, what asking it cost, and what it said
        for the trace. A call that fails is no verdict."""
        seen: list[DistilledRule] = []
        said: dict[str, Any] = {}
        with span("judge", model=author.model) as step:
            fit, cost = await self._examined(author, observation)
            if not fit:
                set_cost(step, cost)
                return list(rules), cost, {"exam": "failed"}
            for rule in rules:
                if rule.refusal is None:
                    kind, spent, ref = await self._kind_of(author, observation, rule.text)
                    cost += spent
                    said["prompt"] = ref
                    said[rule.polarity.value] = None if kind is None else kind.value
                    waits = rule_judge.refusal(kind, proves_itself=gated)
                    rule = dataclasses.replace(rule, refusal=waits)
                seen.append(rule)
            set_cost(step, cost)
        return seen, cost, said

    async def _examined(self, author: _Author, observation: Observation) -> tuple[bool, Cost]:
        """Whether the model is fit to judge, and what it took to find out. The exam ends as soon as
        it is failed."""
        # One name on two servers may be two models.
        name = author.model if author.served else f"{author.model} (distiller)"
        known = self._exams.passed(name)
        if known is not None:
            return known, Cost()
        cost, mistakes = Cost(), {True: 0, False: 0}
        for question in rule_judge.EXAM:
            kind, spent, prompt = await self._kind_of(author, observation, question.rule)
            cost += spent
            if kind is None:
                # A call that failed says nothing of the model; an answer that is none does.
                if prompt is not None:
                    self._exams.note(name, passed=False)
                return False, cost
            mistakes[question.passes] += (kind is rule_judge.GOOD) != question.passes
            if mistakes[question.passes] > rule_judge.MISTAKES:
                log.warning("the model can't judge rules", model=author.model)
                self._exams.note(name, passed=False)
                return False, cost
        self._exams.note(name, passed=True)
        return True, cost

    async def _kind_of(
        self, author: _Author, observation: Observation, rule: str
    ) -> tuple[rule_judge.RuleKind | None, Cost, str | None]:
        """What the model says of a rule (None: no verdict), the cost, and by which prompt; None for
        a call that failed."""
        prompt = self._rule_judge.render(observation.domain, rule)
        schema = self._rule_judge.schema()
        try:
            answer, completion = await _structured(
                author, observation, prompt.messages, schema, rule_judge.VERDICT_TOKENS
            )
        except UpstreamError as error:
            log.warning("rule not judged", episode=observation.episode_id, error=error)
            return None, Cost(calls=1), None
        said = answer if answer is not None else completion.text
        return self._rule_judge.kind(said), completion.cost, prompt.ref


async def _is_english(observation: Observation) -> bool:
    """Whether the question is in English, as far as is known."""
    # In a thread: what the check looks up is read when it is first needed, a second at most.
    spoken = await asyncio.to_thread(languages.tongue, observation.question)
    return spoken in (None, languages.ENGLISH)


async def _structured(
    author: _Author,
    observation: Observation,
    messages: Sequence[Message],
    schema: dict[str, Any],
    limit: int,
) -> tuple[dict[str, Any] | None, Completion]:
    """A greedy call for which nobody waits. What the client says of thinking holds for the model
    that it asked, and for no other."""
    switches = thinking_switches(observation) if author.served else {}
    params = {"temperature": 0, "seed": observation.seed, "max_tokens": limit, **switches}
    return await author.backend.structured(
        author.model, list(messages), schema, params, background=True
    )


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
