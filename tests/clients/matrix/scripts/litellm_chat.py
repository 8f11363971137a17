"""litellm as a library."""

import json

import litellm
from common import API_KEY, MODEL, OPENAI_URL, QUESTION, TOOL_SCHEMA, multiply, report

fixed = {"model": f"openai/{MODEL}", "api_base": OPENAI_URL, "api_key": API_KEY}
messages = [{"role": "user", "content": QUESTION}]
ask = litellm.completion(messages=messages, **fixed)
streamed = litellm.completion(messages=messages, stream=True, **fixed)
stream = "".join(c.delta.content or "" for chunk in streamed for c in chunk.choices)
function = {"name": "multiply", "description": "Multiply.", "parameters": TOOL_SCHEMA}
tools = [{"type": "function", "function": function}]
called = litellm.completion(messages=messages, tools=tools, **fixed).choices[0].message
(call,) = called.tool_calls
result = multiply(**json.loads(call.function.arguments))
told = {"role": "tool", "tool_call_id": call.id, "content": str(result)}
after = litellm.completion(messages=[*messages, called, told], tools=tools, **fixed)
report(ask=ask.choices[0].message.content, stream=stream, tools=after.choices[0].message.content)
