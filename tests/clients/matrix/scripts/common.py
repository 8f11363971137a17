"""What each script is told, and what it says of its client."""

import json
import os

BASE_URL = os.environ["BASE_URL"]
"""Of the gateway, without `/v1`."""
OPENAI_URL = f"{BASE_URL}/v1"
API_KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]
QUESTION = "What is 12 times 7?"


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


TOOL_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


def report(*, ask: str, stream: str | None, tools: str | None) -> None:
    """What was answered to the question, in a stream, and after a tool or in a schema was used;
    None: the client has no such thing."""
    print(json.dumps({"ask": ask, "stream": stream, "tools": tools}))
