"""Explore: Teacher, Tutor and Students, side by side.

Teacher, Tutor and the first Student (on the user's own wording) start together; the other
Students start when the Tutor's variants are there, and take the original wording where the Tutor
gave too few. A failed call is a trajectory with a reason. Cancelling `explore` cancels every call.

With an `Effort` the Teacher and the first Student go ahead alone, and the rest is asked only where
their answers do not settle it, all at once or (patient) one by one; or the Teacher answers alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.domain.trajectory import Cost, Message, Observation, Role, Trajectory
from app.exceptions import UpstreamError, UpstreamRejected
from app.loop.effort import TOO_FEW_WORDINGS, TUTOR_FAILED, Effort
from app.loop.explore.exploration import (
    AskTeacher,
    ExplorerOptions,
    ExplorerResult,
    IsDecided,
    RunningCost,
    failed_trajectory,
    name_of,
    sample_in_span,
)
from app.loop.explore.forms import asks_for_box, prescribed
from app.loop.explore.roles import (
    ANSWER_PROMPT,
    Call,
    derived_seed,
    student_params,
    teacher_params,
    thinking_switches,
)
from app.loop.explore.tutor import Tutor
from app.loop.steer.injector import add_to_system, replace_question
from app.loop.steer.writer import Insertion
from app.observability.tracing import span
from app.prompt_library import DEFAULT_DOMAIN, PromptLibrary
from app.upstream.types import THINKING_SPENT, ChatBackend, Completion

CUT_SHORT = "explore_cut_short"
"""Of an exploration that was waited for as long as its client was taken to wait."""


class Explorer:
    def __init__(
        self, backend: ChatBackend, prompts: PromptLibrary, options: ExplorerOptions
    ) -> None:
        self.backend = backend
        self.prompts = prompts
        self.options = options
        self.tutor = Tutor(prompts)

    async def explore(
        self,
        observation: Observation,
        insertion: Insertion,
        *,
        background: bool,
        decided: IsDecided | None = None,
        effort: Effort | None = None,
        enough: IsDecided | None = None,
        spending: RunningCost | None = None,
        patience: float | None = None,
        ask_teacher: AskTeacher | None = None,
    ) -> ExplorerResult:
        """All trajectories of one request. `decided` None: nothing is ever cut short. `effort`
        None: everybody is asked at once; else `enough` says whether the first two will do.
        `spending` is kept up to date meanwhile. After `patience` seconds only the Teacher is still
        waited for. `ask_teacher` makes the Teacher's call in place of the backend.

        Raises the Teacher's `UpstreamRejected` (the client's request itself is wrong), or its
        `UpstreamError` when no other trajectory came back either.
        """
        cost = spending or RunningCost()
        run = _Run(
            self, observation, insertion, background, cost, decided, effort, enough, ask_teacher
        )
        try:
            return await run.finish(patience)
        finally:
            await run.cancel()

    async def teacher(self, observation: Observation, insertion: Insertion) -> Trajectory:
        """The Teacher's answer alone, in the background, as an exploration would ask for it."""
        run = _Run(self, observation, insertion, True, RunningCost())
        return await run.sample(run.teacher())


class _Run:
    """One exploration's tasks and results."""

    def __init__(
        self,
        explorer: Explorer,
        observation: Observation,
        insertion: Insertion,
        background: bool,
        spending: RunningCost,
        decided: IsDecided | None = None,
        effort: Effort | None = None,
        enough: IsDecided | None = None,
        ask_teacher: AskTeacher | None = None,
    ) -> None:
        self._explorer = explorer
        self._options = explorer.options
        self._observation = observation
        self._insertion = insertion
        self._background = background
        self._spending = spending
        self._ask_teacher = ask_teacher
        self._decided = decided
        self._students = self._options.students if effort is None or effort.explore else 0
        self._tutored = self._students > 1 and (effort is None or effort.tutor)
        self._enough = None if effort is None or self._students < 2 else enough
        """Set while not all have been asked; those not asked yet count as being out."""
        self._patient = self._enough is not None and effort is not None and effort.patient
        self._variants: list[str] | None = None
        """The Tutor's, of a patient exploration; None before it was asked."""
        self._room = asyncio.Semaphore(self._options.concurrency)
        self._frame = self._framed(observation.messages)
        self._sent: dict[asyncio.Task[Trajectory], Call] = {}
        self._tutor: asyncio.Task[list[str] | None] | None = None
        self._done: dict[str, Trajectory] = {}
        self._teacher_error: UpstreamError | None = None
        self._tutor_cost = Cost()
        self._problems: list[str] = []

    def _framed(self, conversation: Sequence[Message]) -> list[Message]:
        """The conversation with the form of the answer, and what the request is given."""
        return self._insertion.into(add_to_system(conversation, self._form()))

    def _form(self) -> str:
        """What is said of the answer's form; nothing where the client says it, unless by a pack of
        its choice that asks for no box."""
        observation = self._observation
        if not observation.framed:
            return ""
        name = ANSWER_PROMPT[observation.task]
        form = self._explorer.prompts.get(observation.domain, name).render().text
        ours = observation.domain == DEFAULT_DOMAIN or asks_for_box(form)
        return "" if ours and prescribed(observation.messages, observation.params) else form

    async def finish(self, patience: float | None = None) -> ExplorerResult:
        self._start(self.teacher())
        if self._students > 0:
            self._start(self._student(1, []))
        if self._enough is None:
            self._start_rest()
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._collect_within(patience)
        except TimeoutError:
            self._problems.append("explore_timeout")
        await self.cancel()
        for task, call in self._sent.items():
            # What came back while the others were being judged counts all the same.
            if name_of(call) not in self._done and not task.cancelled():
                self._done[name_of(call)] = task.result()
        self._raise_if_hopeless()
        return self._result()

    def _start_rest(self) -> None:
        """The Tutor, or the other Students where it is of no use."""
        if self._tutored and self._explorer.tutor.useful(self._observation):
            self._tutor = asyncio.create_task(self._ask_tutor(self._students - 1))
        else:
            self._start_variants([])

    def _go_on(self) -> None:
        """After those that were asked first did not settle it."""
        if not self._patient:
            self._enough = None
            self._start_rest()
        elif self._variants is None:
            self._start_rest()
        else:
            self._start_next()

    async def _collect_within(self, patience: float | None) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._collect()
        except TimeoutError:
            self._problems.append(CUT_SHORT)
            teacher = next(task for task, call in self._sent.items() if call.role is Role.TEACHER)
            await self.cancel(spared=teacher)
            await asyncio.wait({teacher})

    async def _collect(self) -> None:
        total = self._students + 1
        while True:
            open_tasks = [task for task in self._sent if not self._back(task)]
            waiting: set[asyncio.Task[object]] = {*open_tasks}
            if self._tutor is not None:
                waiting.add(self._tutor)
            if not waiting:
                back = list(self._done.values())
                if self._enough is None or await self._enough(back, total - len(back)):
                    return
                self._go_on()
                continue
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._tutor is not None and self._tutor.done():
                self._take_variants(self._tutor.result())
                self._tutor = None
            for task in open_tasks:
                if task.done():
                    self._done[name_of(self._sent[task])] = task.result()
            if isinstance(self._teacher_error, UpstreamRejected):
                return
            if self._decided is not None and self._enough is None:
                back = list(self._done.values())
                if await self._decided(back, total - len(back)):
                    return

    def _take_variants(self, variants: list[str] | None) -> None:
        if variants is None:
            self._problems.append(TUTOR_FAILED)
        elif len(variants) < self._students - 1:
            self._problems.append(TOO_FEW_WORDINGS)
        self._start_variants(variants or [])

    def _back(self, task: asyncio.Task[Trajectory]) -> bool:
        return name_of(self._sent[task]) in self._done

    def _start(self, call: Call) -> None:
        self._sent[asyncio.create_task(sample_in_span(call, self.sample))] = call

    def _start_variants(self, variants: list[str]) -> None:
        if self._patient:
            self._variants = variants
            self._start_next()
            return
        for index in range(2, self._students + 1):
            self._start(self._student(index, variants))

    def _start_next(self) -> None:
        """The next Student alone; `_enough` is asked again when it is back."""
        index, variants = len(self._sent), self._variants or []
        self._start(self._student(index, variants))
        if index == self._students:
            self._enough = None

    def teacher(self) -> Call:
        observation = self._observation
        cap = self._options.max_tokens if self._background else None
        params = teacher_params(observation, cap)
        return Call(Role.TEACHER, 0, observation.question, self._frame, params)

    def _student(self, index: int, variants: list[str]) -> Call:
        variant = dict(enumerate(variants, start=2)).get(index)
        observation, options = self._observation, self._options
        params = student_params(
            observation, index, options.temperature, options.top_p, options.max_tokens
        )
        if variant is None:
            return Call(Role.STUDENT, index, observation.question, self._frame, params)
        messages = self._framed(replace_question(observation.messages, variant))
        return Call(Role.STUDENT, index, variant, messages, params)

    async def _ask_tutor(self, count: int) -> list[str] | None:
        """Wordings that ask the same; None when the Tutor gave no answer that can be read."""
        observation = self._observation
        tutor = self._explorer.tutor
        prompt = tutor.render(observation, count)
        params = {
            "temperature": self._options.temperature,
            "seed": derived_seed(observation.seed, Role.TUTOR, 0),
            "max_tokens": min(self._options.max_tokens, tutor.room(observation, count)),
            **thinking_switches(observation),
        }
        try:
            with span("tutor"):
                async with self._room:
                    self._spending.open += 1
                    answer, completion = await self._explorer.backend.structured(
                        observation.model,
                        list(prompt.messages),
                        tutor.schema(count),
                        params,
                        background=self._background,
                    )
        except UpstreamError:
            self._tutor_cost = self._spending.back(Cost(calls=1))
            return None
        self._tutor_cost = self._spending.back(completion.cost)
        self._note_thinking(completion)
        if answer is not None:
            return tutor.parse(answer, observation.question, count)
        # No whole object, but perhaps the beginning of one.
        return tutor.parse(completion.text, observation.question, count) or None

    async def sample(self, call: Call) -> Trajectory:
        try:
            async with self._room:
                self._spending.open += 1
                completion = await self._complete(call)
        except UpstreamError as error:
            self._spending.back(Cost(calls=1))
            if call.role is Role.TEACHER:
                self._teacher_error = error
            return failed_trajectory(call, error.message)
        self._note_thinking(completion)
        return Trajectory(
            role=call.role,
            index=call.index,
            variant=call.variant,
            text=completion.text,
            reasoning=completion.reasoning,
            finish_reason=completion.finish_reason,
            logprobs=completion.logprobs,
            raw_logprobs=completion.raw_logprobs,
            raw=completion.raw,
            cost=self._spending.back(completion.cost),
        )

    async def _complete(self, call: Call) -> Completion:
        if call.role is Role.TEACHER and self._ask_teacher is not None:
            return await self._ask_teacher(self._form(), self._insertion, call.params)
        return await self._explorer.backend.complete(
            self._observation.model,
            call.messages,
            call.params,
            background=self._background,
            logprobs=True,
        )

    def _note_thinking(self, completion: Completion) -> None:
        if completion.spent_on_thinking and THINKING_SPENT not in self._problems:
            self._problems.append(THINKING_SPENT)

    async def cancel(self, *, spared: asyncio.Task[Trajectory] | None = None) -> None:
        tasks: list[asyncio.Task[object]] = [task for task in self._sent if task is not spared]
        if self._tutor is not None:
            tasks.append(self._tutor)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _raise_if_hopeless(self) -> None:
        error = self._teacher_error
        if error is None:
            return
        answered = any(t.failure is None for t in self._done.values())
        if isinstance(error, UpstreamRejected) or not answered:
            raise error
        self._problems.append("teacher_failed")

    def _result(self) -> ExplorerResult:
        for call in self._sent.values():
            self._done.setdefault(name_of(call), failed_trajectory(call, "cancelled"))
        trajectories = sorted(
            self._done.values(), key=lambda t: (t.role is not Role.TEACHER, t.index)
        )
        cost = sum((t.cost for t in trajectories), self._tutor_cost)
        return ExplorerResult(tuple(trajectories), cost, tuple(self._problems))
