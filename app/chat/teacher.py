"""The Teacher's call of an exploration in the client's own format, so that its answer can be passed
on as it came."""

from __future__ import annotations

import dataclasses
from typing import Any

from app.chat.call import ChatCall
from app.chat.formats import ApiFormat, additions
from app.chat.system_role import SystemRole
from app.domain import json_text
from app.exceptions import UpstreamRejected
from app.loop.steer.writer import Insertion
from app.upstream.client import Upstream
from app.upstream.refusals import is_plain
from app.upstream.types import Completion, LoopParams
from app.upstream.usage import UsageReader

_ADDED = frozenset({"temperature"})
"""What of the Teacher's own parameters every format has."""
_SAID = frozenset({"model", "messages", "stream"})
_PLAIN = _SAID | {
    "input",
    "instructions",
    "system",
    "max_tokens",
    "max_output_tokens",
    "temperature",
    "top_p",
    "user",
    "store",
}


class FormatTeacher:
    def __init__(self, upstream: Upstream, call: ChatCall, fmt: ApiFormat) -> None:
        self._upstream = upstream
        self._call = call
        self._format = fmt

    async def ask(self, form: str, insertion: Insertion, params: dict[str, Any]) -> Completion:
        """An `AskTeacher`: the client's request, with the form of the answer and the experience in
        it. Not streamed: the whole answer is what can be passed on. Raises `UpstreamError`."""
        call = self._call
        role = SystemRole(self._upstream.capabilities_of(call.model.id), call.messages)
        names = params.added & _ADDED if isinstance(params, LoopParams) else ()
        added = {name: params[name] for name in names}
        while True:
            given = additions(
                insertion, in_question=call.in_question, form=form, folded=role.folded
            )
            body = {**self._format.add(call.body, given), "stream": False}
            body.pop("stream_options", None)
            try:
                answer = await self._upstream.answer_to(
                    self._format.path, body, added=added, plain=_is_plain(call)
                )
            except UpstreamRejected as error:
                if given.system and role.fold(error):
                    continue
                raise
            role.taken()
            usage = UsageReader()
            usage.note(answer)
            cost = usage.cost(json_text.dumps(body), whole=True)
            completion = self._format.completion(answer, cost)
            if 0 < call.request.answer_tokens <= cost.completion_tokens:
                # llama.cpp says of a Response that was cut that it is complete.
                completion = dataclasses.replace(completion, finish_reason="length")
            return completion


def _is_plain(call: ChatCall) -> bool:
    """Whether nothing that the client sent can make a model refuse what the loop adds."""
    sampling = {name: value for name, value in call.fields.items() if name not in _SAID}
    return call.body.keys() <= _PLAIN and is_plain(sampling)
