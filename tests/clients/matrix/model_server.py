"""A model server that speaks chat, completions, Responses and Messages, streamed and whole.

It multiplies 12 by 7. Where a request offers tools it calls the first one before it answers, with
arguments that fit the tool's schema; where it asks for a JSON schema it fills that.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from tests.app.api.inference_server import Asked, InferenceServer, Told, streamed
from tests.fakes import is_distiller, is_tutor

Body = dict[str, Any]
MODEL = "scripted-model"
TEXT = "12 times 7 is 84."
_USAGE = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
_FIELDS: dict[str, Any] = {"a": 12, "b": 7}


class ClientsModel(InferenceServer):
    def __init__(self) -> None:
        super().__init__()
        self.answers["/v1/models"] = Told(body={"object": "list", "data": [{"id": MODEL}]})
        self.answers["/v1/chat/completions"] = _chat
        self.answers["/v1/completions"] = _completions
        self.answers["/v1/responses"] = _responses
        self.answers["/v1/messages"] = _messages


def _filled(schema: Body) -> Any:
    """A value that fits a JSON schema, as far as clients' own schemas go."""
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties: Body = schema.get("properties") or {}
        return {name: _FIELDS.get(name, _filled(each)) for name, each in properties.items()}
    if kind == "array":
        return [_filled(schema.get("items") or {})]
    return {"integer": 84, "number": 84, "boolean": True}.get(str(kind), "84")


def _events(events: list[Body], *, named: bool = False, done: bool = False) -> Told:
    pieces: list[bytes | None] = []
    for event in events:
        name = b"event: " + event["type"].encode() + b"\n" if named else b""
        pieces.append(name + b"data: " + orjson.dumps(event) + b"\n\n")
    if done:
        pieces.append(b"data: [DONE]\n\n")
    return streamed(*pieces)


# -- chat -----------------------------------------------------------------------------------------


def _chat(asked: Asked) -> Told:
    body: Body = json.loads(asked.body)
    answered = any(message["role"] == "tool" for message in body["messages"])
    message: Body = {"role": "assistant", "content": TEXT}
    finish = "stop"
    if body.get("tools") and not answered:
        function = body["tools"][0]["function"]
        given = {"name": function["name"], "arguments": json.dumps(_filled(function["parameters"]))}
        message = {"role": "assistant", "content": None}
        message["tool_calls"] = [
            {"index": 0, "id": "call_1", "type": "function", "function": given}
        ]
        finish = "tool_calls"
    elif is_tutor(body) or is_distiller(body):
        message["content"] = "{}"
    elif (wanted := (body.get("response_format") or {}).get("json_schema")) is not None:
        message["content"] = json.dumps(_filled(wanted["schema"]))
    head = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return Told(
            body={**head, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
        )
    head["object"] = "chat.completion.chunk"
    parts: list[Body] = [{"role": "assistant", "content": ""}]
    words = (message.pop("content") or "").split(" ")
    parts += [{"content": word if at == 0 else f" {word}"} for at, word in enumerate(words) if word]
    if "tool_calls" in message:
        parts.append({"tool_calls": message["tool_calls"]})
    choices: list[Body] = [{"index": 0, "delta": part, "finish_reason": None} for part in parts]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    frames: list[Body] = [{**head, "choices": [choice]} for choice in choices]
    if (body.get("stream_options") or {}).get("include_usage"):
        frames.append({**head, "choices": [], "usage": _USAGE})
    return _events(frames, done=True)


def _completions(asked: Asked) -> Told:
    body: Body = json.loads(asked.body)
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    choices = [
        {"index": at, "text": f" {TEXT}", "finish_reason": "stop", "logprobs": None}
        for at, _ in enumerate(prompts)
    ]
    whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    whole |= {"choices": choices, "usage": _USAGE}
    return _events([whole], done=True) if body.get("stream") else Told(body=whole)


# -- Responses ------------------------------------------------------------------------------------


def _responses(asked: Asked) -> Told:
    body: Body = json.loads(asked.body)
    given = body["input"] if isinstance(body["input"], list) else []
    answered = any(item.get("type") == "function_call_output" for item in given)
    wanted = ((body.get("text") or {}).get("format") or {}).get("schema")
    text = json.dumps(_filled(wanted)) if wanted else TEXT
    if body.get("tools") and not answered:
        tool = body["tools"][0]
        arguments = json.dumps(_filled(tool["parameters"]))
        item: Body = {"type": "function_call", "id": "fc_1", "call_id": "call_1"}
        item |= {"name": tool["name"], "arguments": arguments, "status": "completed"}
    else:
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        item["content"] = [{"type": "output_text", "text": text, "annotations": []}]
    usage = {"input_tokens": 9, "output_tokens": 6, "total_tokens": 15}
    usage |= {"input_tokens_details": {"cached_tokens": 0}}  # type: ignore[dict-item]
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed",
        "model": body["model"], "output": [item], "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "usage": usage, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {},
        "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip
    if not body.get("stream"):
        return Told(body=whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[Body] = [{"type": "response.created", "response": begun}]
    place = {"output_index": 0, "item_id": item["id"]}
    if item["type"] == "message":
        part = item["content"][0]
        opened, empty = {**item, "status": "in_progress", "content": []}, {**part, "text": ""}
        inside = {**place, "content_index": 0}
        events += [
            {"type": "response.output_item.added", "output_index": 0, "item": opened},
            {"type": "response.content_part.added", **inside, "part": empty},
            {"type": "response.output_text.delta", **inside, "delta": text[:5], "logprobs": []},
            {"type": "response.output_text.delta", **inside, "delta": text[5:], "logprobs": []},
            {"type": "response.output_text.done", **inside, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **inside, "part": part},
        ]
    else:
        opened, arguments = {**item, "arguments": ""}, item["arguments"]
        events += [
            {"type": "response.output_item.added", "output_index": 0, "item": opened},
            {"type": "response.function_call_arguments.delta", **place, "delta": arguments},
            {"type": "response.function_call_arguments.done", **place, "arguments": arguments,
             "name": item["name"]},
        ]  # fmt: skip
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    numbered = [{**event, "sequence_number": at} for at, event in enumerate(events)]
    return _events(numbered, named=True)


# -- Messages -------------------------------------------------------------------------------------


def _messages(asked: Asked) -> Told:
    body: Body = json.loads(asked.body)
    answered = any(
        isinstance(message["content"], list)
        and any(part.get("type") == "tool_result" for part in message["content"])
        for message in body["messages"]
    )
    block: Body = {"type": "text", "text": TEXT}
    reason = "end_turn"
    if body.get("tools") and not answered:
        tool = body["tools"][0]
        block = {"type": "tool_use", "id": "toolu_1", "name": tool["name"]}
        block["input"] = _filled(tool["input_schema"])
        reason = "tool_use"
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
        "content": [block], "stop_reason": reason, "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 6},
    }  # fmt: skip
    if not body.get("stream"):
        return Told(body=whole)
    begun = {**whole, "content": [], "stop_reason": None}
    if block["type"] == "text":
        opened: Body = {"type": "text", "text": ""}
        deltas: list[Body] = [{"type": "text_delta", "text": part} for part in (TEXT[:5], TEXT[5:])]
    else:
        opened = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    events: list[Body] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": opened},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
         "usage": {"output_tokens": 6}},
        {"type": "message_stop"},
    ]  # fmt: skip
    return _events(events, named=True)
