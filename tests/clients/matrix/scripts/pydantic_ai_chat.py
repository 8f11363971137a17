"""Pydantic AI, chat completions."""

import asyncio

from common import API_KEY, MODEL, OPENAI_URL, QUESTION, multiply, report
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=OPENAI_URL, api_key=API_KEY))
plain, tooled = Agent(model), Agent(model, tools=[multiply])


async def streamed() -> str:
    async with plain.run_stream(QUESTION) as result:
        return "".join([part async for part in result.stream_text(delta=True)])


report(
    ask=plain.run_sync(QUESTION).output,
    stream=asyncio.run(streamed()),
    tools=tooled.run_sync(QUESTION).output,
)
