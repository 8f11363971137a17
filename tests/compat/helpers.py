"""Requests, scripts and checks that the compatibility cases share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.fakes import (
    Call,
    Reply,
    ScriptedUpstream,
    instance_of,
    is_distiller,
    is_student,
    is_teacher,
    is_tutor,
    schema_of,
)
from tests.gateway import MODEL

QUESTION = "How many apples are left when five of the twelve apples in the basket are eaten?"
RULED = "ruled"
"""Namespace of the quiet gateway that has one active rule near QUESTION."""
RULE = "Check the subtraction by adding the parts back together."
POSITIVE = "Check every subtraction by adding the parts back together."
NEGATIVE = "Avoid stating a total before all of the parts have been counted."
WORDINGS = (
    "When five of the twelve apples in the basket are eaten, how many apples are left?",
    "Five of the twelve apples in the basket are eaten: how many apples are left?",
    "The basket has twelve apples and five of the apples are eaten; how many are left?",
    "Of twelve apples in the basket, five apples are eaten; how many apples are left?",
)


def ask(mode: str | None = None, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """A chat request; mode and the namespace with the rule travel in the body."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "ttcl": {"mode": mode, "namespace": RULED} if mode else {"namespace": RULED},
    }
    body["ttcl"].update(fields.pop("ttcl", {}))
    return {**body, **fields}


def for_client(body: dict[str, Any]) -> dict[str, Any]:
    """The same request as arguments of the official client."""
    rest = dict(body)
    return {"extra_body": {"ttcl": rest.pop("ttcl")}, **rest} if "ttcl" in rest else rest


def script_loop(
    upstream: ScriptedUpstream,
    *,
    wordings: Sequence[str] = WORDINGS,
    positive: str = POSITIVE,
    negative: str = NEGATIVE,
    trigger: str = "counting what is left",
) -> None:
    """Scripts the Tutor and the distiller; Teacher and Students are left to the test."""

    def tutor(body: dict[str, Any]) -> Reply:
        value = instance_of(schema_of(body) or {})
        for name, items in value.items():
            if isinstance(items, list):
                value[name] = list(wordings[: max(len(items), 1)])
        return Reply.of_json(value)

    upstream.when(is_tutor, tutor)
    upstream.when(
        is_distiller,
        lambda body: Reply.of_json(
            {
                name: {"positive": positive, "negative": negative, "trigger": trigger}.get(name)
                for name in (schema_of(body) or {})["properties"]
            }
        ),
    )


def script_majority(upstream: ScriptedUpstream, teacher: str, students: str) -> None:
    """The Students agree on another answer than the Teacher's, so theirs is selected."""
    upstream.when(is_student, Reply(students))
    upstream.when(is_teacher, Reply(teacher))


def visible_call(upstream: ScriptedUpstream, mode: str) -> Call:
    """The upstream call that carries the client's own request: in explore the Teacher's."""
    if mode == "explore":
        return next(call for call in upstream.chats if is_teacher(call.body))
    return upstream.chats[0]


def check_stream_shape(frames: list[dict[str, Any]], model: str, choices: int = 1) -> None:
    """Case 1, on raw chunks."""
    assert frames
    for name in ("id", "created", "model"):
        assert len({frame[name] for frame in frames}) == 1, name
    assert frames[0]["model"] == model
    assert {frame["object"] for frame in frames} == {"chat.completion.chunk"}
    for index in range(choices):
        parts = [c for f in frames for c in f["choices"] if c["index"] == index]
        assert parts[0]["delta"].get("role") == "assistant"
        reasons = [part["finish_reason"] for part in parts]
        assert reasons[-1] is not None
        assert reasons[:-1] == [None] * (len(reasons) - 1)


def check_error(body: Any) -> dict[str, Any]:
    """Case 19: the envelope and nothing else; returns the error."""
    assert isinstance(body, dict), body
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    return dict(error)
