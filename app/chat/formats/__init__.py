"""What other formats than chat's are for the loop: a request is read as a chat request, experience
is put where the format has its place for it, and an answer is read and written in it.

    fmt = FORMATS["/v1/responses"]
    reading = fmt.read({"model": "m", "input": "What is 12 times 7?"})
    reading.fields["messages"]  # [{"role": "user", "content": "What is 12 times 7?"}]
"""

from app.chat.formats.base import Additions, AnswerReader, ApiFormat, Reading, additions
from app.chat.formats.messages import MessagesFormat
from app.chat.formats.responses import ResponsesFormat

FORMATS: dict[str, ApiFormat] = {
    "/v1/responses": ResponsesFormat(),
    "/v1/messages": MessagesFormat(),
}
"""By the path on which requests come."""

__all__ = [
    "FORMATS",
    "Additions",
    "AnswerReader",
    "ApiFormat",
    "MessagesFormat",
    "Reading",
    "ResponsesFormat",
    "additions",
]
