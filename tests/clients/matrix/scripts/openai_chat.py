"""openai for Python, chat completions."""

import json

from common import API_KEY, MODEL, OPENAI_URL, QUESTION, TOOL_SCHEMA, multiply, report
from openai import OpenAI

client = OpenAI(base_url=OPENAI_URL, api_key=API_KEY)
messages = [{"role": "user", "content": QUESTION}]
ask = client.chat.completions.create(model=MODEL, messages=messages)
streamed = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
stream = "".join(c.delta.content or "" for chunk in streamed for c in chunk.choices)
function = {"name": "multiply", "description": "Multiply.", "parameters": TOOL_SCHEMA}
tools = [{"type": "function", "function": function}]
called = client.chat.completions.create(model=MODEL, messages=messages, tools=tools).choices[0]
(call,) = called.message.tool_calls
result = multiply(**json.loads(call.function.arguments))
told = {"role": "tool", "tool_call_id": call.id, "content": str(result)}
after = client.chat.completions.create(
    model=MODEL, messages=[*messages, called.message, told], tools=tools
)
report(ask=ask.choices[0].message.content, stream=stream, tools=after.choices[0].message.content)
