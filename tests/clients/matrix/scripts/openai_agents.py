"""OpenAI's Agents SDK with its default model, which speaks Responses."""

import asyncio

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from common import API_KEY, MODEL, OPENAI_URL, QUESTION, multiply, report
from openai import AsyncOpenAI

set_tracing_disabled(True)
model = OpenAIResponsesModel(MODEL, AsyncOpenAI(base_url=OPENAI_URL, api_key=API_KEY))
plain = Agent(name="plain", model=model)
tooled = Agent(name="tooled", model=model, tools=[function_tool(multiply)])


async def main() -> None:
    ask = await Runner.run(plain, QUESTION)
    running = Runner.run_streamed(plain, QUESTION)
    stream = ""
    async for event in running.stream_events():
        data = getattr(event, "data", None)
        if getattr(data, "type", "") == "response.output_text.delta":
            stream += data.delta
    after = await Runner.run(tooled, QUESTION)
    report(ask=ask.final_output, stream=stream, tools=after.final_output)


asyncio.run(main())
