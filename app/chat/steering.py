"""Steer: look up experience before the model is asked. The episode's first write goes on beside the
look-up and the model server's work, and is waited for before anything of the answer goes out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from app.chat.call import CHORE, ChatCall, SteeredRequest
from app.chat.control import STEERING_SUSPENDED, conversation_key
from app.chat.recorder import STORE_DOWN, OpenEpisode, Recorder
from app.domain.trajectory import Message, Mode
from app.loop.steer.budget import TokenCounter, fit
from app.loop.steer.conversations import ConversationCache, is_agents, turn_key
from app.loop.steer.experience import Experience
from app.loop.steer.injector import instructions_of
from app.loop.steer.retriever import Retrieval, Retriever
from app.loop.steer.writer import ExperienceWriter, Insertion
from app.observability.metrics import Metrics
from app.observability.tracing import set_attributes, span
from rules_store.operations.effect import EffectOperations
from rules_store.policy.control import Arm

INDEX_INCOMPLETE = "index_incomplete"
"""There are rules or examples that have no vector yet, and may have fitted."""
NOT_EXPLORED = "not_explored"
"""Of a request that asked for it; with the reason."""


class Steering:
    def __init__(
        self,
        effect: EffectOperations,
        retriever: Retriever,
        recorder: Recorder,
        counter: TokenCounter,
        writer: ExperienceWriter,
        metrics: Metrics,
        token_budget: int,
    ) -> None:
        self._effect = effect
        self._retriever = retriever
        self._recorder = recorder
        self._counter = counter
        self._writer = writer
        self._metrics = metrics
        self._budget = token_budget
        self._conversations = ConversationCache()

    def new_episode(self) -> str:
        return self._recorder.new_id()

    async def steer(self, call: ChatCall) -> SteeredRequest:
        """Never fails for a broken store or embedder: the answer then goes out unsteered."""
        with span("steer") as step:
            steered = await self._steer(call)
            set_attributes(
                step,
                rules=len(steered.experience.rules),
                examples=len(steered.experience.examples),
                given=steered.experience.given.value,
                arm=call.summary.arm,
                degraded=steered.degraded or None,
            )
            return steered

    async def _steer(self, call: ChatCall) -> SteeredRequest:
        obstacle = call.obstacle or call.reading.bound
        mode = Mode.STEER if obstacle is not None else call.mode
        suspended = self._effect.suspension_of(call.namespace) is not None
        steered = SteeredRequest(mode, call.episode, self._opening(call, mode))
        if mode is Mode.EXPLORE or not self._recorder.works:
            # Many calls, or one for nothing where the store is known to be away, are not begun.
            await self.settle(call, steered)
        if call.chore is not None:
            self.degrade(steered, f"{CHORE}:{call.chore}")
        elif mode is not call.mode:
            self.degrade(steered, f"{NOT_EXPLORED}:{obstacle}")
        if suspended:
            self.degrade(steered, STEERING_SUSPENDED)
        elif call.chore is None and (steered.opening is not None or steered.recorded):
            await self._give(call, steered, await self._retrieved(call))
        return steered

    def _opening(self, call: ChatCall, mode: Mode) -> asyncio.Task[OpenEpisode]:
        """The episode's first write, begun as soon as the request waits for something: for an
        embedding, else for the model server."""
        assert call.episode is not None
        return asyncio.create_task(
            self._recorder.open(
                call.episode,
                namespace=call.namespace,
                mode=mode,
                question=call.question,
                model=call.model.id,
                request_id=call.client_request_id,
                raw=call.raw,
                is_retry=call.is_retry,
                key_id=call.caller.name,
            )
        )

    async def settle(self, call: ChatCall, steered: SteeredRequest) -> bool:
        """Waits for the episode's first write. Where the store could not take it, nothing is given
        any more: experience that leaves no trace could be neither explained nor undone. True where
        something had been given until now."""
        if steered.opening is None:
            return False
        # It goes on whoever leaves: the end of the episode is written after it.
        opened = await asyncio.shield(steered.opening)
        steered.opening = None
        steered.recorded, steered.duplicate = opened.recorded, opened.duplicate
        if opened.recorded:
            return False
        given = bool(steered.experience)
        steered.give_nothing()
        call.summary.arm = None
        self.degrade(steered, STORE_DOWN)
        return given

    async def _give(self, call: ChatCall, steered: SteeredRequest, retrieval: Retrieval) -> None:
        """Draws the request's arm; control gets nothing of what was found for it, for which it is
        looked up all the same: what could have been given is to be known of both arms."""
        drawn = None
        if not call.playground:
            drawn = self._effect.assign(call.namespace, conversation_key(call))
            call.summary.arm = drawn.arm.value
        steered.assignment = drawn
        steered.offered = len(retrieval.experience.offered) > 1
        if retrieval.degraded is not None:
            self.degrade(steered, retrieval.degraded)
        elif drawn is None or drawn.arm is Arm.STEERED:
            if retrieval.incomplete:
                self.degrade(steered, INDEX_INCOMPLETE)
            steered.experience = await fit(
                retrieval.experience,
                model=call.model.id,
                counter=self._counter,
                budget=self._budget,
                context=call.model.context_length,
                messages=call.messages,
                answer_tokens=call.request.answer_tokens,
            )

    async def _retrieved(self, call: ChatCall) -> Retrieval:
        assert call.episode is not None
        limits = call.limits
        if call.has_images:
            # What such a question is like can't be told from its text.
            limits = replace(limits, examples=0)
        seed, key = call.episode, None
        if is_agents(call.messages, call.fields):
            # All steps of a turn are to get the same, whatever is drawn and learned meanwhile.
            seed = key = turn_key(call.namespace, call.model.id, call.messages, limits)
            if (given := self._given_before(call, key)) is not None:
                return Retrieval(given)
        retrieval = await self._retriever.retrieve(
            call.namespace,
            call.question,
            limits,
            instructions=instructions_of(call.messages),
            seed=None if call.playground else seed,
        )
        if key is not None and retrieval.degraded is None:
            self._conversations.keep(key, retrieval.experience)
        return retrieval

    def _given_before(self, call: ChatCall, key: str) -> Experience | None:
        """What the earlier steps of the turn got, less what must not be shown any more."""
        given = self._conversations.get(key)
        if given is not None:
            given = self._retriever.still_there(call.namespace, given)
            self._conversations.keep(key, given)
        return given

    def degrade(self, steered: SteeredRequest, reason: str) -> None:
        """Say that a step was skipped: to the client, and in a metric."""
        if reason not in steered.degraded:
            steered.degraded.append(reason)
            self._metrics.degraded.labels(reason).inc()

    def messages(self, call: ChatCall, steered: SteeredRequest) -> list[Message]:
        """The conversation with what the request is given in it, as chat has it."""
        if steered.sent is None:
            given = self.insertion(call, steered)
            steered.sent = given.into(call.messages, in_question=call.reading.in_question)
        return steered.sent

    def insertion(self, call: ChatCall, steered: SteeredRequest) -> Insertion:
        """What the request is given, in words."""
        if steered.insertion is None:
            given = steered.experience
            steered.insertion = self._writer.write(
                given.rules,
                given.examples,
                domain=call.domain,
                messages=call.messages,
                fields=call.fields,
                namespace=call.namespace,
            )
        return steered.insertion
