"""LangChain's ChatOpenAI."""

from common import API_KEY, MODEL, OPENAI_URL, QUESTION, multiply, report
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model=MODEL, base_url=OPENAI_URL, api_key=API_KEY)
stream = "".join(chunk.text for chunk in model.stream(QUESTION))
bound = model.bind_tools([tool(multiply)])
turns = [HumanMessage(QUESTION)]
called = bound.invoke(turns)
(call,) = called.tool_calls
told = ToolMessage(str(multiply(**call["args"])), tool_call_id=call["id"])
after = bound.invoke([*turns, called, told])
report(ask=model.invoke(QUESTION).text, stream=stream, tools=after.text)
