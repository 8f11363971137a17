"""openai for Python, Responses."""

import json

from common import API_KEY, MODEL, OPENAI_URL, QUESTION, TOOL_SCHEMA, multiply, report
from openai import OpenAI

client = OpenAI(base_url=OPENAI_URL, api_key=API_KEY)
ask = client.responses.create(model=MODEL, input=QUESTION)
stream = ""
for event in client.responses.create(model=MODEL, input=QUESTION, stream=True):
    if event.type == "response.output_text.delta":
        stream += event.delta
tool = {"type": "function", "name": "multiply", "parameters": TOOL_SCHEMA, "strict": False}
asked = [{"role": "user", "content": QUESTION}]
called = client.responses.create(model=MODEL, input=asked, tools=[tool])
(call,) = (item for item in called.output if item.type == "function_call")
result = multiply(**json.loads(call.arguments))
told = {"type": "function_call_output", "call_id": call.call_id, "output": str(result)}
after = client.responses.create(model=MODEL, input=[*asked, *called.output, told], tools=[tool])
report(ask=ask.output_text, stream=stream, tools=after.output_text)
