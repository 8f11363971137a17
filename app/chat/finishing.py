"""The end of a request: its episode made durable, with or without something to learn."""

from __future__ import annotations

import asyncio
from typing import Any

from app.chat.call import ChatCall, SteeredRequest, observe
from app.chat.recorder import (
    KEY_MAY_NOT_LEARN,
    LEARNING_OFF,
    NOT_RECORDED,
    OpenEpisode,
    Recorder,
)
from app.chat.steering import Steering
from app.domain.serialization import (
    contrast_to_json,
    examples_to_json,
    hits_to_json,
    observation_to_json,
    request_to_json,
    selection_to_json,
    trajectories_to_json,
)
from app.domain.tokens import CHARACTERS_PER_TOKEN
from app.domain.trajectory import Cost, Message
from app.learning.evaluation.outcomes import agreement_outcome, teacher_text
from app.loop.loop import Exploration
from app.loop.steer.experience import Experience
from app.loop.steer.injector import prompt_of
from app.observability.metrics import Metrics
from app.observability.tracing import current, set_attributes, trace_headers
from rules_store.models.effect import Served
from rules_store.models.episodes import PLAYGROUND
from rules_store.models.evidence import NO_FINDINGS, Findings
from rules_store.models.keys import Permission
from rules_store.models.rules import RuleHit


class Finisher:
    def __init__(self, recorder: Recorder, steering: Steering, metrics: Metrics) -> None:
        self._recorder = recorder
        self._steering = steering
        self._metrics = metrics
        self._abandoned: set[asyncio.Task[None]] = set()

    async def answered(
        self, call: ChatCall, steered: SteeredRequest, answer: str, cost: Cost, *, complete: bool
    ) -> None:
        """A steered answer: what it teaches is found out in the background. An incomplete one is
        not kept, so that the client's retry counts as the first."""
        obstacle = call.obstacle or (None if complete else "answer_incomplete")
        skipped = self._why_not(call, steered, obstacle, sampled=True)
        job = None
        if skipped is None:
            job = {
                "observation": observation_to_json(observe(call, steered)),
                "origin": _origin(call),
            }
        kept = answer if complete else None
        trace = self._trace(call, steered, cost)
        await self._finish(call, steered, kept, trace, skipped, job, cost=cost)

    async def explored(
        self, call: ChatCall, steered: SteeredRequest, exploration: Exploration
    ) -> None:
        """An explored answer: its contrast waits for the distiller."""
        selection = exploration.selection
        obstacle = None if selection.better else f"no_contrast:{selection.case.value}"
        skipped = self._why_not(call, steered, obstacle, sampled=False)
        findings = NO_FINDINGS
        if skipped is not None and skipped == obstacle:
            # Answers that scatter teach no rule, but they speak about those that were injected.
            findings = Findings(agreement_outcome(selection))
        trace = self._trace(call, steered, exploration.cost)
        trace["trajectories"] = trajectories_to_json(exploration.trajectories, selection)
        trace["selection"] = selection_to_json(selection)
        job = None
        if skipped is None:
            observation = observe(call, steered)
            job = {
                "observation": observation_to_json(observation),
                "contrast": contrast_to_json(selection),
                "teacher": teacher_text(exploration.trajectories),
                "origin": _origin(call),
            }
        answer = selection.chosen.text if selection.chosen is not None else None
        await self._finish(
            call, steered, answer, trace, skipped, job, findings, cost=exploration.cost
        )

    async def failed(self, call: ChatCall, steered: SteeredRequest, reason: str) -> None:
        """No answer went out: the episode says why, and nothing is learned."""
        await self._steering.settle(call, steered)
        call.summary.error = reason
        skipped = PLAYGROUND if call.playground else reason
        await self._finish(call, steered, None, self._trace(call, steered, Cost(1)), skipped, None)

    def abandon(self, call: ChatCall, steered: SteeredRequest, reason: str) -> None:
        """As `failed`, for a caller that is being cancelled and can't wait."""
        # Now: by the time that it is written down, the request's span has ended.
        set_attributes(current(), skipped=reason)
        task = asyncio.create_task(self.failed(call, steered, reason))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def drain(self) -> None:
        await asyncio.gather(*self._abandoned, return_exceptions=True)

    def _why_not(
        self, call: ChatCall, steered: SteeredRequest, obstacle: str | None, *, sampled: bool
    ) -> str | None:
        if call.playground:
            return PLAYGROUND
        opened = OpenEpisode(steered.episode or "", steered.recorded, steered.duplicate)
        return self._recorder.why_not(
            opened,
            key_id=call.caller.name,
            namespace=call.namespace,
            wanted=call.options.learn,
            allowed=call.caller.may(Permission.LEARN),
            obstacle=obstacle,
            sampled=sampled,
        )

    def _trace(self, call: ChatCall, steered: SteeredRequest, cost: Cost) -> dict[str, Any]:
        given = steered.experience
        # Images are the client's data and large; the conversation around them is not kept either.
        sent = None
        if not (call.has_images or call.too_large):
            sent = self._steering.messages(call, steered)
        return {
            "messages_sent": sent,
            "request": _request(call, steered, sent),
            "rules_injected": hits_to_json(given.rules),
            "examples_injected": examples_to_json(given.examples),
            "given": {
                "chosen": given.given.value,
                "offered": [each.value for each in given.offered],
            },
            **_withheld(given),
            **_drawn(steered),
            "cost": cost.as_dict(),
            "milliseconds": round(call.summary.milliseconds),
            "degraded": list(steered.degraded),
            "request_id": call.client_request_id,
        }

    async def _finish(
        self,
        call: ChatCall,
        steered: SteeredRequest,
        answer: str | None,
        trace: dict[str, Any],
        skipped: str | None,
        job: dict[str, Any] | None,
        findings: Findings = NO_FINDINGS,
        *,
        cost: Cost | None = None,
    ) -> None:
        """`cost`: of an answer; None: there is none."""
        assert steered.episode is not None
        call.summary.cost, call.summary.learning = cost, skipped or "queued"
        given = steered.experience
        set_attributes(
            current(),
            mode=steered.mode.value,
            rules=len(given.rules),
            examples=len(given.examples),
            given=given.given.value,
            arm=call.summary.arm,
            degraded=steered.degraded or None,
            skipped=skipped,
        )
        self._metrics.injected.inc(len(given.rules))
        self._metrics.recalled.inc(len(given.examples))
        self._metrics.given.labels(given.given.value).inc()
        if steered.assignment is not None:
            self._metrics.arms.labels(steered.assignment.arm.value).inc()
        if skipped is not None:
            self._metrics.skipped.labels(skipped).inc()
        kept = await self._recorder.finish(
            OpenEpisode(steered.episode, steered.recorded),
            key_id=call.caller.name,
            namespace=call.namespace,
            answer=answer,
            trace=trace,
            exposures=() if call.playground else given.exposures(),
            skipped=skipped,
            job=job,
            findings=findings,
            served=None if cost is None else self._served(call, steered, cost),
        )
        if not kept and steered.recorded:
            self._steering.degrade(steered, NOT_RECORDED)

    def _served(self, call: ChatCall, steered: SteeredRequest, cost: Cost) -> Served | None:
        """For the ledger of the arms."""
        if steered.assignment is None:
            return None
        experience = 0
        if steered.experience:
            own, sent = prompt_of(call.messages), prompt_of(self._steering.messages(call, steered))
            experience = max(1, (len(sent) - len(own)) // CHARACTERS_PER_TOKEN)
        return Served(
            steered.assignment,
            offered=steered.offered,
            milliseconds=call.summary.milliseconds,
            prompt_tokens=cost.prompt_tokens or None,
            completion_tokens=cost.completion_tokens or None,
            experience_tokens=experience,
        )


def _drawn(steered: SteeredRequest) -> dict[str, Any]:
    """Whether the request was control, and how likely that was."""
    drawn = steered.assignment
    return {} if drawn is None else {"arm": {"name": drawn.arm.value, "control": drawn.share}}


def _request(call: ChatCall, steered: SteeredRequest, sent: list[Message] | None) -> dict[str, Any]:
    """What feedback on the answer may be learned from, or why there is nothing."""
    wanted = call.options.learn
    obstacle = call.obstacle
    if wanted is False:
        obstacle = LEARNING_OFF
    elif not call.caller.may(Permission.LEARN):
        obstacle = KEY_MAY_NOT_LEARN
    if obstacle is not None:
        return {"obstacle": obstacle}
    return request_to_json(observe(call, steered), sent)


def _origin(call: ChatCall) -> dict[str, str]:
    """What the logs and the trace of a job name as the request that it is about."""
    return {"request_id": call.request_id, **trace_headers(current())}


def _withheld(given: Experience) -> dict[str, Any]:
    """Of most requests nothing."""
    left_out = given.withheld
    if left_out is None:
        return {}
    if isinstance(left_out, RuleHit):
        name, shown = "rule_withheld", hits_to_json((left_out,))[0]
    else:
        name, shown = "example_withheld", examples_to_json((left_out,))[0]
    return {name: {field: shown[field] for field in shown if field != "position"}}
