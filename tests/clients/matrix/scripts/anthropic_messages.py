"""Anthropic's SDK for Python, Messages."""

from anthropic import Anthropic
from common import API_KEY, BASE_URL, MODEL, QUESTION, TOOL_SCHEMA, multiply, report

client = Anthropic(base_url=BASE_URL, api_key=API_KEY)
fixed = {"model": MODEL, "max_tokens": 256}
messages = [{"role": "user", "content": QUESTION}]
ask = client.messages.create(messages=messages, **fixed)
with client.messages.stream(messages=messages, **fixed) as streamed:
    stream = "".join(streamed.text_stream)
tools = [{"name": "multiply", "description": "Multiply.", "input_schema": TOOL_SCHEMA}]
called = client.messages.create(messages=messages, tools=tools, **fixed)
(call,) = (block for block in called.content if block.type == "tool_use")
result = {"type": "tool_result", "tool_use_id": call.id, "content": str(multiply(**call.input))}
turns = [
    *messages,
    {"role": "assistant", "content": called.content},
    {"role": "user", "content": [result]},
]
after = client.messages.create(messages=turns, tools=tools, **fixed)
report(ask=ask.content[0].text, stream=stream, tools=after.content[0].text)
