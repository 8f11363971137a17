"""Steer: open the episode and look up rules, side by side, before the model is asked."""

from __future__ import annotations

import asyncio
from functools import partial

from app.chat.call import ChatCall, SteeredRequest
from app.chat.recorder import STORE_DOWN, Recorder
from app.domain.trajectory import Message, Mode
from app.loop.steer.block import render_block
from app.loop.steer.budget import TokenCounter, fit
from app.loop.steer.injector import inject
from app.loop.steer.retriever import Retriever
from app.observability.metrics import Metrics
from app.observability.tracing import set_attributes, span
from app.prompt_library import PromptLibrary

NOT_EXPLORED = "not_explored"
"""Of a request that asked for it; with the reason."""


class Steering:
    def __init__(
        self,
        retriever: Retriever,
        recorder: Recorder,
        counter: TokenCounter,
        prompts: PromptLibrary,
        metrics: Metrics,
        token_budget: int,
    ) -> None:
        self._retriever = retriever
        self._recorder = recorder
        self._counter = counter
        self._prompts = prompts
        self._metrics = metrics
        self._budget = token_budget

    def new_episode(self) -> str:
        return self._recorder.new_id()

    async def steer(self, call: ChatCall) -> SteeredRequest:
        """Never fails for a broken store or embedder: the answer then goes out unsteered."""
        with span("steer") as step:
            steered = await self._steer(call)
            set_attributes(step, rules=len(steered.hits), degraded=steered.degraded or None)
            return steered

    async def _steer(self, call: ChatCall) -> SteeredRequest:
        assert call.episode is not None
        mode = Mode.STEER if call.obstacle is not None else call.mode
        open_episode = partial(
            self._recorder.open,
            call.episode,
            namespace=call.namespace,
            mode=mode,
            question=call.question,
            model=call.model.id,
            request_id=call.client_request_id,
            raw=call.raw,
            is_retry=call.is_retry,
        )
        look_up = partial(
            self._retriever.retrieve,
            call.namespace,
            call.question,
            call.max_positive,
            call.max_negative,
            seed=call.episode,
        )
        if self._retriever.waits(call.namespace, call.question):
            opened, retrieval = await asyncio.gather(open_episode(), look_up())
        else:
            # Tasks would cost more than they save, and let other requests go before.
            opened, retrieval = await open_episode(), await look_up()
        steered = SteeredRequest(mode, opened.id, opened.recorded, opened.duplicate)
        if mode is not call.mode:
            self.degrade(steered, f"{NOT_EXPLORED}:{call.obstacle}")
        if not opened.recorded:
            # Rules that leave no trace could be neither explained nor undone.
            self.degrade(steered, STORE_DOWN)
        elif retrieval.degraded is not None:
            self.degrade(steered, retrieval.degraded)
        else:
            steered.hits = await fit(
                retrieval.hits,
                model=call.model.id,
                counter=self._counter,
                budget=self._budget,
                context=call.model.context_length,
                messages=call.messages,
                answer_tokens=call.request.answer_tokens,
            )
            steered.withheld, steered.scores = retrieval.withheld, retrieval.scores
        return steered

    def degrade(self, steered: SteeredRequest, reason: str) -> None:
        """Say that a step was skipped: to the client, and in a metric."""
        if reason not in steered.degraded:
            steered.degraded.append(reason)
            self._metrics.degraded.labels(reason).inc()

    def messages(self, call: ChatCall, steered: SteeredRequest) -> list[Message]:
        """The conversation as it goes upstream, with the rules block in it."""
        if steered.sent is None:
            block = render_block(self._prompts, call.domain, steered.hits)
            steered.sent = inject(call.messages, block)
        return steered.sent
