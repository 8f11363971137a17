"""The scripted upstream's `/v1/responses` and `/v1/messages`: what such a request says in chat's
terms, and an answer in the wire form that vLLM gives it (shapes of its ResponsesResponse and
AnthropicMessagesResponse, and of the events of both)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.replies import CREATED, Body, Wire

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


def as_chat(path: str, body: Body) -> Body:
    """As far as scripts and refusals look at a request."""
    if path == RESPONSES:
        given = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
        system = body.get("instructions")
        limit = body.get("max_output_tokens")
    elif path == MESSAGES:
        items, system = body.get("messages") or [], body.get("system")
        limit = body.get("max_tokens")
    else:
        return body
    messages = [{"role": "system", "content": system}] if system else []
    known = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    messages += [{"role": item.get("role"), "content": item.get("content")} for item in known]
    fields = {"stop": body.get("stop_sequences"), "max_tokens": limit, "messages": messages}
    return {**body, **{name: value for name, value in fields.items() if value is not None}}


class ResponsesWire(Wire):
    ends = b""

    def whole(self) -> Body:
        chat = super().whole()
        choice = chat["choices"][0]
        cut = choice["finish_reason"] == "length"
        output = []
        if self._reply.reasoning is not None:
            said = {"type": "reasoning_text", "text": self._reply.reasoning}
            item = {"id": "rs_scripted", "type": "reasoning", "summary": [], "content": [said]}
            output.append({**item, "status": "completed"})
        if choice["message"]["content"]:
            part = {"type": "output_text", "text": choice["message"]["content"]}
            part |= {"annotations": [], "logprobs": None}
            item = {"id": "msg_scripted", "type": "message", "role": "assistant"}
            output.append({**item, "status": "completed", "content": [part]})
        for call_id, name, arguments in self._reply.tool_calls:
            item = {"id": f"fc_{call_id}", "type": "function_call", "call_id": call_id}
            output.append({**item, "name": name, "arguments": arguments, "status": "completed"})
        used = self.usage()
        return {
            "id": self._id.replace("chatcmpl", "resp"),
            "object": "response",
            "created_at": CREATED,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": self._body.get("instructions"),
            "metadata": self._body.get("metadata"),
            "model": self._body.get("model"),
            "output": output,
            "parallel_tool_calls": True,
            "temperature": self._body.get("temperature", 1.0),
            "tool_choice": "auto",
            "tools": self._body.get("tools") or [],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": self._body.get("max_output_tokens") or 8000,
            "service_tier": "auto",
            "text": self._body.get("text"),
            "truncation": "disabled",
            "usage": {
                "input_tokens": used["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": used["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used["total_tokens"],
            },
        }

    def frames(self) -> Iterator[Body]:
        for number, frame in enumerate(self._numberless()):
            yield {**frame, "sequence_number": number}

    def _numberless(self) -> Iterator[Body]:
        whole = self.whole()
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        for index, item in enumerate(whole["output"]):
            at = {"output_index": index, "item_id": item["id"], "content_index": 0}
            empty = {"content": []} if item["type"] == "message" else {}
            shown = {**item, **empty, "status": "in_progress"}
            yield {"type": "response.output_item.added", "output_index": index, "item": shown}
            if item["type"] == "message":
                part = item["content"][0]
                yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
                for token in self._choices[0].tokens:
                    delta = {"delta": token, "logprobs": []}
                    yield {"type": "response.output_text.delta", **at, **delta}
                done = {"text": part["text"], "logprobs": []}
                yield {"type": "response.output_text.done", **at, **done}
                yield {"type": "response.content_part.done", **at, "part": part}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        yield {"type": f"response.{whole['status']}", "response": whole}

    def error(self) -> Body:
        return {"type": "error", "code": "500", "message": "scripted failure", "param": None}


class MessagesWire(Wire):
    # It ends with `[DONE]`, which Anthropic does not send, and some versions of vLLM do.

    def whole(self) -> Body:
        chat = super().whole()
        choice = chat["choices"][0]
        content: list[Body] = []
        if self._reply.reasoning is not None:
            thought = {"type": "thinking", "thinking": self._reply.reasoning}
            content.append({**thought, "signature": "scripted"})
        if choice["message"]["content"]:
            content.append({"type": "text", "text": choice["message"]["content"]})
        for call_id, name, arguments in self._reply.tool_calls:
            call = {"type": "tool_use", "id": call_id, "name": name}
            content.append({**call, "input": json.loads(arguments)})
        reasons = {"length": "max_tokens", "tool_calls": "tool_use"}
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._body.get("model"),
            "stop_reason": reasons.get(choice["finish_reason"], "end_turn"),
            "stop_sequence": None,
            "usage": self._usage(),
        }

    def _usage(self) -> Body:
        used = self.usage()
        return {"input_tokens": used["prompt_tokens"], "output_tokens": used["completion_tokens"]}

    def frames(self) -> Iterator[Body]:
        whole = self.whole()
        begun = {**whole, "content": [], "stop_reason": None}
        yield {"type": "message_start", "message": {**begun, "usage": self._begun()}}
        for index, block in enumerate(whole["content"]):
            yield from self._block(index, block)
        delta = {"stop_reason": whole["stop_reason"]}
        yield {"type": "message_delta", "delta": delta, "usage": whole["usage"]}
        yield {"type": "message_stop"}

    def _begun(self) -> Body:
        return {**self._usage(), "output_tokens": 0}

    def _block(self, index: int, block: Body) -> Iterator[Body]:
        kind = block["type"]
        if kind == "text":
            begun = {"type": "text", "text": ""}
            tokens = self._choices[0].tokens
            deltas: list[Body] = [{"type": "text_delta", "text": token} for token in tokens]
        elif kind == "thinking":
            begun = {"type": "thinking", "thinking": ""}
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            begun = {**block, "input": {}}
            said = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": said}]
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}

    def error(self) -> Body:
        return {"type": "error", "error": {"type": "internal_error", "message": "scripted failure"}}


WIRES = {RESPONSES: ResponsesWire, MESSAGES: MessagesWire}


def framed(payload: Body) -> bytes:
    """A server-sent event, under its type's name where it has one."""
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    return f"{name}data: {json.dumps(payload, ensure_ascii=False)}\n\n".encode()
